package election

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errSick = errors.New("sick")

// A candidate waits until it is healthy, and looks once in each interval.
func TestHealthIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := 0
		h := health{interval: 3 * time.Second, check: func(context.Context) error {
			if checks++; checks < 5 {
				return errSick
			}
			return nil
		}}
		begin := time.Now()
		require.NoError(t, h.await(t.Context()))
		require.Equal(t, 5, checks)
		require.Equal(t, 4*3*time.Second, time.Since(begin))
		require.NoError(t, health{}.await(t.Context()), "without a check, everybody is healthy")
	})
}

func TestHealthIsAwaitedWithinTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("had enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, why)
		defer cancel()
		begin := time.Now()
		err := health{interval: time.Hour, check: func(context.Context) error { return errSick }}.await(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, why)
		require.ErrorIs(t, err, ErrUnhealthy)
		require.ErrorContains(t, err, "sick")
		require.Equal(t, 10*time.Second, time.Since(begin))
	})
}

// The first failure is told, once, and a check that takes too long is one.
func TestHealthIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan error, 2)
		n := 0
		health{check: func(ctx context.Context) error {
			if n++; n == 4 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}.watch(t.Context(), func(err error) { told <- err })
		begin := time.Now()
		err := <-told
		require.ErrorIs(t, err, ErrUnhealthy)
		require.ErrorContains(t, err, context.DeadlineExceeded.Error())
		require.Equal(t, 5*healthInterval, time.Since(begin), "the fourth check, and the time it had")
		time.Sleep(time.Hour)
		require.Equal(t, 4, n, "nobody asks any more")
		require.Empty(t, told)
	})
}

// Who does not stand any more is not checked, and a check that his end has
// interrupted says nothing about his health.
func TestHealthIsWatchedWhileItMatters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		health{check: func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		}}.watch(ctx, func(error) { t.Error("told") })
		time.Sleep(time.Hour)
	})
}

// Only the first request of a term counts, whoever comes with others at the same
// time.
func TestFirstRequestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeadership(&Election[string]{})
		for range 10 {
			go l.stepDown(&StepDown{Kind: ErrAsked})
			go l.stepDown(&StepDown{Kind: ErrPreempted})
		}
		synctest.Wait()
		var cause *StepDown
		require.ErrorAs(t, context.Cause(l.asked), &cause)
		require.Equal(t, cause, <-l.StepDownRequested())
		require.Empty(t, l.StepDownRequested())
	})
}
