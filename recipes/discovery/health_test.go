package discovery

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// told is a change of an instance's health.
type told struct {
	up bool
	at time.Duration
}

func TestHealthRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		sickFrom, sickUntil := 12*time.Second, 33*time.Second
		h := Health{Every: 5 * time.Second, Rise: 2, Check: func(context.Context) error {
			if at := time.Since(start); at >= sickFrom && at < sickUntil {
				return errors.New("sick")
			}
			return nil
		}}.withDefaults()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var got []told
		h.run(ctx, func(up bool) { got = append(got, told{up, time.Since(start)}) })
		require.Equal(t, []told{{false, 20 * time.Second}, {true, 40 * time.Second}}, got)
	})
}

// A check that hangs is a failure after its timeout, and does not keep the others
// from running.
func TestHealthTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		h := Health{Every: 5 * time.Second, Timeout: time.Second, Fall: 1, Check: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}.withDefaults()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var got []told
		h.run(ctx, func(up bool) { got = append(got, told{up, time.Since(start)}) })
		require.Equal(t, []told{{false, 6 * time.Second}}, got)
	})
}

// One failure between successes is none.
func TestHealthBlip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		h := Health{Check: func(context.Context) error {
			if n++; n%2 == 0 {
				return errors.New("blip")
			}
			return nil
		}}.withDefaults()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		h.run(ctx, func(bool) { t.Error("nothing to tell") })
		require.InDelta(t, 720, n, 1)
	})
}

func TestHealthPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, sick := time.Now(), errors.New("sick")
		h := Health{Check: func(context.Context) error {
			if time.Since(start) < 12*time.Second {
				return sick
			}
			return nil
		}}.withDefaults()
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second)
		defer cancel()
		require.Equal(t, sick, h.pass(ctx))
		require.Equal(t, 11*time.Second, time.Since(start))
		require.NoError(t, h.pass(t.Context()))
		require.Equal(t, 16*time.Second, time.Since(start))
	})
}
