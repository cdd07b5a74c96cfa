package barrier

import (
	"context"
	"errors"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// Action is what one of the members does, for all, between the last arrival and the
// moment that they go on. See [WithAction].
type Action func(ctx context.Context, t *Trip) error

// Trip is the generation that an action completes.
type Trip struct {
	Arrival
	room *room
	rev  client.Revision
}

// errReplaced is why the transaction of an action was refused.
var errReplaced = errors.New("another run of the action has taken its place")

// Guard returns the condition that holds as long as it is this run of the action that
// counts, for transactions on the same cluster, in the namespace of the barrier's
// client.
func (t *Trip) Guard() client.Compare { return client.ModRevision(t.room.keys.record).Equal(t.rev) }

// Txn starts a transaction that is executed only as long as it is this run of the
// action that counts. If it is not, Commit returns an error that is [ErrLost].
func (t *Trip) Txn() *client.GuardedTxn {
	return t.room.client.Guarded(&LostError{Name: t.room.name, Reason: errReplaced}, t.Guard())
}

// stage is an action that runs, or has run.
type stage struct {
	rev client.Revision // of the record that says so: the fencing token
	end context.CancelCauseFunc
}

// claim makes one of our members the one that runs the action, if we have one that
// takes part. Otherwise it is up to another process, which sees the same.
func (r *room) claim(v *view) (done bool, err error) {
	next := *v.rec
	var more []client.Compare
	if next.Acting = v.rec.Acting; next.Acting == nil {
		next.Acting = &acting{trip: trip{At: v.at, Members: v.places(r.gathering())}}
		more = r.complete(v)
	}
	m := r.candidate(next.Acting.Members)
	if m == nil {
		return true, nil
	}
	next.Acting = &acting{By: m.id, trip: next.Acting.trip}
	if done, err = r.decide(r.ctx, v, &next, append(more, m.isOurs())); done {
		now, _ := r.now()
		r.perform(&now)
	}
	return done, err
}

// candidate returns the first of our members among the places.
func (r *room) candidate(places []place) *member {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range places {
		if m := r.members[p.ID]; m != nil && m.ctx.Err() == nil && m.token != 0 {
			return m
		}
	}
	return nil
}

// perform runs the action if the record says that one of our members has to, and it
// does not yet. It also finds a claim whose answer was lost.
func (r *room) perform(v *view) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.rec == nil || v.rec.Acting == nil || r.stage != nil && r.stage.rev >= v.rev {
		return
	}
	m := r.members[v.rec.Acting.By]
	if m == nil || m.ctx.Err() != nil {
		return
	}
	ctx, end := context.WithCancelCause(fence.NewContext(m.ctx, r.name, fence.Token(v.rev)))
	r.stage = &stage{rev: v.rev, end: end}
	go r.run(ctx, m, v)
}

// run runs the action, and ends the phase accordingly, unless somebody else has it
// by now.
func (r *room) run(ctx context.Context, m *member, v *view) {
	t := v.rec.Acting.trip
	err := m.act(ctx, &Trip{Arrival: newArrival(m, v.rec, v.rev, &t), room: r, rev: v.rev})
	next := v.next(&t)
	if err != nil {
		failed := *v.rec
		failed.Acting, failed.Broken = nil, &broken{Reason: err.Error(), Action: true}
		next = &failed
	}
	for n := 0; r.ctx.Err() == nil; n++ {
		_, err := r.decide(r.ctx, v, next, []client.Compare{m.isOurs()}, client.OpDelete(r.keys.arrivals, client.Prefix()))
		if err == nil || !retry.Temporary(err) {
			break // decided, by us or somebody else; should the cluster refuse it, the watch ends the room
		}
		retry.Backoff(r.ctx, n)
	}
	r.settle(nil)
}
