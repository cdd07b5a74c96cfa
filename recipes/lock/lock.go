package lock

import (
	"context"
	"errors"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

// releaseTimeout bounds how long Do waits for its release to be confirmed. The
// release itself goes on.
const releaseTimeout = 5 * time.Second

// Lock is a lock on a name. It holds no state of its own: any number of Lock
// objects of one name, in any number of processes, are the same lock. It is
// safe for concurrent use.
type Lock struct{ bid *bid }

// New returns the lock with the name. It does nothing yet; a name that can not
// be used makes every call return [ErrName].
func New(c *client.Client, name string, opts ...Option) *Lock {
	return &Lock{bid: newBid(c, []string{name}, opts)}
}

// Name returns the lock's name.
func (l *Lock) Name() string { return l.bid.names[0] }

// Acquire waits until the lock is ours. Who comes first is served first, over
// all processes by the order in which their keys were created, and within this
// process by the order of the calls.
//
// ctx bounds the waiting only: the lock is held until Release, or until it is
// lost, whatever becomes of ctx. An Acquire that gives up leaves no key behind;
// if it is still unknown whether it made one, that is found out and undone in
// the background.
//
// Errors: those of ctx; [ErrLost] when the place in the queue was lost, be it
// that the session ended or that the key was deleted; [ErrConflict]; [ErrName];
// and those of the client that waiting does not cure.
func (l *Lock) Acquire(ctx context.Context) (*Held, error) {
	h, err := l.bid.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return &Held{h.handle()}, nil
}

// TryAcquire takes the lock if it is free at this moment, and returns [ErrHeld]
// if it is not; it never joins the queue, not even for a moment. The lock is
// taken too while others wait for it inside this process.
//
// Everything else is as with [Lock.Acquire].
func (l *Lock) TryAcquire(ctx context.Context) (*Held, error) {
	h, err := l.bid.try(ctx)
	if err != nil {
		return nil, err
	}
	return &Held{h.handle()}, nil
}

// Do acquires the lock, calls fn and releases the lock when fn has returned.
// The context of fn is ctx, and ends when the lock is lost, with a [*LostError]
// as its cause; it carries the token, see [fence.FromContext].
//
// Do returns the error of fn, joined with that of a loss or a failed release.
// It waits at most five seconds for the release to be confirmed.
func (l *Lock) Do(ctx context.Context, fn func(ctx context.Context, h *Held) error) error {
	h, err := l.Acquire(ctx)
	if err != nil {
		return err
	}
	return h.do(ctx, func(ctx context.Context) error { return fn(ctx, h) })
}

// do calls fn with a context that stems from ctx and ends with the handle, and
// releases the handle when fn has returned.
func (h *handle) do(ctx context.Context, fn func(ctx context.Context) error) (err error) {
	work, cancel := context.WithCancelCause(h.hold.values(ctx))
	stop := context.AfterFunc(h.ctx, func() { cancel(context.Cause(h.ctx)) })
	defer func() {
		stop()
		cancel(context.Canceled)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		if released := h.Release(ctx); released != nil {
			err = errors.Join(err, released)
		}
	}()
	return fn(work)
}
