package contender

import (
	"context"
	"errors"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// View is what a claim knows of its rivals at one revision.
type View struct {
	Token    client.Revision // the claim's
	Revision client.Revision
	Results  []client.OpResult // of the rule's Reads, or of the entry's operations
}

// Wait is what a claim waits for: the next event of a key, or of a range, after
// the revision of the view that it was named by.
type Wait struct {
	Key     string
	Options []client.WatchOption
	// Ends says whether an event ends the wait. Nil: every one does.
	Ends func(client.Event) bool
}

// End is the wait for the deletion of a key.
func End(key string) *Wait {
	return &Wait{Key: key, Options: []client.WatchOption{client.WithoutPuts()}}
}

// ErrAgain is what a rule returns to be asked again, with another view.
var ErrAgain = errors.New("look again")

// Rule is a recipe's decision whom a claim has to wait for.
type Rule interface {
	// Reads are executed together with the creation of the keys (token is zero
	// then, and what they find has the claim's own keys in it), and after each
	// wait together with the proof that the keys still exist. They see the store
	// at one revision.
	Reads(token client.Revision) []client.Op
	// Blocker judges what they found: nil, and the claim has what it wants, or
	// what to wait for before it is judged again. It may read more at the view's
	// revision, and rewrite the claim's keys. If it returns ErrAgain, or
	// client.ErrCompacted because it could not read, it is asked again with
	// another view. ctx ends when the claim or its caller does.
	Blocker(ctx context.Context, v View) (*Wait, error)
}

// Queue creates the keys and waits until the rule names nobody to wait for.
func (c *Claim) Queue(ctx context.Context, r Rule) error {
	view, created, err := c.Create(ctx, Entry{Then: r.Reads(0)})
	if err != nil {
		return err
	}
	if !created {
		return c.Await(ctx, r, nil)
	}
	return c.Await(ctx, r, &view)
}

// Await waits until the rule names nobody to wait for, beginning with view, or,
// if that is nil, with a new one. When it returns nil, the keys existed at the
// revision of the view that the rule judged last, with the session's lease.
func (c *Claim) Await(ctx context.Context, r Rule, view *View) error {
	for seen := client.Revision(0); ; {
		if view == nil {
			v, err := c.confirm(ctx, seen, r.Reads(c.Token()))
			if err != nil {
				return err
			}
			view = &v
		}
		w, err := r.Blocker(ctx, *view)
		switch {
		case errors.Is(err, client.ErrCompacted), errors.Is(err, ErrAgain):
		case err != nil:
			return err
		case w == nil:
			return nil
		default:
			if seen, err = c.watchUntil(ctx, w, view.Revision); err != nil {
				return err
			}
		}
		view = nil
	}
}

// Watch returns when there was an event after rev that ends the wait, or when
// that can only be found out by looking again.
func (c *Claim) Watch(ctx context.Context, w *Wait, rev client.Revision) error {
	_, err := c.watchUntil(ctx, w, rev)
	return err
}

// watchUntil is Watch, and returns the revision of the event; 0 if there is
// none.
func (c *Claim) watchUntil(ctx context.Context, w *Wait, rev client.Revision) (client.Revision, error) {
	opts := append([]client.WatchOption{client.FromRevision(rev + 1)}, w.Options...)
	for ev, err := range c.spec.Client.Watch(ctx, w.Key, opts...) {
		switch {
		case err == nil && w.Ends != nil && !w.Ends(ev):
			continue
		case err == nil:
			return ev.KV.ModRevision, nil
		case errors.Is(err, client.ErrCompacted):
			return 0, nil
		case ctx.Err() != nil:
			return 0, c.ended(ctx)
		default:
			return 0, err
		}
	}
	return 0, nil
}

// Confirm proves in one step that the keys are still ours, the same ones and
// with our lease, and executes the reads. If they are not, the claim is lost.
func (c *Claim) Confirm(ctx context.Context, reads ...client.Op) (View, error) {
	return c.confirm(ctx, 0, reads)
}

// confirm is Confirm. If seen is not zero, it is the revision of an event that
// came after the keys were created, and any later state of the store will do:
// the claim's call was under way then, so it may take effect there as well as
// now. That what was older than the keys is gone, and that the keys exist, is as
// true now as it was then, or else the keys were deleted since, which could have
// come a moment after any other answer too. So a member may answer from its own
// state, without a round to the leader and its followers: the one that has sent
// the event has applied it.
func (c *Claim) confirm(ctx context.Context, seen client.Revision, reads []client.Op) (View, error) {
	conditions := c.Guard()
	var gets []client.Op
	for _, k := range c.spec.Keys {
		conditions = append(conditions, client.Lease(k.Name).Equal(c.spec.Session.ID()))
		gets = append(gets, client.OpGet(k.Name))
	}
	for n := 0; ; n++ {
		txn := c.spec.Client.Txn().If(conditions...).Then(reads...).Else(gets...)
		if seen > 0 {
			txn.Serializable()
		}
		res, err := txn.Commit(ctx)
		switch {
		case err == nil && res.Revision < seen: // of another member, which lags
			seen = 0
		case err == nil && res.Succeeded:
			return View{Token: c.Token(), Revision: res.Revision, Results: res.Results}, nil
		case err == nil:
			c.lose(c.reason(res.Results))
			return View{}, context.Cause(c.ctx)
		case ctx.Err() != nil:
			return View{}, c.ended(ctx)
		case !retry.Temporary(err) || !retry.Backoff(ctx, n):
			return View{}, err
		}
	}
}

// reason says what became of the keys, given what is under their names, and
// whether none of them is left.
func (c *Claim) reason(own []client.OpResult) (reason error, gone bool) {
	left := 0
	for _, r := range own {
		if len(r.Get.KVs) > 0 && r.Get.KVs[0].CreateRevision == c.Token() {
			left++
		}
	}
	if left == len(own) {
		return ErrDetached, false
	}
	return ErrDeleted, left == 0
}

// Get reads, again and again until there is an answer or ctx ends.
func (c *Claim) Get(ctx context.Context, key string, opts ...client.GetOption) (res *client.GetResult, err error) {
	err = retry.Do(ctx, func() error {
		res, err = c.spec.Client.Get(ctx, key, opts...)
		return err
	})
	if err != nil && ctx.Err() != nil {
		err = c.ended(ctx)
	}
	return res, err
}
