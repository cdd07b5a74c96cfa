package barrier

import (
	"context"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// comparesMax is how many members' keys a trip names one by one; the rest of a
// transaction's room, which is 128 by default, is for the other conditions.
const comparesMax = 100

// The reasons of a broken phase, but for those that an action has.
const (
	reasonLost    = "a member was lost"
	reasonReset   = "the barrier was reset"
	reasonDeleted = "its state was deleted"
)

// look reads the barrier: in one transaction, so at one revision, and always the
// same few operations, however many members there are. With roster it reads the
// first to arrive as well.
func (r *room) look(ctx context.Context, roster bool) (view, error) {
	ops := append([]client.Op{client.OpGet(r.keys.record)}, r.counts()...)
	if roster {
		ops = append(ops, client.OpGet(r.gathering(), client.Prefix(),
			client.Ascending(client.ByCreateRevision), client.Limit(r.id.terms.Parties)))
	}
	var res *client.TxnResult
	err := retry.Do(ctx, func() (err error) {
		res, err = r.client.Txn().Then(ops...).Commit(ctx)
		return err
	})
	if err != nil {
		return view{}, err
	}
	v := view{at: res.Revision}
	if kvs := res.Results[0].Get.KVs; len(kvs) > 0 {
		if v.rec, err = decodeRecord(r.name, kvs[0].Value); err != nil {
			return view{}, err
		}
		v.rev = kvs[0].ModRevision
	}
	r.count(&v, res.Results[1:])
	if v.rec != nil && v.rec.Acting != nil {
		if err := r.lookForActor(ctx, &v); err != nil {
			return view{}, err
		}
	}
	if roster && v.rec != nil {
		kvs := res.Results[4].Get.KVs
		v.roster = kvs[:min(len(kvs), int(v.need()))]
	}
	r.learn(v)
	return v, nil
}

// counts read what count understands.
func (r *room) counts() []client.Op {
	return []client.Op{
		client.OpGet(r.keys.counters, client.Prefix()),
		client.OpGet(r.keys.members, client.Prefix(), client.CountOnly()),
		client.OpGet(r.keys.arrivals, client.Prefix(), client.CountOnly()),
	}
}

// count fills in the numbers of a view whose record is known.
func (r *room) count(v *view, results []client.OpResult) {
	for _, kv := range results[0].Get.KVs {
		switch kv.Key {
		case r.keys.came:
			v.came = kv.Version
		case r.keys.left:
			v.left = kv.Version
		}
	}
	v.present, v.arrived = results[1].Get.Count, results[2].Get.Count
	if r.id.terms.Recipe == double && v.rec != nil && !v.rec.inside() {
		v.arrived = v.present
	}
}

// gathering is the prefix of the keys of those who have arrived while a barrier
// gathers. To enter a double barrier is to arrive, so a key more would say nothing
// more.
func (r *room) gathering() string {
	if r.id.terms.Recipe == double {
		return r.keys.members
	}
	return r.keys.arrivals
}

// lookForActor finds out whether the member that runs the action is still there.
// It can not come back, so what it finds is still true when it is used.
func (r *room) lookForActor(ctx context.Context, v *view) error {
	return retry.Do(ctx, func() error {
		res, err := r.client.Get(ctx, r.keys.members+v.rec.Acting.By, client.CountOnly())
		v.actor = err == nil && res.Count > 0
		return err
	})
}

// settle does what a view asks for, until it asks for nothing; nil means that it
// has to look first. Whoever sees that something is due does it: all decisions
// are changes of the record that have its last revision as a condition, so one
// of them counts, and which one makes no difference.
func (r *room) settle(v *view) {
	for n := 0; r.ctx.Err() == nil; n++ {
		done, err := r.tryStep(v)
		switch {
		case done:
			return
		case err != nil && !retry.Temporary(err):
			r.refuse(err)
			return
		case err != nil:
			retry.Backoff(r.ctx, n)
		}
		v = nil
	}
}

// tryStep takes the step that a view asks for. done is false when the barrier has
// changed meanwhile, or it is not known whether the step was taken.
func (r *room) tryStep(v *view) (done bool, err error) {
	if v == nil {
		fresh, err := r.look(r.ctx, false)
		if err != nil {
			return false, err
		}
		v = &fresh
	}
	if v.rev == 0 || v.rec.terms != r.id.terms {
		return true, nil // there is none, or it is not ours
	}
	if v.rec.Acting != nil {
		r.perform(v)
	}
	what := v.step()
	if v.hasRoster() && (what == advance || what == claim && v.rec.Acting == nil) {
		fresh, err := r.look(r.ctx, true)
		if err != nil {
			return false, err
		}
		v, what = &fresh, fresh.step()
	}
	switch what {
	case advance:
		return r.advance(v)
	case claim:
		return r.claim(v)
	case fall:
		next := *v.rec
		next.Broken = &broken{Reason: reasonLost}
		return r.decide(r.ctx, v, &next, nil)
	case renew:
		return r.renew(r.ctx, v)
	case stay:
	}
	return true, nil
}

// decide changes the record, if it is still that of the view and more holds.
func (r *room) decide(ctx context.Context, v *view, next *record, more []client.Compare, ops ...client.Op) (done bool, err error) {
	res, err := r.client.Txn().
		If(append(more, client.ModRevision(r.keys.record).Equal(v.rev))...).
		Then(append(ops, client.OpPut(r.keys.record, next.encode()))...).
		Commit(ctx)
	if err != nil || !res.Succeeded {
		return false, err
	}
	r.learn(view{rec: next, rev: res.Revision, at: res.Revision})
	return true, nil
}

// renew begins anew where everybody has gone: nobody may come in between.
func (r *room) renew(ctx context.Context, v *view) (done bool, err error) {
	return r.decide(ctx, v, v.fresh(r.id.terms),
		[]client.Compare{client.Missing(r.keys.members, client.Prefix())},
		client.OpDelete(r.keys.all, client.Prefix()))
}

// advance ends a phase in which all have arrived.
func (r *room) advance(v *view) (done bool, err error) {
	t := &trip{At: v.at, Members: v.places(r.gathering())}
	return r.decide(r.ctx, v, v.next(t), r.complete(v), r.cleanup(v))
}

// cleanup deletes what a phase leaves behind.
func (r *room) cleanup(v *view) client.Op {
	if v.rec.inside() || v.present == 0 {
		return client.OpDelete(r.keys.all, client.Prefix())
	}
	return client.OpDelete(r.keys.arrivals, client.Prefix())
}

// complete returns the conditions under which the members that a view has counted
// are together, beside that the record is the same.
//
// A transaction has room for 128 conditions, so it can not name each of a thousand
// members; and no condition can count. But a count can be made sure of. The view is
// of one revision R, at which all members were present: the read that counted them
// is linearizable. What may have changed between R and the trip is:
//
//   - somebody came. Then he has written the counter of those who came.
//   - somebody left, or gave up. Whoever takes back his arrival writes the counter
//     of those who left in the same transaction, also when he does not count as one
//     who left by himself (then it is another counter).
//   - somebody died, and his lease took his keys along. Nothing is written.
//
// So one condition, that no counter was written after R, rules out the first two:
// nobody is taken along who was told that he is not, and no generation has a member
// too many. As to the third, he was there at R, together with all others, which is
// what a barrier promises; that he died a moment before his companions went on is
// not different, for them, from a moment after: they hear of it by the same event,
// and what it means for the generation is decided by the same record. And a death is
// noticed a TTL late in any case.
//
// Where there is room the keys are named all the same: then not even that moment is
// left, and a barrier of up to a hundred trips only with all of them alive.
func (r *room) complete(v *view) []client.Compare {
	out := []client.Compare{client.ModRevision(r.keys.counters, client.Prefix()).Less(v.at + 1)}
	if len(v.roster) <= comparesMax {
		for _, kv := range v.roster {
			out = append(out, client.CreateRevision(kv.Key).Equal(kv.CreateRevision))
		}
	}
	return out
}

// reset breaks the present phase, whatever it is, and begins the next with nobody.
// It is done in two steps, so that the members hear that the barrier is broken before
// they see that their keys are gone.
func (r *room) reset(ctx context.Context) error {
	phase, known := uint64(0), false
	for n := 0; ; n++ {
		v, err := r.look(ctx, false)
		if err != nil {
			return err
		}
		if v.rec == nil || known && v.rec.Phase != phase {
			return nil
		}
		phase, known = v.rec.Phase, true
		if v.rec.Broken == nil || v.rec.Broken.Reason != reasonReset {
			next := *v.rec
			next.Broken, next.Acting = &broken{Reason: reasonReset}, nil
			_, err = r.decide(ctx, &v, &next, nil)
		} else {
			_, err = r.decide(ctx, &v, v.fresh(v.rec.terms), nil, client.OpDelete(r.keys.all, client.Prefix()))
		}
		if err != nil && !retry.Temporary(err) {
			return err
		}
		if err != nil && !retry.Backoff(ctx, n) {
			return retry.Why(ctx)
		}
	}
}
