package barrier

import (
	"context"
	"fmt"
	"sync"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// Phaser is a barrier whose members come and go as they like: a phase is complete when
// all that are registered at that moment have arrived. It holds no state of its own:
// any number of Phaser objects of one name, in any number of processes, are the same
// phaser. It is safe for concurrent use; each Register is one member.
type Phaser struct{ base }

// NewPhaser returns the phaser with the name. It does nothing yet; a name that can not
// be used makes every call return [ErrName].
//
// By default a member that is lost is one less to wait for ([Shrink]); with [Break] the
// phaser is broken. [Wait] makes every call return [ErrPolicy].
func NewPhaser(c *client.Client, name string, opts ...Option) *Phaser {
	o := newOptions(options{onLoss: Shrink}, opts)
	o.action = nil
	return &Phaser{newBase(c, name, terms{Recipe: phaser}, o)}
}

// Register makes the caller a member of the present phase, which waits for it from then
// on. ctx bounds the waiting only. Errors are those of [Double.Enter].
func (p *Phaser) Register(ctx context.Context) (*Registered, error) {
	m, _, err := p.join(ctx, false)
	if err != nil {
		return nil, err
	}
	return &Registered{member: m, gone: make(chan struct{})}, nil
}

// Phase returns the present phase, counted from 0 on.
func (p *Phaser) Phase(ctx context.Context) (uint64, error) {
	r, err := p.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer r.leave()
	v, err := r.look(ctx, false)
	if err != nil || v.rec == nil {
		return 0, err
	}
	return v.rec.Phase, nil
}

// AwaitAdvance waits until the given phase is over, and returns the present one. The
// caller need not be registered. A phase that is over is not waited for.
//
// Errors: those of ctx; [ErrBroken], with the policy Break; [ErrLost] when the session
// has ended; and those of the client that waiting does not cure.
func (p *Phaser) AwaitAdvance(ctx context.Context, phase uint64) (uint64, error) {
	r, err := p.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer r.leave()
	for {
		v, changed := r.now()
		switch {
		case v.rec == nil:
		case v.rec.terms != p.terms:
			return 0, &ConflictError{Name: p.name, Theirs: v.rec.terms.String(), Ours: p.terms.String()}
		case v.rec.Phase > phase:
			return v.rec.Phase, nil
		case v.rec.Broken != nil:
			return 0, &BrokenError{Name: p.name, Generation: phase, Reason: v.rec.Broken.Reason}
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return 0, context.Cause(r.ctx)
		case <-ctx.Done():
			return 0, fmt.Errorf("await phase %d of phaser %q: %w", phase, p.name, retry.Why(ctx))
		}
	}
}

// Registered is one member of a phaser. It is safe for concurrent use.
type Registered struct {
	member *member
	leave  sync.Once
	gone   chan struct{} // closed when the key is known to be gone
}

// Key returns the key that stands for this member, without the client's namespace.
func (g *Registered) Key() string { return g.member.key }

// Context returns a context that lives as long as the member is one. It ends with a
// cause: a [*LostError], a [*BrokenError] with the policy Break, or [ErrLeft].
func (g *Registered) Context() context.Context { return g.member.ctx }

// Arrive says that this member has finished the present phase, and returns that phase,
// to be given to [Phaser.AwaitAdvance]. To arrive twice in a phase is to arrive once.
//
// Errors: [ErrLost]; [ErrBroken]; those of ctx, in which case it may have arrived, and
// should be called again; and those of the client that waiting does not cure.
func (g *Registered) Arrive(ctx context.Context) (uint64, error) {
	m := g.member
	for {
		phase, err := m.phase(ctx)
		arrived := false
		if err == nil {
			arrived, err = m.arrive(ctx, &wait{phase: phase})
		}
		if err != nil {
			return 0, fmt.Errorf("arrive at phaser %q: %w", m.room.name, err)
		}
		if arrived {
			return phase, nil
		}
	}
}

// ArriveAndDeregister ends the membership, and with it the wait of others for this
// member. If it was lost before, that is what it returns. When ctx ends first, its
// error is returned with [client.ErrUncertain], and the key is removed in the
// background.
func (g *Registered) ArriveAndDeregister(ctx context.Context) error {
	return g.member.depart(ctx, &g.leave, g.gone)
}
