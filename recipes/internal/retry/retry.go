// Package retry says which failed requests may succeed later, how long to wait
// before they are made again, and makes them again.
package retry

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

const (
	// The pause before a request is made again. It doubles each time.
	pauseMin = 5 * time.Millisecond
	pauseMax = 500 * time.Millisecond
	// doublings bounds the doublings, so that none overflows. Of the pauses that are
	// in use, all have reached their longest by then.
	doublings = 10
)

// Temporary says that a request may succeed if it is made again. A change whose
// outcome is uncertain is one of those: whoever repeats it must be able to.
func Temporary(err error) bool {
	return Unreached(err) || errors.Is(err, client.ErrUncertain)
}

// Unreached says that a request may succeed if it is made again, as there was
// nobody to execute it: no member, no leader, or none with time for it. An
// uncertain outcome alone is none of those. It is for reads, and for changes that
// can not be repeated.
func Unreached(err error) bool {
	return errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrNoLeader) ||
		errors.Is(err, client.ErrOverloaded)
}

// Do makes a request until it succeeds, fails for good, or ctx ends, and returns
// what it returned last. The request must do no harm when it is executed twice.
func Do(ctx context.Context, request func() error) error {
	for n := 0; ; n++ {
		err := request()
		if err == nil || !Temporary(err) || ctx.Err() != nil || !Backoff(ctx, n) {
			return err
		}
	}
}

// Pause waits before attempt n+1, a random part of the time more or less, so that
// those who were cut off together do not come back together. It returns false
// when ctx ends first.
func Pause(ctx context.Context, n int) bool {
	d := pause(n, pauseMin, pauseMax)
	return wait(ctx, d/2+rand.N(d))
}

// Backoff is Pause without chance: for those whose requests do not come together.
func Backoff(ctx context.Context, n int) bool {
	return BackoffWithin(ctx, n, pauseMin, pauseMax)
}

// BackoffWithin is Backoff with a shortest and a longest pause of the caller's.
func BackoffWithin(ctx context.Context, n int, shortest, longest time.Duration) bool {
	return wait(ctx, pause(n, shortest, longest))
}

func pause(n int, shortest, longest time.Duration) time.Duration {
	return min(longest, shortest<<min(n, doublings))
}

// wait returns false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Why returns why ctx is done: its error, which says what kind of end it was, and
// its cause, where that is another one.
func Why(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || cause == err { //nolint:errorlint // it is that very value
		return err
	}
	return &ended{err, cause}
}

// ended is the end of a context that has a cause of its own.
type ended struct{ err, cause error }

func (e *ended) Error() string   { return e.err.Error() + ": " + e.cause.Error() }
func (e *ended) Unwrap() []error { return []error{e.err, e.cause} }
