package contender

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// Entry is what a recipe adds to the transaction that creates the keys: more
// conditions, and operations for either case.
type Entry struct {
	If   []client.Compare
	Then []client.Op
	Else []client.Op
}

// ForeignError: one of the keys exists and does not have the session's lease, so
// somebody else has put it there; or a key of another recipe stands in the line.
type ForeignError struct {
	Key    string
	Recipe string // whose key it is, as Classify tells; "unknown" for a place that is not ours
}

// Error tells the key.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("key %s was put by another client", e.Key)
}

// Create puts the keys into the store if none of them exists and the conditions
// of the entry hold. created says that it did, and that the view has the results
// of Then; otherwise it has those of Else, and [Claim.Token] tells whether the
// keys exist because an earlier attempt has made them.
//
// The request does not end with ctx: should the caller give up, the answer is
// still needed to know what to undo. It can be repeated: the keys' names are the
// session's, so if an earlier attempt was executed after all, the next one finds
// the keys, and takes them as its own if they have our lease.
//
// Errors: those of ctx, the loss of the claim, [*ForeignError], and those of the
// client that waiting does not cure.
func (c *Claim) Create(ctx context.Context, e Entry) (view View, created bool, err error) {
	var conditions []client.Compare
	var puts, gets []client.Op
	for _, k := range c.spec.Keys {
		conditions = append(conditions, client.Missing(k.Name))
		puts = append(puts, client.OpPut(k.Name, k.Value, client.WithLease(c.spec.Session.ID())))
		gets = append(gets, client.OpGet(k.Name))
	}
	var res *client.TxnResult
	err = c.attempt(ctx, func() error {
		var err error
		res, err = c.spec.Client.Txn().
			If(conditions...).If(e.If...).
			Then(puts...).Then(e.Then...).
			Else(gets...).Else(e.Else...).
			Commit(c.spec.Session.Context())
		return err
	})
	if err != nil {
		return View{}, false, err
	}
	n := len(c.spec.Keys)
	if res.Succeeded {
		c.begin(res.Revision)
	} else if err := c.adopt(res.Results[:n]); err != nil {
		return View{}, false, err
	}
	return View{Token: c.Token(), Revision: res.Revision, Results: res.Results[n:]}, res.Succeeded, nil
}

// attempt calls request, which may create the keys, until its outcome is known
// or ctx ends. A request without an answer may be executed later, or have been:
// the slots remember it, so that a key nobody knows of is swept away.
func (c *Claim) attempt(ctx context.Context, request func() error) error {
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return c.ended(ctx)
		}
		err := request()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, client.ErrUncertain):
			c.turn.suspect()
		case errors.Is(err, client.ErrLeaseNotFound):
			c.spec.Session.Doubt() // so that the next claim has another
			c.lose(&client.SessionError{ID: c.spec.Session.ID(), Reason: client.ErrSessionRevoked}, true)
			return context.Cause(c.ctx)
		case !retry.Temporary(err):
			return err
		}
		if !retry.Backoff(ctx, n) {
			return c.ended(ctx)
		}
	}
}

// ended says why ctx, which ends with the claim and with the caller's context,
// has ended.
func (c *Claim) ended(ctx context.Context) error {
	if lost := context.Cause(c.ctx); lost != nil {
		return lost
	}
	return ctxError(ctx)
}

// adopt takes the keys that exist as ours, as an earlier attempt has made them.
// Such an attempt has made all; if some are missing, they were deleted since.
func (c *Claim) adopt(own []client.OpResult) error {
	var token client.Revision
	for _, r := range own {
		for _, kv := range r.Get.KVs {
			if kv.Lease != c.spec.Session.ID() {
				return &ForeignError{Key: kv.Key, Recipe: "unknown"}
			}
			token = max(token, kv.CreateRevision)
		}
	}
	if token == 0 {
		return nil
	}
	c.begin(token)
	for _, r := range own {
		if len(r.Get.KVs) == 0 || r.Get.KVs[0].CreateRevision != token {
			c.lose(ErrDeleted, false)
			return context.Cause(c.ctx)
		}
	}
	return nil
}

// begin notes that the keys exist, and has them guarded.
func (c *Claim) begin(token client.Revision) {
	if c.Token() == 0 {
		c.watch = time.AfterFunc(guardDelay, c.guard)
		c.token.Store(int64(token))
	}
}
