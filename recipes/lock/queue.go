package lock

import (
	"context"
	"errors"

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
	names []string // the i-th lock's; its key is the claim's i-th
}

// Reads reads the newest keys below each name, before our own if that is known.
func (q *queue) Reads(token client.Revision) []client.Op {
	ops := make([]client.Op, len(q.names))
	for i, name := range q.names {
		ops[i] = contender.OpOlder(name+"/", token)
	}
	return ops
}

// Blocker returns the end of the first predecessor that is found.
func (q *queue) Blocker(ctx context.Context, v contender.View) (*contender.Wait, error) {
	for i, name := range q.names {
		older, err := q.claim.Older(ctx, name+"/", v, v.Results[i].Get)
		if err != nil {
			return nil, conflict(name, err)
		}
		if older != nil {
			return contender.End(older.Key), nil
		}
	}
	return nil, nil
}

// seize creates the keys only if all locks are free. It returns nil when they
// are ours, and a HeldError when one is somebody else's.
//
// A lock is free if there is no key below its name. Keys of nested names are
// in the way of that condition: if there are no others, the condition becomes
// that no key is newer than what was seen.
func (q *queue) seize(ctx context.Context) error {
	free := make([]client.Compare, len(q.names))
	oldest := make([]client.Op, len(q.names))
	for i, name := range q.names {
		free[i] = client.CreateRevision(name+"/", client.Prefix()).Equal(0)
		oldest[i] = client.OpGet(name+"/", client.Prefix(), client.Ascending(client.ByCreateRevision), client.Limit(pageFirst))
	}
	for range freeTries {
		v, created, err := q.claim.Create(ctx, contender.Entry{If: free, Else: oldest})
		if err != nil || created {
			return err
		}
		ours := 0
		for i, name := range q.names {
			holder, err := q.oldest(ctx, name, v, v.Results[i].Get)
			switch {
			case errors.Is(err, client.ErrCompacted):
				// Nothing is known of the rest: begin anew.
			case err != nil:
				return err
			case holder == nil:
				free[i] = client.CreateRevision(name+"/", client.Prefix()).Less(v.Revision + 1)
			case holder.Key == q.claim.Key(i) && v.Token != 0:
				ours++ // an earlier attempt has taken it
			default:
				return &HeldError{Name: name, Holder: contenderOf(*holder)}
			}
		}
		if ours == len(q.names) {
			return nil
		}
	}
	return &HeldError{Name: q.names[0]}
}

// oldest returns the first contender, given the keys below the lock's name,
// oldest first; nil when all keys are nested; client.ErrCompacted when not all
// of them could be read at that revision.
func (q *queue) oldest(ctx context.Context, name string, v contender.View, page *client.GetResult) (*client.KV, error) {
	for limit := int64(pageFirst); ; {
		kv, err := contender.FirstPlace(name+"/", page.KVs, anyRevision)
		if err != nil || kv != nil || !page.More {
			return kv, conflict(name, err)
		}
		limit *= pageFactor
		page, err = q.claim.Get(ctx, name+"/", client.Prefix(), client.Ascending(client.ByCreateRevision),
			client.Limit(limit), client.AtRevision(v.Revision))
		if err != nil {
			return nil, err
		}
	}
}

// conflict makes an error for a lock of one for its key.
func conflict(name string, err error) error {
	var foreign *contender.ForeignError
	if errors.As(err, &foreign) {
		return &ConflictError{Name: name, Key: foreign.Key, Recipe: foreign.Recipe}
	}
	return err
}
