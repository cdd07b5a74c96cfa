package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// undo starts remove, once.
func (c *claim) undo() { c.removal.Do(func() { go c.remove() }) }

// remove makes sure that the key is gone, gives the turn back and leaves the
// result in outcome. The claim has ended already.
//
// It goes on until it knows, or until the session ends and the lease takes the
// key along: a key that was forgotten would keep all others waiting.
func (c *claim) remove() {
	defer close(c.removed)
	c.stop()
	lost := c.lost()
	if c.token() != 0 && (lost == nil || !lost.gone) {
		c.outcome = c.delete()
	}
	if lost != nil {
		c.outcome = lost
	}
	if c.turn.give() {
		go sweep(c.lock, c.session, c.turn.id)
	}
}

// delete deletes the key, if it still is the one that we have created; again
// and again until an answer comes. That it is not is how an earlier attempt looks
// that was executed and whose answer was lost; without such an attempt, somebody
// else has deleted the key.
func (c *claim) delete() error {
	ctx := c.session.Context()
	uncertain := false
	for n := 0; ; n++ {
		res, err := c.lock.client.Txn().If(c.isOurs()).Then(client.OpDelete(c.key)).Commit(ctx)
		switch {
		case err == nil && (res.Succeeded || uncertain):
			return nil
		case err == nil:
			return &LostError{Name: c.lock.name, Token: fence.Token(c.token()), Reason: ErrDeleted, At: time.Now(), gone: true}
		case ctx.Err() != nil:
			return fmt.Errorf("release lock %q: the session ended before an answer came: %w", c.lock.name, context.Cause(ctx))
		case errors.Is(err, client.ErrUncertain):
			uncertain = true
		}
		pause(ctx, n)
	}
}

// sweep removes a key that a create has made, or makes late, whose answer nobody
// waited for: the key has our lease, so it would live as long as the session, and
// all others would wait for somebody who does not know of it. It looks at once,
// and watches the key until no such create can arrive any more. A goroutine that
// uses the slot meanwhile takes the key over, or deletes it as its own; so the
// sweeper only looks in turn.
func sweep(l *Lock, s *client.Session, id slotID) {
	ctx := s.Context()
	key := l.prefix() + s.ID().String()
	for n := 0; ; n++ {
		var rev client.Revision
		if t, err := slots.take(ctx, id, true); err == nil {
			rev = sweepOnce(ctx, l, key, s.ID())
			t.give()
		}
		until, ok := slots.sweepUntil(id)
		if !ok {
			return
		}
		wait, cancel := context.WithDeadline(ctx, until)
		for _, err := range l.client.Watch(wait, key, client.FromRevision(rev+1), client.WithoutDeletes()) {
			if err != nil {
				pause(wait, n) // it is time, or the watch has to be made anew
			}
			break
		}
		cancel()
	}
}

// sweepOnce deletes the key if it has our lease and returns the revision at
// which there was none.
func sweepOnce(ctx context.Context, l *Lock, key string, lease client.LeaseID) client.Revision {
	for n := 0; ; n++ {
		res, err := l.client.Txn().If(client.Lease(key).Equal(lease)).Then(client.OpDelete(key)).Commit(ctx)
		if err == nil {
			return res.Revision
		}
		if !pause(ctx, n) {
			return 0
		}
	}
}
