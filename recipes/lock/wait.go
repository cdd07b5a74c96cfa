package lock

import (
	"context"
	"errors"

	"github.com/latchkey-go/latchkey/client"
)

// opBefore reads the newest keys below the lock's name, before our own if that
// is known.
func (c *claim) opBefore(limit int64) client.Op {
	return client.OpGet(c.lock.prefix(), c.before(limit)...)
}

func (c *claim) before(limit int64) []client.GetOption {
	opts := []client.GetOption{
		client.Prefix(), client.Descending(client.ByCreateRevision), client.Limit(limit), client.KeysOnly(),
	}
	if c.token() != 0 {
		opts = append(opts, client.MaxCreateRevision(c.token()-1))
	}
	return opts
}

// predecessor returns the newest contender older than us, given the keys
// before ours, newest first; nil when there is none. Nested keys are skipped; if
// they fill the page, a larger one of the same revision is read.
func (c *claim) predecessor(ctx context.Context, view *client.GetResult) (*client.KV, error) {
	for limit := int64(pageFirst); ; {
		kv, err := c.lock.first(view.KVs, c.token())
		if err != nil || kv != nil || !view.More {
			return kv, err
		}
		limit *= pageFactor
		opts := append(c.before(limit), client.AtRevision(view.Revision))
		rev := view.Revision
		switch view, err = c.read(ctx, c.lock.prefix(), opts...); {
		case errors.Is(err, client.ErrCompacted):
			if view, err = c.confirm(ctx); err != nil {
				return nil, err
			}
		case err != nil:
			return nil, err
		default:
			view.Revision = rev // what was read, not what is current
		}
	}
}

// oldest returns the first contender, given the keys below the lock's name,
// oldest first; nil when all keys are nested.
func (c *claim) oldest(ctx context.Context, view *client.GetResult) (*client.KV, error) {
	const any = client.Revision(1<<63 - 1)
	rev := view.Revision
	for limit := int64(pageFirst); ; {
		kv, err := c.lock.first(view.KVs, any)
		if err != nil || kv != nil || !view.More {
			return kv, err
		}
		limit *= pageFactor
		view, err = c.read(ctx, c.lock.prefix(), client.Prefix(), client.Ascending(client.ByCreateRevision),
			client.Limit(limit), client.AtRevision(rev))
		if errors.Is(err, client.ErrCompacted) {
			return nil, nil // what was seen is too old to go by: the next attempt fails and sees anew
		}
		if err != nil {
			return nil, err
		}
	}
}

// read is Get, again and again until it is answered or ctx ends.
func (c *claim) read(ctx context.Context, key string, opts ...client.GetOption) (*client.GetResult, error) {
	for n := 0; ; n++ {
		res, err := c.lock.client.Get(ctx, key, opts...)
		if err == nil || !temporary(err) || ctx.Err() != nil || !pause(ctx, n) {
			if err != nil && ctx.Err() != nil {
				err = c.ended(ctx)
			}
			return res, err
		}
	}
}

// awaitEnd returns when the key was deleted after rev, or when that can only be
// found out by looking again.
//
// It is the only key that we wait for: if its owner leaves without having had
// the lock, confirm finds the one before it. So the end of one holder wakes one
// waiter.
func (c *claim) awaitEnd(ctx context.Context, key string, rev client.Revision) error {
	for _, err := range c.lock.client.Watch(ctx, key, client.FromRevision(rev+1), client.WithoutPuts()) {
		switch {
		case err == nil, errors.Is(err, client.ErrCompacted):
			return nil
		case ctx.Err() != nil:
			return c.ended(ctx)
		default:
			return err
		}
	}
	return nil
}

// confirm proves in one step that the key is still ours, the same one and with
// our lease, and reads those before it, newest first. If there are none, the
// lock is ours: no key can ever become older than ours, so from then on the key
// alone is the proof.
func (c *claim) confirm(ctx context.Context) (*client.GetResult, error) {
	for n := 0; ; n++ {
		res, err := c.lock.client.Txn().
			If(c.isOurs(), client.Lease(c.key).Equal(c.session.ID())).
			Then(c.opBefore(pageFirst)).
			Else(client.OpGet(c.key)).
			Commit(ctx)
		switch {
		case err == nil && res.Succeeded:
			view := res.Results[0].Get
			view.Revision = res.Revision
			return view, nil
		case err == nil:
			c.lose(ErrDeleted, true)
			return nil, context.Cause(c.ctx)
		case ctx.Err() != nil:
			return nil, c.ended(ctx)
		case !temporary(err) || !pause(ctx, n):
			return nil, err
		}
	}
}

// isOurs holds while the key that we have created exists.
func (c *claim) isOurs() client.Compare { return client.CreateRevision(c.key).Equal(c.token()) }

// guard watches our own key for as long as the claim lives, while we wait as
// well as while we hold the lock, and ends the claim when the key is deleted.
func (c *claim) guard() {
	rev := c.token()
	for n := 0; c.ctx.Err() == nil; n++ {
		err := c.awaitDeletion(rev)
		switch {
		case err == nil:
			c.lose(ErrDeleted, true)
		case errors.Is(err, client.ErrCompacted):
			// The deletion may be among what is gone: look, and go on from there.
			if rev, err = c.lookAgain(); err != nil {
				c.lose(err, errors.Is(err, ErrDeleted))
			}
		case temporary(err):
			pause(c.ctx, n)
		default:
			// Who can not see the key any more can not know that he has the
			// lock. If the claim has ended anyway, this has no effect.
			c.lose(err, false)
		}
	}
	if c.lost() != nil {
		// Another goroutine may use the slot even if the user keeps the handle.
		c.undo()
	}
}

// awaitDeletion returns nil when the key was deleted after rev.
func (c *claim) awaitDeletion(rev client.Revision) error {
	for _, err := range c.lock.client.Watch(c.ctx, c.key, client.FromRevision(rev+1), client.WithoutPuts()) {
		return err
	}
	return nil
}

// lookAgain returns the revision at which the key was still ours, or ErrDeleted.
func (c *claim) lookAgain() (client.Revision, error) {
	res, err := c.read(c.ctx, c.key)
	if err != nil {
		return 0, err
	}
	if len(res.KVs) == 0 || res.KVs[0].CreateRevision != c.token() {
		return 0, ErrDeleted
	}
	return res.Revision, nil
}
