// Package retry says which failed requests may succeed later, and how long to
// wait before they are made again.
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
	// doublings that lead from pauseMin to beyond pauseMax
	doublings = 7
)

// Temporary says that a request may succeed if it is made again. A change whose
// outcome is uncertain is one of those: whoever repeats it must be able to.
func Temporary(err error) bool {
	return errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrNoLeader) ||
		errors.Is(err, client.ErrOverloaded) || errors.Is(err, client.ErrUncertain)
}

// Pause waits before attempt n+1, a random part of the time more or less, so that
// those who were cut off together do not come back together. It returns false
// when ctx ends first.
func Pause(ctx context.Context, n int) bool {
	d := min(pauseMax, pauseMin<<min(n, doublings))
	timer := time.NewTimer(d/2 + rand.N(d))
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
