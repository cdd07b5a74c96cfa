package lock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A mark is renewed once in a period, and soon again after a failure, so that a
// failure or two do not cost it its lease.
func TestMarkIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 4 * time.Second
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		fail := map[int]bool{2: true, 3: true}
		var at []time.Duration
		renew(ctx, every, func(attempt context.Context) error {
			at = append(at, time.Since(start))
			deadline, ok := attempt.Deadline()
			require.True(t, ok)
			require.Equal(t, markTimeout, time.Until(deadline))
			if len(at) == 5 {
				cancel()
			}
			if fail[len(at)] {
				return errors.New("no answer")
			}
			return nil
		})
		require.Equal(t, []time.Duration{
			every, 2 * every, 2*every + markRetry, 2*every + 2*markRetry, 3*every + 2*markRetry,
		}, at)
	})
}

// One that never answers is given up in time for the next.
func TestMarkThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		renew(ctx, time.Second, func(attempt context.Context) error {
			if n++; n == 3 {
				cancel()
			}
			<-attempt.Done()
			return attempt.Err()
		})
		require.Equal(t, time.Second+2*(markTimeout+markRetry), time.Since(start))
	})
}
