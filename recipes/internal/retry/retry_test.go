package retry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// What trying again may cure: with an uncertain outcome only for those who can repeat
// the request.
func TestTemporary(t *testing.T) {
	for _, tt := range []struct {
		err                  error
		temporary, unreached bool
	}{
		{nil, false, false},
		{client.ErrUnavailable, true, true},
		{client.ErrNoLeader, true, true},
		{client.ErrOverloaded, true, true},
		{client.ErrUncertain, true, false},
		{fmt.Errorf("get: %w", client.ErrNoLeader), true, true},
		{fmt.Errorf("put: %w", client.ErrUncertain), true, false},
		{client.ErrCompacted, false, false},
		{client.ErrClosed, false, false},
		{context.Canceled, false, false},
		{errors.New("no"), false, false},
	} {
		require.Equal(t, tt.temporary, Temporary(tt.err), "%v", tt.err)
		require.Equal(t, tt.unreached, Unreached(tt.err), "%v", tt.err)
	}
}

// The pauses double, up to a bound, and nothing is repeated that trying again does not
// cure.
func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		final := errors.New("no")
		var at []time.Duration
		start := time.Now()
		err := Do(t.Context(), func() error {
			at = append(at, time.Since(start))
			switch {
			case len(at) == 12:
				return final
			case len(at)%2 == 0:
				return client.ErrUncertain
			}
			return client.ErrUnavailable
		})
		require.Equal(t, final, err)
		for i := 1; i < len(at); i++ {
			require.Equal(t, min(pauseMax, pauseMin<<(i-1)), at[i]-at[i-1], i)
		}
		require.Equal(t, pauseMax, at[11]-at[10])
		require.NoError(t, Do(t.Context(), func() error { return nil }))
	})
}

// The end of the context ends the pause, and the last answer is what is returned.
func TestDoEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Millisecond)
		defer cancel()
		start, requests := time.Now(), 0
		request := func() error { requests++; return client.ErrUncertain }
		require.Equal(t, client.ErrUncertain, Do(ctx, request))
		require.Equal(t, 12*time.Millisecond, time.Since(start))
		require.Equal(t, 2, requests)
		require.Equal(t, client.ErrUncertain, Do(ctx, request), "it is made once in any case")
		require.Equal(t, 3, requests)
	})
}

// A pause has the length that was asked for; with chance, half of that more or less;
// and it ends with its context.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := func(pause func() bool) time.Duration {
			start := time.Now()
			require.True(t, pause())
			return time.Since(start)
		}
		for n, want := range map[int]time.Duration{0: pauseMin, 3: 8 * pauseMin, 7: pauseMax, 10: pauseMax, 1000: pauseMax} {
			require.Equal(t, want, took(func() bool { return Backoff(t.Context(), n) }), n)
			for range 20 {
				d := took(func() bool { return Pause(t.Context(), n) })
				require.GreaterOrEqual(t, d, want/2, n)
				require.Less(t, d, want/2+want, n)
			}
		}
		for n, want := range map[int]time.Duration{0: 10, 1: 20, 2: 40, 3: 70, 1000: 70} {
			require.Equal(t, want, took(func() bool { return BackoffWithin(t.Context(), n, 10, 70) }), n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1)
		defer cancel()
		require.False(t, Backoff(ctx, 5))
		require.False(t, Pause(ctx, 5))
		require.False(t, BackoffWithin(ctx, 0, 10, 70))
	})
}

// A cause of its own is visible beside the kind of end.
func TestWhy(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, context.Canceled, Why(ctx))
	cause := errors.New("had enough")
	with, end := context.WithCancelCause(t.Context())
	end(cause)
	require.ErrorIs(t, Why(with), context.Canceled)
	require.ErrorIs(t, Why(with), cause)
	require.EqualError(t, Why(with), "context canceled: had enough")
}
