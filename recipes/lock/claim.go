package lock

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

const (
	// pageFirst keys are read to find the one to wait for; if all of them are
	// nested, pageFactor times as many are.
	pageFirst  = 4
	pageFactor = 8
	// The pause before a request is repeated whose answer did not come.
	retryMin = 5 * time.Millisecond
	retryMax = 500 * time.Millisecond
	// freeTries bounds the attempts of TryAcquire at a lock below whose name
	// other locks come and go all the time.
	freeTries = 32
)

// claim is one key of ours in a lock's queue, from before its creation until it
// is known to be gone. It is what a Held stands on.
//
// While the key is known to exist, the claim has the turn of its slot, so that
// nobody else in this process touches the key.
type claim struct {
	lock    *Lock
	session *client.Session
	turn    *turn
	key     string // "<name>/<lease>", without the client's namespace

	// ctx lives with the claim: it ends when the claim is lost, released or
	// given up. Its values are those of the caller's context.
	ctx  context.Context
	end  context.CancelCauseFunc
	stop func() bool // forgets the session

	revision atomic.Int64 // the key's create revision; zero until it is known, then immutable

	removal sync.Once     // starts remove
	removed chan struct{} // closed when remove has ended
	outcome error         // of remove; readable once removed is closed
}

func newClaim(ctx context.Context, l *Lock, s *client.Session, t *turn) *claim {
	c := &claim{
		lock:    l,
		session: s,
		turn:    t,
		key:     l.prefix() + s.ID().String(),
		removed: make(chan struct{}),
	}
	c.ctx, c.end = context.WithCancelCause(context.WithoutCancel(ctx))
	c.stop = context.AfterFunc(c.session.Context(), func() { c.lose(c.session.Err(), true) })
	return c
}

func (c *claim) token() client.Revision { return client.Revision(c.revision.Load()) }

// run enters the queue, waits and delivers the result. Whatever does not become
// a Held is undone.
func (c *claim) run(ctx context.Context, enter func(*claim, context.Context) error, result chan<- error) {
	waiting, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
	defer stop()
	defer cancel(nil)
	err := enter(c, waiting)
	if lost := context.Cause(c.ctx); lost != nil {
		err = lost
	}
	if err == nil {
		// The caller's context is carried on by values only: the lock is held
		// whatever becomes of it.
		select {
		case result <- nil:
			return
		case <-ctx.Done():
		}
	} else {
		select {
		case result <- err:
		case <-ctx.Done():
		}
	}
	c.end(ErrReleased)
	c.undo()
}

// lose ends the claim for a reason that is not ours. gone says that the key no
// longer exists, or is about to end with its lease.
func (c *claim) lose(reason error, gone bool) {
	c.end(&LostError{Name: c.lock.name, Token: fence.Token(c.token()), Reason: reason, At: time.Now(), gone: gone})
}

// lost returns how the claim was lost, or nil.
func (c *claim) lost() *LostError {
	var lost *LostError
	errors.As(context.Cause(c.ctx), &lost)
	return lost
}

// queue creates the key and waits until no older contender is left. It returns
// nil when the lock is ours.
func (c *claim) queue(ctx context.Context) error {
	view, err := c.create(ctx)
	if err != nil {
		return err
	}
	for {
		older, err := c.predecessor(ctx, view)
		if err != nil {
			return err
		}
		if older == nil {
			return nil
		}
		if err := c.awaitEnd(ctx, older.Key, view.Revision); err != nil {
			return err
		}
		if view, err = c.confirm(ctx); err != nil {
			return err
		}
	}
}

// create puts the key into the store and returns those before it, newest first.
//
// The request does not end with ctx: should the caller give up, the answer is
// still needed to know what to undo. It can be repeated: the key's name is the
// session's, so if an earlier attempt was executed after all, the next one finds
// the key, and takes it as its own if it has our lease.
func (c *claim) create(ctx context.Context) (*client.GetResult, error) {
	var res *client.TxnResult
	err := c.attempt(ctx, func() error {
		var err error
		res, err = c.lock.client.Txn().
			If(client.Missing(c.key)).
			Then(client.OpPut(c.key, c.lock.value, client.WithLease(c.session.ID())), c.opBefore(pageFirst+1)).
			Else(client.OpGet(c.key)).
			Commit(c.session.Context())
		return err
	})
	if err != nil {
		return nil, err
	}
	if !res.Succeeded {
		if err := c.adopt(res.Results[0].Get); err != nil {
			return nil, err
		}
		return c.confirm(ctx)
	}
	c.begin(res.Revision)
	view := res.Results[1].Get
	view.Revision = res.Revision
	return view, nil
}

// seize creates the key only if the lock is free. It returns nil when the lock
// is ours, and a HeldError when it is somebody else's.
//
// The lock is free if there is no key below its name. Keys of nested names are
// in the way of that condition: if there are no others, the condition becomes
// that no key is newer than what was seen.
func (c *claim) seize(ctx context.Context) error {
	free := client.CreateRevision(c.lock.prefix(), client.Prefix()).Equal(0)
	for range freeTries {
		var res *client.TxnResult
		err := c.attempt(ctx, func() error {
			var err error
			res, err = c.lock.client.Txn().
				If(free).
				Then(client.OpPut(c.key, c.lock.value, client.WithLease(c.session.ID()))).
				Else(client.OpGet(c.key), client.OpGet(c.lock.prefix(), client.Prefix(),
					client.Ascending(client.ByCreateRevision), client.Limit(pageFirst))).
				Commit(c.session.Context())
			return err
		})
		if err != nil {
			return err
		}
		if res.Succeeded {
			c.begin(res.Revision)
			return nil
		}
		own, view := res.Results[0].Get, res.Results[1].Get
		if len(own.KVs) > 0 {
			if err := c.adopt(own); err != nil {
				return err
			}
		}
		view.Revision = res.Revision
		holder, err := c.oldest(ctx, view)
		if err != nil {
			return err
		}
		switch {
		case holder == nil:
			free = client.CreateRevision(c.lock.prefix(), client.Prefix()).Less(res.Revision + 1)
		case holder.Key == c.key && c.token() != 0:
			return nil // an earlier attempt has taken it
		default:
			return &HeldError{Name: c.lock.name, Holder: contenderOf(*holder)}
		}
	}
	return &HeldError{Name: c.lock.name}
}

// attempt calls request, which may create the key, until its outcome is known
// or ctx ends. A request without an answer may be executed later, or have been:
// the slot remembers it, so that a key nobody knows of is swept away.
func (c *claim) attempt(ctx context.Context, request func() error) error {
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return c.ended(ctx)
		}
		err := request()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, client.ErrUncertain):
			c.turn.suspect()
		case errors.Is(err, client.ErrLeaseNotFound):
			c.lose(&client.SessionError{ID: c.session.ID(), Reason: client.ErrSessionRevoked}, true)
			return context.Cause(c.ctx)
		case !temporary(err):
			return err
		}
		if !pause(ctx, n) {
			return c.ended(ctx)
		}
	}
}

// ended says why ctx, which ends with the claim and with the caller's context,
// has ended.
func (c *claim) ended(ctx context.Context) error {
	if lost := context.Cause(c.ctx); lost != nil {
		return lost
	}
	return ctxError(ctx)
}

// adopt takes the key that exists as ours, as an earlier attempt has made it. A
// key without our lease was put there by somebody else.
func (c *claim) adopt(own *client.GetResult) error {
	kv := own.KVs[0]
	if kv.Lease != c.session.ID() {
		return &ConflictError{Name: c.lock.name, Key: kv.Key, Recipe: "unknown"}
	}
	c.begin(kv.CreateRevision)
	return nil
}

// begin notes that the key exists, and starts to guard it.
func (c *claim) begin(token client.Revision) {
	if c.revision.CompareAndSwap(0, int64(token)) {
		go c.guard()
	}
}

// temporary says that a request may succeed if it is tried again.
func temporary(err error) bool {
	return errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrNoLeader) ||
		errors.Is(err, client.ErrOverloaded) || errors.Is(err, client.ErrUncertain)
}

// pause waits before attempt n+1. It returns false when ctx ends first.
func pause(ctx context.Context, n int) bool {
	timer := time.NewTimer(min(retryMax, retryMin<<min(n, 10)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
