package barrier

import (
	"context"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// Arrival is a complete generation, as one of its members sees it. All members see
// the same, but for Index.
type Arrival struct {
	Generation uint64
	// Index is the member's place in the order of arrival, from 0. Useful to share
	// work out.
	Index int
	// Parties is how many took part.
	Parties int
	// Members are their names in the order of arrival, as given by WithMember.
	Members []string
	// Token is a fencing token: the revision at which the generation was complete,
	// larger than that of every earlier one. All members have the same.
	Token fence.Token
}

func newArrival(m *member, rec *record, rev client.Revision, t *trip) Arrival {
	a := Arrival{
		Generation: rec.generation(), Index: m.index(t), Parties: len(t.Members), Token: fence.Token(rev),
		Members: make([]string, len(t.Members)),
	}
	for i, p := range t.Members {
		a.Members[i] = p.Name
	}
	return a
}

// joined is what became of an attempt to join.
type joined struct {
	member *member
	wait   *wait // that has ended with a trip; nil for those who only join
	err    error
}

// join makes a member. With gather, it is one of a double barrier, and inside when join
// returns.
//
// The work is done on a goroutine of its own. So a caller who gives up need not wait
// for an answer that is under way, and yet nothing that was asked for is forgotten.
func (b *base) join(ctx context.Context, gather bool) (*member, *wait, error) {
	r, err := b.enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	result := make(chan joined) // unbuffered: either the caller takes it, or the goroutine sees that he left
	go func() {
		defer r.leave()
		j := r.join(ctx, &b.opts, gather)
		select {
		case result <- j:
		case <-ctx.Done():
			if j.err == nil {
				j.member.end(ErrLeft)
				j.member.remove(giveUp)
			}
		}
	}()
	select {
	case j := <-result:
		if j.err != nil {
			return nil, nil, fmt.Errorf("join barrier %q: %w", b.name, j.err)
		}
		return j.member, j.wait, nil
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("join barrier %q: %w", b.name, retry.Why(ctx))
	}
}

// join is the work of base.join: it tries until there is room.
func (r *room) join(ctx context.Context, o *options, gather bool) joined {
	full := false
	for n := 0; ; n++ {
		v, err := r.admit(ctx, full)
		if err != nil {
			return joined{err: err}
		}
		m := r.newMember(ctx, o)
		j, how := m.enter(ctx, v, gather)
		if j.err == nil && j.member != nil {
			return j
		}
		m.end(ErrLeft)
		m.remove(how)
		if j.err != nil && !errors.Is(j.err, errMoved) {
			return j
		}
		if j.err != nil && !retry.Backoff(ctx, n) {
			return joined{err: retry.Why(ctx)}
		}
		full = j.err == nil
		if full && ctx.Err() != nil {
			return joined{err: fmt.Errorf("%w: %w", ErrFull, retry.Why(ctx))}
		}
	}
}

// enter makes the member's key, and with gather waits for the trip. Neither a member
// nor an error in what it returns means that there was no room; how is how the
// member has to go when it is not in.
func (m *member) enter(ctx context.Context, v view, gather bool) (j joined, how going) {
	r := m.room
	w := m.expect(v.rec.Phase)
	after, err := m.come(v)
	switch {
	case errors.Is(err, errMoved):
		if _, err := r.look(ctx, false); err != nil {
			return joined{err: err}, goodbye
		}
		return joined{err: errMoved}, goodbye
	case err != nil && m.ctx.Err() != nil:
		return joined{err: context.Cause(m.ctx)}, goodbye
	case err != nil:
		return joined{err: err}, goodbye
	case r.id.terms.Parties > 0 && after.present > r.id.terms.Parties:
		return joined{}, goodbye
	}
	r.settle(&after)
	if !gather {
		if err := m.stopWaiting(); err != nil {
			return joined{err: err}, goodbye
		}
		return joined{member: m}, goodbye
	}
	if err := m.await(ctx, w); err != nil {
		return joined{err: err}, giveUp
	}
	switch t := w.trip(); {
	case t == nil:
		return joined{err: m.passed(w)}, goodbye
	case m.index(t) < 0:
		return joined{}, goodbye
	}
	return joined{member: m, wait: w}, goodbye
}

// passed is the error of a member whose phase ended without a trip.
func (m *member) passed(w *wait) error {
	r := m.room
	return &BrokenError{Name: r.name, Generation: generationOf(r.id.terms.Recipe, w.phase), Reason: reasonReset}
}

// stopWaiting ends a wait that nobody needs, and returns why the member is lost, if it
// is.
func (m *member) stopWaiting() error {
	m.room.mu.Lock()
	defer m.room.mu.Unlock()
	m.wait = nil
	return context.Cause(m.ctx)
}

// admit waits until the barrier takes members, and returns the record that says so.
// full says that there was no room at the last attempt.
func (r *room) admit(ctx context.Context, full bool) (view, error) {
	for n := 0; ; n++ {
		v, changed := r.now()
		if full || v.rev == 0 || v.rec.terms != r.id.terms {
			var err error
			if v, err = r.look(ctx, false); err != nil {
				return view{}, err
			}
		}
		switch {
		case (v.rev == 0 || v.rec.terms != r.id.terms) && v.present == 0:
			if _, err := r.renew(ctx, &v); err != nil && (!retry.Temporary(err) || !retry.Backoff(ctx, n)) {
				return view{}, err
			}
			continue
		case v.rev == 0:
		case v.rec.terms != r.id.terms:
			return view{}, &ConflictError{Name: r.name, Theirs: v.rec.terms.String(), Ours: r.id.terms.String()}
		case v.rec.Broken != nil, v.rec.inside():
		case full && v.present >= r.id.terms.Parties:
		default:
			return v, nil
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return view{}, context.Cause(r.ctx)
		case <-ctx.Done():
			if full {
				return view{}, fmt.Errorf("%w: %w", ErrFull, retry.Why(ctx))
			}
			return view{}, retry.Why(ctx)
		}
	}
}

// await waits for the end of a phase.
func (m *member) await(ctx context.Context, w *wait) error {
	select {
	case <-w.over:
		return w.err
	default:
	}
	select {
	case <-w.over:
		return w.err
	case <-ctx.Done():
		return retry.Why(ctx)
	}
}
