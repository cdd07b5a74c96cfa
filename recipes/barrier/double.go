package barrier

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// Double is a barrier around some work: nobody begins before all have come, and
// nobody goes on before all have finished. It holds no state of its own: any number
// of Double objects of one name, in any number of processes, are the same barrier. It
// is safe for concurrent use; each Enter is one member.
type Double struct{ base }

// NewDouble returns the double barrier with the name, for a number of parties from 1
// to 4096. It does nothing yet; arguments that can not be used make every call
// return an error.
func NewDouble(c *client.Client, name string, parties int, opts ...Option) *Double {
	return &Double{newBase(c, name, terms{Recipe: double, Parties: int64(parties)}, newOptions(options{}, opts))}
}

// Enter waits until as many members as the barrier has parties are there, and returns
// a handle of this one. Who comes while others are inside waits until all of them
// have left, and then for the next generation.
//
// ctx bounds the waiting only. An Enter that gives up leaves no key behind; that is
// done in the background, should an answer be under way. What it means for those who
// wait is a matter of the loss policy: it is as if the member had died.
//
// Errors: those of ctx, with [ErrFull] if there was no room; [ErrBroken] when a
// member was lost; [ErrLost] when it is this one; [ErrConflict]; [ErrName];
// [ErrParties]; and those of the client that waiting does not cure.
func (d *Double) Enter(ctx context.Context) (*Inside, error) {
	m, w, err := d.join(ctx, true)
	if err != nil {
		return nil, err
	}
	return &Inside{
		member: m, phase: w.then.rec.Phase, left: make(chan struct{}),
		arrival: newArrival(m, &record{terms: d.terms, Phase: w.phase}, w.then.rev, w.trip()),
		ctx:     fence.NewContext(m.ctx, d.name, fence.Token(w.then.rev)),
	}, nil
}

// Inside is a member that has entered, once. It is safe for concurrent use.
type Inside struct {
	member  *member
	phase   uint64
	arrival Arrival
	ctx     context.Context

	leave sync.Once
	left  chan struct{} // closed when all have left, or that will never be
	err   error         // readable once left is closed
}

// Arrival tells who is inside, and this member's place among them.
func (in *Inside) Arrival() Arrival { return in.arrival }

// Token returns the fencing token of the generation: the same for all members, and
// larger than that of every earlier one.
func (in *Inside) Token() fence.Token { return in.arrival.Token }

// Key returns the key that stands for this member, without the client's namespace.
func (in *Inside) Key() string { return in.member.key }

// Context returns a context that lives as long as the member is inside. It ends with a
// cause: a [*LostError] when this member is lost, before anybody can take it for gone
// unless its key was deleted by hand; with the policy Break, a [*BrokenError] when
// another one is; [ErrLeft] when Leave is called. It has the values of the context
// given to Enter, and carries the token, see [fence.FromContext].
func (in *Inside) Context() context.Context { return in.ctx }

// Valid says whether this member still is one, for all that is known here. It is a
// cheap, local call: make it right before each side effect.
func (in *Inside) Valid() bool { return in.Remaining() > 0 }

// Remaining returns for how long the member can be relied on if the cluster can not be
// reached from now on; zero when it is lost or has left. It is a cheap, local call.
func (in *Inside) Remaining() time.Duration {
	if in.member.ctx.Err() != nil {
		return 0
	}
	return in.member.room.session.Remaining()
}

// Guard returns the condition that holds as long as the member has not been lost, for
// transactions on the same cluster, in the namespace of the barrier's client.
func (in *Inside) Guard() client.Compare { return in.member.isOurs() }

// Txn starts a transaction that is executed only as long as the member has not been
// lost, however late it arrives. If it has, Commit returns an error that is [ErrLost].
func (in *Inside) Txn() *client.GuardedTxn {
	lost := &LostError{Name: in.member.room.name, Reason: ErrDeleted}
	return in.member.room.client.Guarded(lost, in.Guard())
}

// Leave says that this member has finished, and waits until all others have. With the
// first call the handle's context ends. Those who die inside have left, except with
// the policy Break: then Leave returns [ErrBroken].
//
// ctx bounds the waiting only: whatever becomes of it the member has left, which is
// seen to in the background. Leave may be called again, to go on waiting.
func (in *Inside) Leave(ctx context.Context) error {
	in.leave.Do(func() {
		m, r := in.member, in.member.room
		r.mu.Lock()
		lost := context.Cause(m.ctx)
		m.leaving = lost == nil
		m.end(ErrLeft)
		r.mu.Unlock()
		go in.depart(lost)
	})
	select {
	case <-in.left:
		return in.err
	case <-ctx.Done():
		return fmt.Errorf("leave barrier %q: %w", in.member.room.name, retry.Why(ctx))
	}
}

// depart is the work of Leave, for a member that was lost before or is not.
func (in *Inside) depart(lost error) {
	defer close(in.left)
	m, r := in.member, in.member.room
	if lost != nil {
		in.err = fmt.Errorf("leave barrier %q: %w", r.name, lost)
		m.remove(goodbye)
		return
	}
	w := m.expect(in.phase)
	_, err := m.arrive(r.session.Context(), w)
	if err == nil {
		err = m.await(r.session.Context(), w)
	}
	if err == nil {
		m.forget() // the key went with those of all
		return
	}
	if lost := r.session.Err(); lost != nil {
		err = &LostError{Name: r.name, Reason: lost, At: time.Now()}
	}
	in.err = fmt.Errorf("leave barrier %q: %w", r.name, err)
	m.remove(goodbye)
}
