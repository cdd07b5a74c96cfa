package barrier

import (
	"context"
	"fmt"
	"sync"

	"github.com/latchkey-go/latchkey/client"
)

// Cyclic is a barrier at which the same members meet again and again, as the rounds of
// a computation do: each round is a generation. It holds no state of its own: any
// number of Cyclic objects of one name, in any number of processes, are the same
// barrier. It is safe for concurrent use; each Join is one member.
type Cyclic struct{ base }

// NewCyclic returns the cyclic barrier with the name, for a number of parties from 1 to
// 4096. It does nothing yet; arguments that can not be used make every call return an
// error.
func NewCyclic(c *client.Client, name string, parties int, opts ...Option) *Cyclic {
	return &Cyclic{newBase(c, name, terms{Recipe: cyclic, Parties: int64(parties)}, newOptions(options{}, opts))}
}

// Join makes the caller a member, of which the barrier has as many as parties; if there
// are that many already, Join waits until one leaves or is lost. From then on the
// others count on this member, also while it is not waiting.
//
// ctx bounds the waiting only. Errors are those of [Double.Enter].
func (b *Cyclic) Join(ctx context.Context) (*Party, error) {
	m, _, err := b.join(ctx, false)
	if err != nil {
		return nil, err
	}
	return &Party{member: m, ctx: m.ctx, turn: make(chan struct{}, 1), gone: make(chan struct{})}, nil
}

// Party is one member of a cyclic barrier. It is safe for concurrent use, but only one
// goroutine at a time can wait: a member is at the barrier once.
type Party struct {
	member *member
	ctx    context.Context
	turn   chan struct{} // capacity 1: full while a goroutine waits; protects wait and sent
	wait   *wait         // of the generation that was not yet reported; nil when there is none
	sent   bool          // an arrival was sent for it

	leave sync.Once
	gone  chan struct{} // closed when the key is known to be gone
}

// Key returns the key that stands for this member, without the client's namespace.
func (p *Party) Key() string { return p.member.key }

// Context returns a context that lives as long as the member is one. It ends with a
// cause: a [*LostError] when this member is lost; with the policy Break, a
// [*BrokenError] when another one is; [ErrLeft] when Leave is called.
func (p *Party) Context() context.Context { return p.ctx }

// Await says that this member has finished its round, and waits until all members have.
//
// ctx bounds the waiting only: the member has arrived whatever becomes of it, and stays
// so. Call Await again to go on waiting for the same generation, or Leave.
//
// Errors: those of ctx; [ErrBroken] when a member was lost, or the action of the trip
// failed; [ErrLost] when it is this one; [ErrBusy] when another goroutine waits with
// this handle; and [client.ErrUncertain] when the generation is over but its members are
// no longer known, as this process could not look for too long and others have gone on
// without it.
func (p *Party) Await(ctx context.Context) (Arrival, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	default:
		return Arrival{}, ErrBusy
	}
	a, err := p.await(ctx)
	if err != nil {
		return Arrival{}, fmt.Errorf("await barrier %q: %w", p.member.room.name, err)
	}
	return a, nil
}

func (p *Party) await(ctx context.Context) (Arrival, error) {
	m := p.member
	for {
		if p.wait == nil {
			phase, err := m.phase(ctx)
			if err != nil {
				return Arrival{}, err
			}
			p.wait, p.sent = m.expect(phase), false
		}
		w := p.wait
		select {
		case <-w.over:
		default:
			p.sent = true
			if _, err := m.arrive(ctx, w); err != nil {
				return Arrival{}, err
			}
		}
		if err := m.await(ctx, w); err != nil {
			return Arrival{}, err
		}
		p.wait = nil
		t := w.trip()
		switch {
		case t != nil && m.index(t) >= 0:
			rec := record{terms: m.room.id.terms, Phase: w.phase}
			return newArrival(m, &rec, w.then.rev, t), nil
		case t != nil, !p.sent:
			continue // it was complete without us: the next one, then
		case w.then.rec.Phase == w.phase+1:
			return Arrival{}, m.passed(w)
		}
		return Arrival{}, fmt.Errorf("generation %d is over, and its members are no longer known: %w", w.phase, client.ErrUncertain)
	}
}

// Guard returns the condition that holds as long as the member has not been lost, for
// transactions on the same cluster, in the namespace of the barrier's client.
func (p *Party) Guard() client.Compare { return p.member.isOurs() }

// Valid says whether this member still is one, for all that is known here. It is a
// cheap, local call.
func (p *Party) Valid() bool { return p.ctx.Err() == nil && p.member.room.session.Remaining() > 0 }

// Leave ends the membership: somebody else can join. If it was broken or lost, that is
// what Leave returns. When ctx ends first, its error is returned with
// [client.ErrUncertain], and the key is removed in the background.
func (p *Party) Leave(ctx context.Context) error {
	return p.member.depart(ctx, &p.leave, p.gone)
}
