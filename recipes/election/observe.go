package election

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// pageKeys is how many keys are read at once. Below a candidate's name there may
// be many that have nothing to do with the election.
const pageKeys = 1000

// Leader is who leads an election, or that nobody does.
type Leader[T any] struct {
	// Candidate is the leader as it stands in line; zero when there is none.
	Candidate
	// Value is what it leads with, decoded.
	Value T
	// Vacant says that nobody leads.
	Vacant bool
	// Revision is the one at which it was so.
	Revision client.Revision
}

// Leader returns who leads, or [ErrNoLeader]. The answer is linearizable: it was
// true at some moment during the call.
//
// Errors: ErrNoLeader, [ErrName], a [*client.DecodeError] together with a Leader
// whose Value is zero, and those of a read.
func (e *Election[T]) Leader(ctx context.Context) (Leader[T], error) {
	r, err := e.roll(ctx)
	if err != nil {
		return Leader[T]{}, fmt.Errorf("leader of election %q: %w", e.name, err)
	}
	leader, err := e.leader(r)
	if err == nil && leader.Vacant {
		err = fmt.Errorf("leader of election %q: %w", e.name, ErrNoLeader)
	}
	return leader, err
}

// Candidates returns all who stand, the leader among them, in the order of the
// line, as of one revision. Candidates of etcd's clients count. Of goroutines
// that campaign with one session it sees the one whose turn it is.
func (e *Election[T]) Candidates(ctx context.Context) ([]Candidate, error) {
	r, err := e.roll(ctx)
	if err != nil {
		return nil, fmt.Errorf("candidates of election %q: %w", e.name, err)
	}
	return r.line(), nil
}

// Observe yields who leads: first as it is now, with Vacant if that is nobody,
// then after each change: another leader, another value of the same, and each
// vacancy in between. A slow loop lags behind and misses nothing.
//
// The loop ends by a break or with one last error: that of ctx, or one of the
// client that waiting does not cure. The loss of connections is bridged. Where
// history was compacted before it was seen, the present state follows what was
// yielded last, and what was in between is skipped. A value that can not be
// decoded comes with its leader and a [*client.DecodeError], and the loop can go
// on.
//
// Who observes learns of a change after it has happened. Whoever acts for the
// leader must use its term as a fencing token.
func (e *Election[T]) Observe(ctx context.Context) iter.Seq2[Leader[T], error] {
	return func(yield func(Leader[T], error) bool) {
		o := &observer[T]{election: e, yield: yield, roll: roll{keys: e.keys}}
		for {
			kvs, rev, err := e.readAll(ctx)
			if err == nil {
				o.roll.load(rev, kvs)
				if !o.report() {
					return
				}
				err = o.follow(ctx)
			}
			if err == nil {
				return // the loop has ended
			}
			if !errors.Is(err, client.ErrCompacted) {
				yield(Leader[T]{}, fmt.Errorf("observe election %q: %w", e.name, err))
				return
			}
		}
	}
}

// observer is the state of one Observe.
type observer[T any] struct {
	election *Election[T]
	yield    func(Leader[T], error) bool
	roll     roll

	// What was reported last.
	begun   bool
	term    client.Revision
	changed client.Revision
}

// follow applies what happens after the roll's revision, one revision after the
// other: what comes in one batch need not have happened at once. It returns nil
// when the loop wants no more.
func (o *observer[T]) follow(ctx context.Context) error {
	from, to := o.roll.keys.all()
	for batch, err := range o.election.client.WatchBatches(ctx, from, to, client.FromRevision(o.roll.revision+1)) {
		if err != nil {
			return err
		}
		for events := batch.Events; len(events) > 0; {
			rev, n := events[0].KV.ModRevision, 0
			for n < len(events) && events[n].KV.ModRevision == rev {
				n++
			}
			o.roll.apply(rev, events[:n])
			events = events[n:]
			if !o.report() {
				return nil
			}
		}
	}
	return nil
}

// report yields the leader if it differs from what was yielded last. It returns
// false when the loop wants no more.
func (o *observer[T]) report() bool {
	term, changed := o.roll.term, o.roll.candidates[o.roll.leader].ModRevision
	if o.begun && term == o.term && changed == o.changed {
		return true
	}
	o.begun, o.term, o.changed = true, term, changed
	leader, err := o.election.leader(&o.roll)
	return o.yield(leader, err)
}

// leader makes the public form of who leads.
func (e *Election[T]) leader(r *roll) (Leader[T], error) {
	leader := Leader[T]{Revision: r.revision, Vacant: r.leader == ""}
	if leader.Vacant {
		return leader, nil
	}
	leader.Candidate = r.candidate(r.leader)
	v, err := e.codec.Decode(leader.Proposal)
	if err != nil {
		return leader, &client.DecodeError{Key: leader.Key, Err: err}
	}
	leader.Value = v
	return leader, nil
}

// roll reads the election as it is.
func (e *Election[T]) roll(ctx context.Context) (*roll, error) {
	kvs, rev, err := e.readAll(ctx)
	if err != nil {
		return nil, err
	}
	r := &roll{keys: e.keys}
	r.load(rev, kvs)
	return r, nil
}

// readAll reads the election as it is, again and again until it is answered or
// ctx ends.
func (e *Election[T]) readAll(ctx context.Context) (kvs []client.KV, rev client.Revision, err error) {
	if e.err != nil {
		return nil, 0, e.err
	}
	for {
		err = retry.Do(ctx, func() error {
			kvs, rev, err = e.readOnce(ctx)
			return err
		})
		if !errors.Is(err, client.ErrCompacted) { // between two pages
			return kvs, rev, err
		}
	}
}

func (e *Election[T]) readOnce(ctx context.Context) (kvs []client.KV, rev client.Revision, err error) {
	key, to := e.keys.all()
	for {
		res, err := e.client.Get(ctx, key, to, client.Limit(pageKeys), client.AtRevision(rev))
		if err != nil {
			return nil, 0, err
		}
		if rev == 0 {
			rev = res.Revision
		}
		for _, kv := range res.KVs {
			if e.keys.concerns(kv.Key) {
				kvs = append(kvs, kv)
			}
		}
		if !res.More {
			return kvs, rev, nil
		}
		key = res.KVs[len(res.KVs)-1].Key + "\x00"
	}
}
