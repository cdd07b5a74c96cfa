package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// Held is a lock that was acquired, once: a second acquisition gives another
// Held. It is safe for concurrent use.
type Held struct {
	lock  *Lock
	claim *contender.Claim
	ctx   context.Context
}

func newHeld(l *Lock, c *contender.Claim) *Held {
	return &Held{lock: l, claim: c, ctx: fence.NewContext(c.Context(), l.name, fence.Token(c.Token()))}
}

// Name returns the lock's name.
func (h *Held) Name() string { return h.lock.name }

// Key returns the key that stands for this acquisition, without the client's
// namespace.
func (h *Held) Key() string { return h.claim.Key(0) }

// Token returns the fencing token: the revision at which the key was created,
// larger than that of every earlier holder.
func (h *Held) Token() fence.Token { return fence.Token(h.claim.Token()) }

// Context returns a context that lives as long as the lock is held. When the
// lock is lost, it ends with a [*LostError] as its cause, before anybody else
// can have the lock unless the key was deleted by hand; after Release, the cause
// is [ErrReleased]. It has the values of the context given to Acquire, but
// neither its deadline nor its cancellation, and carries the token, see
// [fence.FromContext].
func (h *Held) Context() context.Context { return h.ctx }

// Valid says whether the lock can be relied on at this moment. It is a cheap,
// local call: make it right before each side effect. It can be wrong by as much
// as the process is suspended between the call and the effect; only a resource
// that checks the token closes that gap.
func (h *Held) Valid() bool { return h.Remaining() > 0 }

// Remaining returns for how long the lock can be relied on if the cluster can
// not be reached from now on; zero when it is lost or released. It is a cheap,
// local call.
func (h *Held) Remaining() time.Duration {
	if h.ctx.Err() != nil {
		return 0
	}
	return h.claim.Remaining()
}

// Guard returns the condition that holds exactly as long as the lock is held, for
// transactions on the cluster that the lock is on. Keys are in the namespace of
// the client that the lock was made with.
func (h *Held) Guard() client.Compare { return h.claim.Guard()[0] }

// Txn starts a transaction that is executed only while the lock is held, however
// late it arrives. If it is not, Commit returns an error that is [ErrLost]; that
// a condition of the caller's own does not hold is a result, not an error.
func (h *Held) Txn() *client.GuardedTxn { return h.claim.Txn() }

// Release gives the lock back. The handle's context ends at once, before anybody
// else can get the lock. Release returns nil when the key is known to be gone; a
// [*LostError] when the lock had been lost before; and when ctx ends first, its
// error with [client.ErrUncertain]. In that case the release goes on in the
// background until the cluster has confirmed it or the session ends, and nobody
// in this process gets the lock before.
//
// Release may be called again, also at the same time: it waits for the same
// release, and deletes nothing but the key of this acquisition.
func (h *Held) Release(ctx context.Context) error {
	err := h.claim.Release(ctx)
	if err != nil && !errors.Is(err, ErrLost) {
		return fmt.Errorf("release lock %q: %w", h.lock.name, err)
	}
	return err
}
