package contender

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// undo starts remove, once.
func (c *Claim) undo() { c.removal.Do(func() { go c.remove() }) }

// remove makes sure that the keys are gone, gives the turn back and leaves the
// result in outcome. The claim has ended already.
//
// It goes on until it knows, or until the session ends and the lease takes the
// keys along: a key that was forgotten would keep all others waiting.
func (c *Claim) remove() {
	defer close(c.removed)
	c.stop()
	lost, gone := c.loss()
	if c.Token() != 0 {
		c.watch.Stop()
		if !gone {
			c.outcome = c.delete(lost == nil)
		}
	}
	if lost != nil {
		c.outcome = lost
	}
	for _, id := range c.turn.give() {
		go sweep(c.spec.Client, c.spec.Session, id)
	}
}

// delete deletes the keys, those that still are the ones that we have created;
// again and again until an answer comes. That they are not is how an earlier
// attempt looks that was executed and whose answer was lost; without such an
// attempt, somebody else has deleted them.
func (c *Claim) delete(clean bool) error {
	ctx := c.spec.Session.Context()
	uncertain := false
	for n := 0; ; n++ {
		deleted, err := c.deleteOnce(ctx, clean)
		switch {
		case err == nil && (deleted || uncertain):
			return nil
		case err == nil:
			return c.spec.Lost(Loss{Token: c.Token(), Reason: ErrDeleted, At: time.Now()})
		case ctx.Err() != nil:
			return fmt.Errorf("the session ended before an answer came: %w", context.Cause(ctx))
		case errors.Is(err, client.ErrUncertain):
			uncertain = true
		}
		retry.Backoff(ctx, n)
	}
}

// deleteOnce returns whether it has deleted all keys, together. If one of them
// is not ours any more, it deletes the others by themselves.
func (c *Claim) deleteOnce(ctx context.Context, clean bool) (bool, error) {
	all, each := make([]client.Op, 0, len(c.spec.Keys)), make([]client.Op, 0, len(c.spec.Keys))
	for i, ours := range c.Guard() {
		del := client.OpDelete(c.Key(i))
		all = append(all, del)
		if len(c.spec.Keys) > 1 {
			each = append(each, client.OpTxn([]client.Compare{ours}, []client.Op{del}, nil))
		}
	}
	if clean && c.spec.Farewell != nil {
		all = append(all, c.spec.Farewell(c)...)
	}
	res, err := c.spec.Client.Txn().If(c.Guard()...).Then(all...).Else(each...).Commit(ctx)
	if err != nil {
		return false, err
	}
	return res.Succeeded, nil
}

// sweep removes a key that a create has made, or makes late, whose answer nobody
// waited for: the key has our lease, so it would live as long as the session, and
// all others would wait for somebody who does not know of it. It looks at once,
// and watches the key until no such create can arrive any more. A goroutine that
// uses the slot meanwhile takes the key over, or deletes it as its own; so the
// sweeper only looks in turn.
func sweep(c *client.Client, s *client.Session, id slotID) {
	ctx := s.Context()
	key := id.key[len(c.Prefix()):]
	for n := 0; ; n++ {
		var rev client.Revision
		if t, err := slots.take(ctx, []slotID{id}, true); err == nil {
			rev = sweepOnce(ctx, c, key, s.ID())
			t.give()
		}
		until, ok := slots.sweepUntil(id)
		if !ok {
			return
		}
		wait, cancel := context.WithDeadline(ctx, until)
		for _, err := range c.Watch(wait, key, client.FromRevision(rev+1), client.WithoutDeletes()) {
			if err != nil {
				retry.Backoff(wait, n) // it is time, or the watch has to be made anew
			}
			break
		}
		cancel()
	}
}

// sweepOnce deletes the key if it has our lease and returns the revision at
// which there was none.
func sweepOnce(ctx context.Context, c *client.Client, key string, lease client.LeaseID) client.Revision {
	for n := 0; ; n++ {
		res, err := c.Txn().If(client.Lease(key).Equal(lease)).Then(client.OpDelete(key)).Commit(ctx)
		if err == nil {
			return res.Revision
		}
		if !retry.Backoff(ctx, n) {
			return 0
		}
	}
}
