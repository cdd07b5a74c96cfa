package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// contendersMax bounds the keys that are read below a semaphore's name: with more
// of them, nobody can tell how many permits are out.
const contendersMax = 100_000

// semQueue is how a claim gets permits. It says in its key when it has to wait,
// and when it has got in, so that the one behind it knows whom to watch: the first
// that waits watches those that have permits, and each other one the one before it.
type semQueue struct {
	sem     *Semaphore
	claim   *contender.Claim
	want    int64
	waits   bool            // our key says so
	limited client.Revision // the last change of the limit that is known
	seen    client.Revision // of the last view
}

// semView is what the keys say at one revision.
type semView struct {
	limit   int64
	limited client.Revision // its last change; zero when there is no limit yet
	tickets []ticket        // all but our own that were read, the newest first
}

// Reads reads those before us, the limit, and those behind us that may have got in
// under another limit. Once, it creates the limit.
func (q *semQueue) Reads(token client.Revision) []client.Op {
	older := []client.GetOption{client.Prefix(), client.Descending(client.ByCreateRevision), client.Limit(contendersMax)}
	if token == 0 {
		return []client.Op{client.OpGet(q.sem.prefix(), older...), q.limitOp()}
	}
	older = append(older, client.MaxCreateRevision(token-1))
	ops := []client.Op{client.OpGet(q.sem.prefix(), older...), client.OpGet(q.sem.limitKey())}
	if q.limited > token {
		ops = append(ops, client.OpGet(q.sem.prefix(), client.Prefix(), client.Limit(contendersMax),
			client.MinCreateRevision(token+1), client.MaxCreateRevision(q.limited-1)))
	}
	return ops
}

// limitOp reads the limit, or creates it.
func (q *semQueue) limitOp() client.Op {
	key := q.sem.limitKey()
	if q.sem.limit == 0 {
		return client.OpGet(key)
	}
	create := client.OpPut(key, limitRecord{Limit: q.sem.limit}.encode())
	return client.OpTxn([]client.Compare{client.Missing(key)}, []client.Op{create}, []client.Op{client.OpGet(key)})
}

// Blocker returns whom to watch while the permits that we want are not free.
func (q *semQueue) Blocker(ctx context.Context, v contender.View) (*contender.Wait, error) {
	view, err := q.judge(v)
	if err != nil {
		return nil, err
	}
	if view.limited > q.limited {
		q.limited = view.limited
		if view.limited > v.Token {
			return nil, contender.ErrAgain // those behind us may count now
		}
	}
	counted := slices.DeleteFunc(slices.Clone(view.tickets), func(t ticket) bool { return !counts(t, v.Token, view.limited) })
	older := slices.DeleteFunc(view.tickets, func(t ticket) bool { return t.created > v.Token })
	switch {
	case fits(counted, q.want, view.limit):
		return nil, q.say(ctx, false, client.ModRevision(q.sem.limitKey()).Equal(view.limited))
	case !q.waits:
		if err := q.say(ctx, true); err != nil {
			return nil, err
		}
		return nil, contender.ErrAgain // somebody may have left in between
	}
	if p, head := ahead(older); !head {
		return &contender.Wait{Key: p.key}, nil
	}
	return q.change(func(ev client.Event) bool {
		return slices.ContainsFunc(counted, func(t ticket) bool { return t.key == ev.KV.Key })
	}), nil
}

// say writes into our key whether we wait, if it does not say so already.
func (q *semQueue) say(ctx context.Context, waits bool, only ...client.Compare) error {
	if q.waits == waits {
		return nil
	}
	if err := q.claim.Rewrite(ctx, 0, q.sem.record(q.want, waits).encode(), only...); err != nil {
		return err
	}
	q.waits = waits
	return nil
}

// change is the wait for a change of the limit, or of a key below the name for
// which ends returns true. "<name>.limit" is right before "<name>/".
func (q *semQueue) change(ends func(client.Event) bool) *contender.Wait {
	limit, prefix := q.sem.limitKey(), q.sem.prefix()
	return &contender.Wait{
		Key:     limit,
		Options: []client.WatchOption{client.Range(q.sem.Name() + "0")},
		Ends: func(ev client.Event) bool {
			return ev.KV.Key == limit || strings.HasPrefix(ev.KV.Key, prefix) && ends(ev)
		},
	}
}

// seize creates the key only if the permits are free, whoever waits. It is sure
// that they are while nobody has come since it looked, and the limit has not been
// changed: all others only go, or keep less.
func (q *semQueue) seize(ctx context.Context) error {
	limit, keys := q.sem.limitKey(), q.sem.prefix()
	free := []client.Compare{
		client.Missing(keys, client.Prefix()), client.Value(limit).Equal(limitRecord{Limit: q.sem.limit}.encode()),
	}
	if q.want > q.sem.limit {
		free = append(free, client.Missing(limit)) // which is a contradiction: look first
	}
	var view semView
	for range freeTries {
		v, created, err := q.claim.Create(ctx, contender.Entry{If: free, Then: []client.Op{q.limitOp()}, Else: q.looks()})
		if err != nil || created || v.Token != 0 { // now, or by an earlier attempt
			return err
		}
		v.Token, q.seen = anyRevision, v.Revision
		if view, err = q.judge(v); err != nil {
			return err
		}
		if !fits(view.tickets, q.want, view.limit) {
			break
		}
		free = []client.Compare{
			client.CreateRevision(keys, client.Prefix()).Less(v.Revision + 1),
			client.ModRevision(limit).Equal(view.limited),
		}
	}
	held := &HeldError{Name: q.sem.Name()}
	if n := len(view.tickets); n > 0 {
		oldest := view.tickets[n-1]
		held.Holder = Contender{Key: oldest.key, Token: fence.Token(oldest.created), Permits: oldest.weight}
	}
	return held
}

// looks is what Reads is for those who have no key.
func (q *semQueue) looks() []client.Op {
	return []client.Op{
		client.OpGet(q.sem.prefix(), client.Prefix(), client.Descending(client.ByCreateRevision), client.Limit(contendersMax)),
		client.OpGet(q.sem.limitKey()),
	}
}

// barge seizes the permits, again whenever some may have become free.
func (q *semQueue) barge(ctx context.Context) error {
	for {
		err := q.seize(ctx)
		if !errors.Is(err, ErrHeld) {
			return err
		}
		freed := q.change(func(ev client.Event) bool { return !ev.Created() })
		if err := q.claim.Watch(ctx, freed, q.seen); err != nil {
			return err
		}
	}
}

// judge reads what was found, and refuses what can not become right by waiting.
func (q *semQueue) judge(v contender.View) (semView, error) {
	view, err := q.limits(v)
	if err != nil {
		return semView{}, err
	}
	if view.limit > 0 && q.want > view.limit {
		return semView{}, fmt.Errorf("%w: the limit is %d", ErrPermits, view.limit)
	}
	for i, r := range v.Results {
		if i == 1 { // the limit
			continue
		}
		if r.Get.More {
			return semView{}, fmt.Errorf("%w: %d keys below the name", client.ErrLimit, contendersMax)
		}
		for _, kv := range r.Get.KVs {
			if kv.CreateRevision == v.Token {
				continue
			}
			t, ok, err := q.sem.ticketOf(kv)
			if err != nil {
				return semView{}, err
			}
			if ok {
				view.tickets = append(view.tickets, t)
			}
		}
	}
	return view, nil
}

// limits reads the limit, from the answer to Reads or looks.
func (q *semQueue) limits(v contender.View) (semView, error) {
	get := v.Results[1].Get
	if txn := v.Results[1].Txn; txn != nil && txn.Succeeded {
		return semView{limit: q.sem.limit, limited: v.Revision}, nil
	} else if txn != nil {
		get = txn.Results[0].Get
	}
	if len(get.KVs) == 0 { // nobody has created it yet, or somebody has deleted it
		if q.sem.limit == 0 {
			return semView{}, &LimitError{Name: q.sem.Name(), Stored: -1}
		}
		return semView{limit: q.sem.limit}, nil
	}
	stored := limitOf(get.KVs[0])
	if q.sem.limit != 0 && q.sem.limit != stored.Limit && !stored.Set {
		return semView{}, &LimitError{Name: q.sem.Name(), Wanted: q.sem.limit, Stored: stored.Limit}
	}
	return semView{limit: stored.Limit, limited: get.KVs[0].ModRevision}, nil
}

// ticketOf judges a key below the name. It is a contender's, one of a nested
// name, or a sign of another recipe.
func (s *Semaphore) ticketOf(kv client.KV) (t ticket, ok bool, err error) {
	k, recipe := contender.Classify(strings.TrimPrefix(kv.Key, s.prefix()))
	switch {
	case k == contender.Nested:
		return ticket{}, false, nil
	case k == contender.Place:
		recipe = "lock"
	case recipe == "semaphore":
		var r record
		_ = json.Unmarshal(kv.Value, &r) // without a number, it is one permit
		return ticket{key: kv.Key, weight: max(r.Permits, 1), waits: r.Waits, created: kv.CreateRevision}, true, nil
	}
	return ticket{}, false, &ConflictError{Name: s.Name(), Key: kv.Key, Recipe: recipe}
}
