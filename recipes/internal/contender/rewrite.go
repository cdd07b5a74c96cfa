package contender

import (
	"context"
	"errors"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// Rewrite gives the i-th key another value. The key keeps its create revision
// and its lease, so the claim keeps its place and its token. It does so only
// while the conditions hold, if there are any: they must be such that, once they
// do not hold, they never do again.
//
// Errors: [ErrAgain] when a condition does not hold; the loss, or spec.Released made one, when the key is not this claim's
// any more; client.ErrUncertain when ctx ended while an answer was missing, so
// that the value may have been written, or may still be; and those of the client
// that waiting does not cure.
func (c *Claim) Rewrite(ctx context.Context, i int, value []byte, only ...client.Compare) error {
	select {
	case <-c.writing:
		defer func() { c.writing <- struct{}{} }()
	case <-ctx.Done():
		return ctxError(ctx)
	}
	return c.rewrite(ctx, i, value, only)
}

// rewrite writes only over the state that it has seen, so that no attempt whose
// answer was lost can land on a later value.
func (c *Claim) rewrite(ctx context.Context, i int, value []byte, only []client.Compare) error {
	key := c.Key(i)
	seen := max(c.written[i], c.Token()) // the key's last change, if nobody else has written it since
	uncertain := false
	for n := 0; ; n++ {
		res, err := c.spec.Client.Txn().
			If(client.CreateRevision(key).Equal(c.Token()), client.ModRevision(key).Equal(seen)).
			If(only...).
			Then(client.OpPut(key, value, client.KeepLease())).
			Else(client.OpGet(key)).
			Commit(ctx)
		switch {
		case err == nil && res.Succeeded:
			c.written[i] = res.Revision
			return nil
		case err == nil:
			kvs := res.Results[0].Get.KVs
			if len(kvs) == 0 || kvs[0].CreateRevision != c.Token() {
				return c.Ended()
			}
			if uncertain && string(kvs[0].Value) == string(value) {
				c.written[i] = kvs[0].ModRevision
				return nil
			}
			if seen == kvs[0].ModRevision {
				return ErrAgain
			}
			seen = kvs[0].ModRevision
			continue
		case errors.Is(err, client.ErrUncertain):
			uncertain = true
		case !retry.Temporary(err) && ctx.Err() == nil:
			return err
		}
		if ctx.Err() != nil || !retry.Backoff(ctx, n) {
			if uncertain && !errors.Is(err, client.ErrUncertain) {
				return errors.Join(client.ErrUncertain, err)
			}
			return errors.Join(err, context.Cause(ctx))
		}
	}
}
