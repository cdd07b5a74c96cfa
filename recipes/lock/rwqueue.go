package lock

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// errPlaceUnclear: it can not be found out any more whether a reader had the lock
// at the revision of somebody's upgrade, as it was compacted. The reader gives
// its place up, which the other one waits for if it does, and takes a new one.
var errPlaceUnclear = errors.New("place in the queue is not clear")

// rwQueue is how a claim gets a read-write lock: it waits for the newest contender
// older than itself that it excludes, until there is none. So the end of one writer
// wakes all readers behind him, which is meant, and one writer.
type rwQueue struct {
	lock  *RWLock
	claim *contender.Claim
	mode  Mode
	again bool // the caller has the lock already, and must not wait
}

// parts returns the prefixes under which there may be somebody to wait for.
func (l *RWLock) parts(m Mode) []string {
	write := l.prefix() + "write/"
	if m.alone() {
		return []string{l.prefix() + "read/", write}
	}
	return []string{write} // also those who wrote and now read, and the upgradeable
}

// Reads reads the newest contenders, before our own if that is known, and, once,
// whether another recipe uses the name.
func (q *rwQueue) Reads(token client.Revision) []client.Op {
	var ops []client.Op
	for _, part := range q.lock.parts(q.mode) {
		ops = append(ops, client.OpGet(part, newest(token, pageFirst+1)...))
	}
	if token == 0 {
		ops = append(ops, q.lock.readStrangers())
	}
	return ops
}

// newest is before, with values: they tell the mode.
func newest(token client.Revision, limit int64) []client.GetOption {
	opts := []client.GetOption{client.Prefix(), client.Descending(client.ByCreateRevision), client.Limit(limit)}
	if token != 0 {
		opts = append(opts, client.MaxCreateRevision(token-1))
	}
	return opts
}

// Blocker returns the wait for the one that blocks us, to leave or to let us in.
func (q *rwQueue) Blocker(ctx context.Context, v contender.View) (*contender.Wait, error) {
	if n := len(q.lock.parts(q.mode)); len(v.Results) > n {
		if err := q.lock.strangers(v.Results[n].Get); err != nil {
			return nil, err
		}
	}
	b, err := q.blocker(ctx, v)
	if err != nil || b == nil {
		return nil, err
	}
	if b.mode == ModeUpgraded && q.mode == ModeRead && v.Token < b.changed {
		if has, err := q.hadIt(ctx, *b); err != nil || has {
			return nil, err
		}
	}
	if q.again {
		return nil, ErrWouldDeadlock
	}
	return &contender.Wait{Key: b.key}, nil
}

// blocker returns the newest contender that we have to wait for, nil if there is
// none.
func (q *rwQueue) blocker(ctx context.Context, v contender.View) (*place, error) {
	var found *place
	for i, part := range q.lock.parts(q.mode) {
		p, err := q.blockerIn(ctx, part, v, v.Results[i].Get)
		if err != nil {
			return nil, err
		}
		if p != nil && (found == nil || p.created > found.created) {
			found = p
		}
	}
	return found, nil
}

// blockerIn looks for one in the page, which has the newest keys of a part, and
// if those do not block us, in larger pages of the same revision.
func (q *rwQueue) blockerIn(ctx context.Context, part string, v contender.View, page *client.GetResult) (*place, error) {
	for limit := int64(pageFirst); ; {
		if p, ok := blocker(q.mode, q.lock.places(page.KVs, v.Token)); ok {
			return &p, nil
		}
		if !page.More {
			return nil, nil
		}
		limit *= pageFactor
		var err error
		if page, err = q.claim.Get(ctx, part, append(newest(v.Token, limit), client.AtRevision(v.Revision))...); err != nil {
			return nil, err
		}
	}
}

// hadIt says whether we had the lock when u became exclusive. Then u waits for us,
// though we have not noticed before that the writer between it and us had left.
func (q *rwQueue) hadIt(ctx context.Context, u place) (bool, error) {
	res, err := q.claim.Get(ctx, q.lock.parts(ModeRead)[0], client.Prefix(), client.AtRevision(u.changed))
	if errors.Is(err, client.ErrCompacted) {
		return false, errPlaceUnclear
	}
	if err != nil {
		return false, err
	}
	me := place{key: q.claim.Key(0), mode: ModeRead, created: q.claim.Token()}
	all := append(q.lock.places(res.KVs, anyRevision), me)
	return slices.ContainsFunc(sharers(u, all), func(p place) bool { return p.key == me.key }), nil
}

// seize creates the key only if that is all there is to it. The conditions are
// first that there are no keys that may block us, and then, if those that there
// are do not, that nothing has been written among them since.
func (q *rwQueue) seize(ctx context.Context) error {
	parts := q.lock.parts(q.mode)
	free := make([]client.Compare, len(parts))
	for i, part := range parts {
		free[i] = client.Missing(part, client.Prefix())
	}
	for range freeTries {
		v, created, err := q.claim.Create(ctx, contender.Entry{
			If: free, Then: []client.Op{q.lock.readStrangers()}, Else: q.Reads(0),
		})
		if err != nil {
			return err
		}
		if err := q.lock.strangers(v.Results[len(v.Results)-1].Get); err != nil {
			return err
		}
		if created || v.Token != 0 { // now, or by an earlier attempt
			return nil
		}
		v.Token = anyRevision
		switch b, err := q.blocker(ctx, v); {
		case errors.Is(err, client.ErrCompacted):
			// Nothing is known of the rest: begin anew.
		case err != nil:
			return err
		case b != nil && q.again:
			return ErrWouldDeadlock
		case b != nil:
			return &HeldError{Name: q.lock.Name(), Holder: Contender{Key: b.key, Token: fence.Token(b.created), Mode: b.mode}}
		default:
			for i, part := range parts {
				free[i] = client.ModRevision(part, client.Prefix()).Less(v.Revision + 1)
			}
		}
	}
	return &HeldError{Name: q.lock.Name()}
}

// places returns what the keys are as contenders, the newest first, of those that
// were created before the limit.
func (l *RWLock) places(kvs []client.KV, limit client.Revision) []place {
	var out []place
	for _, kv := range kvs {
		if p, ok := l.placeOf(kv); ok && p.created < limit {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b place) int { return int(b.created - a.created) })
	return out
}

// placeOf judges a key below "<name>/read/" or "<name>/write/". Clients of etcd's
// recipe leave the value empty. Nested names have a further "/".
func (l *RWLock) placeOf(kv client.KV) (place, bool) {
	part, id, _ := strings.Cut(strings.TrimPrefix(kv.Key, l.prefix()), "/")
	if strings.Contains(id, "/") {
		return place{}, false
	}
	p := place{key: kv.Key, mode: ModeWrite, created: kv.CreateRevision, changed: kv.ModRevision}
	if part == "read" {
		p.mode = ModeRead
	}
	var r record
	_ = json.Unmarshal(kv.Value, &r) // what is no record says nothing
	if m := slices.Index(modeNames[:], r.Mode); m >= 0 {
		p.mode = Mode(m)
	}
	return p, true
}

// readStrangers reads the first keys that a mutex, an election or a semaphore of
// this name would have: a hexadecimal number and nothing below it.
func (l *RWLock) readStrangers() client.Op {
	return client.OpGet(l.prefix()+"0", client.Range(l.prefix()+"g"), client.KeysOnly(), client.Limit(pageFirst))
}

// strangers returns an error if there is one among the keys.
func (l *RWLock) strangers(res *client.GetResult) error {
	for _, kv := range res.KVs {
		switch k, recipe := contender.Classify(strings.TrimPrefix(kv.Key, l.prefix())); {
		case k == contender.Place:
			return &ConflictError{Name: l.Name(), Key: kv.Key, Recipe: "lock"}
		case k == contender.Foreign && recipe == "semaphore":
			return &ConflictError{Name: l.Name(), Key: kv.Key, Recipe: recipe}
		}
	}
	return nil
}
