package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// hold is one acquisition of one lock, or of several together: what all its
// handles share.
type hold struct {
	bid   *bid
	claim *contender.Claim // set before the hold is known to others
	mark  mark

	mu       sync.Mutex   // protects what follows
	requests chan Request // holds the latest one
	handles  int          // that are not released; only counted if the lock is reentrant
}

func newHold(b *bid) *hold { return &hold{bid: b, requests: make(chan Request, 1), handles: 1} }

// spec says what the claim of this hold is.
func (h *hold) spec(s *client.Session, keys ...contender.Key) contender.Spec {
	return contender.Spec{
		Client: h.bid.client, Session: s, Keys: keys,
		Lost: h.bid.lost, Released: ErrReleased, Changed: h.changed, Farewell: h.farewell,
	}
}

// run gets the locks by enter.
func (h *hold) run(ctx context.Context, c *contender.Claim, enter func(*queue, context.Context) error) (*hold, error) {
	h.claim = c
	q := &queue{claim: c, bid: h.bid}
	err := c.Run(ctx, func(ctx context.Context) error {
		if err := enter(q, ctx); err != nil || h.bid.opts.delay == 0 {
			return err
		}
		return h.leaveMark(ctx)
	})
	if err != nil {
		return nil, h.bid.wrap(err)
	}
	return h, nil
}

func (h *hold) token() fence.Token { return fence.Token(h.claim.Token()) }

// changed is told that somebody has written one of the keys.
func (h *hold) changed(c *contender.Claim, _ int, kv client.KV) {
	var r record
	if json.Unmarshal(kv.Value, &r) != nil {
		return // nothing that a client of ours has written
	}
	if r.Broken != "" {
		c.Lose(fmt.Errorf("%w by %s", ErrBroken, r.Broken))
	}
	if r.Request != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		select {
		case <-h.requests: // only the latest counts
		default:
		}
		h.requests <- *r.Request
	}
}

// handle is the part that all handles have in common.
type handle struct {
	hold *hold
	ctx  context.Context
	end  context.CancelCauseFunc // of a reentrant lock's handle; else nil
	once sync.Once               // counts the handle out
}

// handle returns another handle of the hold.
func (h *hold) handle() *handle {
	out := &handle{hold: h, ctx: h.values(h.claim.Context())}
	if h.bid.opts.reentrant {
		out.ctx, out.end = context.WithCancelCause(out.ctx)
	}
	return out
}

// values returns ctx with the tokens, and with the hold if that can be shared.
func (h *hold) values(ctx context.Context) context.Context {
	for _, name := range h.bid.names {
		if !h.bid.shared {
			ctx = fence.NewContext(ctx, name, h.token())
		}
	}
	if h.bid.opts.reentrant {
		ctx = context.WithValue(ctx, h.bid.carrier(h.claim.Session()), h)
	}
	return ctx
}

// Context returns a context that lives as long as the lock is held. When the
// lock is lost, it ends with a [*LostError] as its cause, before anybody else
// can have the lock unless the key was deleted by hand; after Release, the cause
// is [ErrReleased]. It has the values of the context given to Acquire, but
// neither its deadline nor its cancellation, and carries the token, see
// [fence.FromContext].
func (h *handle) Context() context.Context { return h.ctx }

// Valid says whether the lock can be relied on at this moment. It is a cheap,
// local call: make it right before each side effect. It can be wrong by as much
// as the process is suspended between the call and the effect; only a resource
// that checks the token closes that gap.
func (h *handle) Valid() bool { return h.Remaining() > 0 }

// Remaining returns for how long the lock can be relied on if the cluster can
// not be reached from now on; zero when it is lost or released. It is a cheap,
// local call.
func (h *handle) Remaining() time.Duration {
	if h.ctx.Err() != nil {
		return 0
	}
	return h.hold.claim.Remaining()
}

// States yields how far the lock can be trusted, now and after each change, and
// ends after [client.Lost], which is final, or when ctx is done. The lock is
// suspect when no renewal of its session was acknowledged for half a TTL: time to
// bring things into a state in which losing the lock does no harm. A slow loop
// sees the latest state only.
func (h *handle) States(ctx context.Context) iter.Seq[client.State] {
	return func(yield func(client.State) bool) {
		both, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(h.ctx, cancel)()
		for state := range h.hold.claim.Session().States(both) {
			if h.ctx.Err() != nil {
				break
			}
			if !yield(state) || state == client.Lost {
				return
			}
		}
		if h.ctx.Err() != nil {
			yield(client.Lost)
		}
	}
}

// ReleaseRequested returns a channel with the latest request to give the lock up
// that has not been received yet, see [RequestRelease]. What to do about it is
// the holder's decision. The channel is never closed.
func (h *handle) ReleaseRequested() <-chan Request { return h.hold.requests }

// Txn starts a transaction that is executed only while the lock is held, however
// late it arrives. If it is not, Commit returns an error that is [ErrLost]; that
// a condition of the caller's own does not hold is a result, not an error.
func (h *handle) Txn() *client.GuardedTxn { return h.hold.claim.Txn() }

// Check asks the cluster whether the lock is held at this moment. It returns nil
// if it was at a moment between the call and the return, and an error that is
// [ErrLost] if it is not.
func (h *handle) Check(ctx context.Context) error {
	return check(ctx, h.Txn(), h.hold.claim.Key(0))
}

// check commits a transaction that does nothing. Without a read, etcd would judge
// by what the member that is asked has.
func check(ctx context.Context, txn *client.GuardedTxn, key string) error {
	_, err := txn.Then(client.OpGet(key, client.CountOnly())).Commit(ctx)
	return err
}

// Release gives the lock back. The handle's context ends at once, before anybody
// else can get the lock. Release returns nil when the key is known to be gone; a
// [*LostError] when the lock had been lost before; and when ctx ends first, its
// error with [client.ErrUncertain]. In that case the release goes on in the
// background until the cluster has confirmed it or the session ends, and nobody
// in this process gets the lock before.
//
// Release may be called again, also at the same time: it waits for the same
// release, and deletes nothing but the key of this acquisition. Of a reentrant
// lock, all handles but the last one that is released only end themselves.
func (h *handle) Release(ctx context.Context) error {
	if h.end != nil && !h.last() {
		if lost := context.Cause(h.hold.claim.Context()); errors.Is(lost, ErrLost) {
			return lost
		}
		return nil
	}
	err := h.hold.claim.Release(ctx)
	if err != nil && !errors.Is(err, ErrLost) {
		return fmt.Errorf("release lock %q: %w", h.hold.bid.title(), err)
	}
	return err
}
