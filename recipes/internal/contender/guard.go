package contender

import (
	"errors"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// guardDelay is how long a claim has its keys before it watches them: a lock
// that is held for a moment costs no watch. The watch misses nothing, as it
// begins at the token.
const guardDelay = 10 * time.Millisecond

// guard watches the keys for as long as the claim lives, while it waits as well
// as afterwards, and ends the claim when one of them is deleted or detached.
func (c *Claim) guard() {
	for i := range c.spec.Keys[1:] {
		go c.guardKey(i + 1)
	}
	c.guardKey(0)
}

func (c *Claim) guardKey(i int) {
	rev := c.Token()
	for n := 0; c.ctx.Err() == nil; n++ {
		err := c.follow(i, &rev)
		switch {
		case errors.Is(err, ErrDeleted), errors.Is(err, ErrDetached):
			c.lose(err, errors.Is(err, ErrDeleted) && len(c.spec.Keys) == 1)
		case errors.Is(err, client.ErrCompacted):
			// The deletion may be among what is gone: look, and go on from there.
			if rev, err = c.lookAgain(i); err != nil {
				c.lose(err, errors.Is(err, ErrDeleted) && len(c.spec.Keys) == 1)
			}
		case retry.Temporary(err):
			retry.Backoff(c.ctx, n)
		default:
			// Who can not see the key any more can not know that it is his. If
			// the claim has ended anyway, this has no effect.
			c.lose(err, false)
		}
	}
	if lost, _ := c.loss(); lost != nil {
		// Another claim may have the turn even if nobody releases this one.
		c.undo()
	}
}

// follow watches the i-th key from behind rev on, until it is not ours any more
// or the watch ends. It leaves in rev how far it came.
func (c *Claim) follow(i int, rev *client.Revision) error {
	for ev, err := range c.spec.Client.Watch(c.ctx, c.Key(i), client.FromRevision(*rev+1)) {
		if err != nil {
			return err
		}
		if ev.Type == client.EventDelete {
			return ErrDeleted
		}
		*rev = ev.KV.ModRevision
		if err := c.judge(i, ev.KV); err != nil {
			return err
		}
	}
	return nil
}

// judge looks at what the i-th key has become.
func (c *Claim) judge(i int, kv client.KV) error {
	switch {
	case kv.CreateRevision != c.Token():
		return ErrDeleted
	case kv.Lease != c.spec.Session.ID():
		return ErrDetached
	case c.spec.Changed != nil && kv.ModRevision > c.Token():
		c.spec.Changed(c, i, kv)
	}
	return nil
}

// lookAgain returns the revision at which the i-th key was still ours.
func (c *Claim) lookAgain(i int) (client.Revision, error) {
	res, err := c.Get(c.ctx, c.Key(i))
	if err != nil {
		return 0, err
	}
	if len(res.KVs) == 0 {
		return 0, ErrDeleted
	}
	return res.Revision, c.judge(i, res.KVs[0])
}
