package contender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

// Reasons of a loss.
var (
	// ErrDeleted: the key was deleted, by a person or because its lease ended.
	ErrDeleted = errors.New("key was deleted")
	// ErrDetached: somebody has written the key and thereby taken it off its
	// lease, so it would stay when the session ends.
	ErrDetached = errors.New("key was taken off its lease")
)

// Key is a key that a recipe wants, without the client's namespace. Its name has
// the session's lease in it, so that nobody else creates it.
type Key struct {
	Name  string
	Value []byte
}

// Spec says what a recipe wants to have. All but Changed and Farewell is
// required.
type Spec struct {
	Client  *client.Client
	Session *client.Session
	// Keys are created together, or none of them is. At most 64, as a server
	// takes 128 operations in a transaction.
	Keys []Key
	// Lost makes the error that the claim ends with when it is lost.
	Lost func(Loss) error
	// Released is the cause that the claim's context ends with when it is
	// released.
	Released error
	// Changed is told that the i-th key was written, by Rewrite or by somebody
	// else, while the claim lives. It is called from the goroutine that watches
	// the key, must not block, and may see several writes as one.
	Changed func(c *Claim, i int, kv client.KV)
	// Farewell returns operations that are executed together with the deletion
	// of the keys, if they are given back and not lost.
	Farewell func(c *Claim) []client.Op
}

// Loss tells how a claim was lost.
type Loss struct {
	// Token is that of the claim; zero when it was lost before it had keys.
	Token client.Revision
	// Reason is ErrDeleted, ErrDetached, the end of the session as
	// client.Session.Err tells it, what was given to Lose, or the error by which
	// the keys could not be seen any more.
	Reason error
	// At is when this process learned of it; zero in the error of a guarded
	// transaction.
	At time.Time
}

// Claim is one attempt to have some keys and, after it succeeded, the having of
// them. It is safe for concurrent use, except that the methods that create and
// wait are for the one function that Run executes.
type Claim struct {
	spec Spec
	turn *turn

	// ctx lives with the claim: it ends when the claim is lost, released or
	// given up. Its values are those of the caller's context.
	ctx  context.Context
	end  context.CancelCauseFunc
	stop func() bool // forgets the session

	token atomic.Int64 // the keys' create revision; zero until it is known, then immutable
	watch *time.Timer  // starts guard; set before token is

	mu   sync.Mutex // protects what follows
	lost error      // the cause of ctx, if that is a loss
	gone bool       // the loss took all keys along, or is about to

	writing chan struct{}     // holds one element: the right to rewrite a key
	written []client.Revision // owned by who has that right: of each key, the last change by Rewrite

	removal sync.Once     // starts remove
	removed chan struct{} // closed when remove has ended
	outcome error         // of remove; readable once removed is closed
}

// Take waits until it is this claim's turn to use its keys: claims of this
// process that want the same ones get them in the order of the calls.
//
// Errors: those of ctx, and what spec.Lost makes of the end of the session.
func Take(ctx context.Context, spec Spec) (*Claim, error) {
	t, err := slots.take(ctx, spec.slots(), false)
	if err != nil {
		return nil, spec.turnError(err)
	}
	return newClaim(ctx, spec, t), nil
}

// Try is Take, but returns nil at once if some claim of this process has one of
// the keys or waits for it.
func Try(ctx context.Context, spec Spec) (*Claim, error) {
	t, err := slots.try(ctx, spec.slots())
	if err != nil {
		return nil, spec.turnError(err)
	}
	if t == nil {
		return nil, nil
	}
	return newClaim(ctx, spec, t), nil
}

func (s *Spec) slots() []slotID {
	ids := make([]slotID, len(s.Keys))
	for i, k := range s.Keys {
		ids[i] = slotID{session: s.Session, key: s.Client.Prefix() + k.Name}
	}
	return ids
}

// turnError makes the error for a turn that did not come.
func (s *Spec) turnError(err error) error {
	if ended := s.Session.Err(); ended != nil {
		return s.Lost(Loss{Reason: ended, At: time.Now()})
	}
	return err
}

func newClaim(ctx context.Context, spec Spec, t *turn) *Claim {
	c := &Claim{spec: spec, turn: t, writing: make(chan struct{}, 1), removed: make(chan struct{})}
	c.written = make([]client.Revision, len(spec.Keys))
	c.writing <- struct{}{}
	c.ctx, c.end = context.WithCancelCause(context.WithoutCancel(ctx))
	c.stop = context.AfterFunc(spec.Session.Context(), func() { c.lose(spec.Session.Err(), true) })
	return c
}

// Token returns the create revision of the keys, or zero while they are not
// known to exist.
func (c *Claim) Token() client.Revision { return client.Revision(c.token.Load()) }

// Key returns the name of the i-th key, without the client's namespace.
func (c *Claim) Key(i int) string { return c.spec.Keys[i].Name }

// Session returns the session that the keys belong to.
func (c *Claim) Session() *client.Session { return c.spec.Session }

// Context returns a context that ends with the claim, with a cause that the
// recipe made: by spec.Lost, or spec.Released. It has the values of the context
// that the claim was taken with, but not its end.
func (c *Claim) Context() context.Context { return c.ctx }

// Remaining returns for how long the claim can be relied on if the cluster can
// not be reached from now on; zero when it has ended. It is a cheap, local call.
func (c *Claim) Remaining() time.Duration {
	if c.ctx.Err() != nil {
		return 0
	}
	return c.spec.Session.Remaining()
}

// Guard returns the conditions that hold while all keys are the ones that this
// claim has created.
func (c *Claim) Guard() []client.Compare {
	guard := make([]client.Compare, len(c.spec.Keys))
	for i, k := range c.spec.Keys {
		guard[i] = client.CreateRevision(k.Name).Equal(c.Token())
	}
	return guard
}

// Txn starts a transaction that is executed only while the guard holds. If it
// does not, Commit returns what spec.Lost makes of the reason that is known.
func (c *Claim) Txn() *client.GuardedTxn { return c.spec.Client.Guarded(c.Ended(), c.Guard()...) }

// Ended returns the loss that is known, or what spec.Lost makes of spec.Released
// or ErrDeleted: what to tell somebody who found that the guard does not hold.
func (c *Claim) Ended() error {
	lost, _ := c.loss()
	switch {
	case lost != nil:
		return lost
	case c.ctx.Err() != nil:
		return c.spec.Lost(Loss{Token: c.Token(), Reason: c.spec.Released})
	}
	return c.spec.Lost(Loss{Token: c.Token(), Reason: ErrDeleted})
}

// Lose ends the claim as lost, for a reason of the recipe's, and removes the
// keys. It does nothing to a claim that has ended.
func (c *Claim) Lose(reason error) {
	c.lose(reason, false)
	c.undo()
}

// lose ends the claim for a reason that is not ours. gone says that the keys no
// longer exist, or are about to end with their lease.
func (c *Claim) lose(reason error, gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return
	}
	c.lost, c.gone = c.spec.Lost(Loss{Token: c.Token(), Reason: reason, At: time.Now()}), gone
	c.end(c.lost)
}

// loss returns how the claim was lost, or nil.
func (c *Claim) loss() (lost error, gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost, c.gone
}

// release ends the claim because we want it to.
func (c *Claim) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(c.spec.Released) // no effect on a claim that was lost
}

// Run executes enter, which is to create the keys and wait for its time, on a
// goroutine of its own, and returns its error. So a caller who gives up need not
// wait for an answer that is under way, and yet nothing that was asked for is
// forgotten: whatever does not end with nil is undone.
//
// The context of enter ends with ctx and with the claim. When Run returns nil,
// the claim lives on, whatever becomes of ctx.
func (c *Claim) Run(ctx context.Context, enter func(ctx context.Context) error) error {
	result := make(chan error) // unbuffered: either the caller takes it, or the goroutine sees that he left
	go c.run(ctx, enter, result)
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctxError(ctx)
	}
}

func (c *Claim) run(ctx context.Context, enter func(context.Context) error, result chan<- error) {
	waiting, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
	defer stop()
	defer cancel(nil)
	err := enter(waiting)
	if lost := context.Cause(c.ctx); lost != nil {
		err = lost
	}
	if err == nil {
		// The caller's context is carried on by values only: the keys are held
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
	c.release()
	c.undo()
}

// Release ends the claim and deletes the keys. The claim's context ends at once.
// Release returns nil when the keys are known to be gone; the loss when the
// claim had been lost before; and when ctx ends first, its error with
// client.ErrUncertain. In that case the removal goes on in the background until
// it is confirmed or the session ends, and no claim of this process gets the
// keys before.
//
// Release may be called again, also at the same time: it waits for the same
// removal, and deletes nothing but the keys of this claim.
func (c *Claim) Release(ctx context.Context) error {
	c.release()
	c.undo()
	select {
	case <-c.removed:
		return c.outcome
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", client.ErrUncertain, ctxError(ctx))
	}
}

// ctxError returns why ctx is done: its error, which says what kind of end it
// was, and its cause, where that is another one.
func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
