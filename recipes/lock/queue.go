package lock

import (
	"context"
	"errors"
	"slices"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

const (
	// pageFirst keys are read to find the holder; if all of them are nested,
	// pageFactor times as many are.
	pageFirst  = 4
	pageFactor = 8
	// freeTries bounds the attempts of TryAcquire at a lock below whose name
	// other locks come and go all the time.
	freeTries = 32

	anyRevision = client.Revision(1<<63 - 1)
)

// queue is how a claim gets a lock, or several at once: it waits for the newest
// contender older than itself, in one queue after the other.
//
// It is the only key that a claim waits for: if its owner leaves without having
// had the lock, the claim looks again, and finds the one before it. So the end
// of one holder wakes one waiter. No key can ever become older than ours, so a
// queue in which there is none before us stays so.
type queue struct {
	claim *contender.Claim
	bid   *bid
}

// wait creates the keys and waits for all locks.
func (q *queue) wait(ctx context.Context) error { return q.claim.Queue(ctx, q) }

// Reads reads the newest keys below each name, before our own if that is known,
// and then the marks of holders if they count.
func (q *queue) Reads(token client.Revision) []client.Op {
	ops := make([]client.Op, len(q.bid.names))
	for i, name := range q.bid.names {
		ops[i] = contender.OpOlder(name+"/", token)
	}
	return append(ops, q.bid.readMarks()...)
}

// Blocker returns the end of the first predecessor that is found; if there is
// none, that of a mark.
func (q *queue) Blocker(ctx context.Context, v contender.View) (*contender.Wait, error) {
	for i, name := range q.bid.names {
		older, err := q.claim.Older(ctx, name+"/", v, v.Results[i].Get)
		if err != nil {
			return nil, conflict(name, err)
		}
		if older != nil {
			return contender.End(older.Key), nil
		}
	}
	left, err := q.bid.foreignMark(ctx, v.Results[len(q.bid.names):])
	if left == nil || err != nil {
		return nil, err
	}
	return contender.End(left.Key), nil
}

// seize creates the keys only if all locks are free. It returns nil when they
// are ours, and a HeldError when one is somebody else's.
//
// A lock is free if there is no key below its name. Keys of nested names are
// in the way of that condition: if there are no others, the condition becomes
// that no key is newer than what was seen.
func (q *queue) seize(ctx context.Context) error {
	names := q.bid.names
	free := make([]client.Compare, len(names))
	oldest := make([]client.Op, len(names))
	for i, name := range names {
		free[i] = client.CreateRevision(name+"/", client.Prefix()).Equal(0)
		oldest[i] = client.OpGet(name+"/", client.Prefix(), client.Ascending(client.ByCreateRevision), client.Limit(pageFirst))
	}
	unmarked := q.bid.noMarks()
	for range freeTries {
		v, created, err := q.claim.Create(ctx, contender.Entry{
			If: slices.Concat(free, unmarked), Else: append(oldest[:len(names):len(names)], q.bid.readMarks()...),
		})
		if err != nil || created {
			return err
		}
		if ours, err := q.judge(ctx, v, free); ours || err != nil {
			return err
		}
		if unmarked, err = q.bid.sameMarks(ctx, v.Results[len(names):]); err != nil {
			return err
		}
	}
	return &HeldError{Name: names[0]}
}

// judge returns true if all locks are ours, because an earlier attempt has taken
// them, and a HeldError if one is somebody else's. If there is another try to
// be made, it says in free under which conditions.
func (q *queue) judge(ctx context.Context, v contender.View, free []client.Compare) (bool, error) {
	ours := 0
	for i, name := range q.bid.names {
		holder, err := q.oldest(ctx, name, v, v.Results[i].Get)
		switch {
		case errors.Is(err, client.ErrCompacted):
			// Nothing is known of the rest: begin anew.
		case err != nil:
			return false, err
		case holder == nil:
			free[i] = client.CreateRevision(name+"/", client.Prefix()).Less(v.Revision + 1)
		case holder.Key == q.claim.Key(i) && v.Token != 0:
			ours++
		default:
			return false, &HeldError{Name: name, Holder: contenderOf(*holder)}
		}
	}
	return ours == len(q.bid.names), nil
}

// oldest returns the first contender, given the keys below the lock's name,
// oldest first; nil when all keys are nested; client.ErrCompacted when not all
// of them could be read at that revision.
func (q *queue) oldest(ctx context.Context, name string, v contender.View, page *client.GetResult) (*client.KV, error) {
	for limit := int64(pageFirst); ; {
		kv, err := first(name, page.KVs, anyRevision)
		if err != nil || kv != nil || !page.More {
			return kv, err
		}
		limit *= pageFactor
		page, err = q.claim.Get(ctx, name+"/", client.Prefix(), client.Ascending(client.ByCreateRevision),
			client.Limit(limit), client.AtRevision(v.Revision))
		if err != nil {
			return nil, err
		}
	}
}

// first returns the first contender among kvs, which are all keys below the
// lock's name in some order, from below the limit on; nil when there is none.
func first(name string, kvs []client.KV, below client.Revision) (*client.KV, error) {
	kv, err := contender.FirstPlace(name+"/", kvs, below)
	return kv, conflict(name, err)
}

// conflict makes an error for a lock of one for its key.
func conflict(name string, err error) error {
	var foreign *contender.ForeignError
	if errors.As(err, &foreign) {
		return &ConflictError{Name: name, Key: foreign.Key, Recipe: foreign.Recipe}
	}
	return err
}
