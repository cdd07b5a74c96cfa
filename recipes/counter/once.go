package counter

import (
	"context"
	"errors"
	"iter"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// roundsMax bounds how often an update is begun anew after it has lost all of its runs
// against others, of which client.Update has a bound of its own.
const roundsMax = 16

// once executes a transaction exactly once.
func once(ctx context.Context, c *client.Client, fn func(tx *client.Tx) error) error {
	var err error
	for range roundsMax {
		err = c.Update(ctx, fn, client.ExactlyOnce())
		if !errors.Is(err, client.ErrConflict) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			break
		}
	}
	return err
}

// follow yields a key as it is now, and then after each change, without gap; a
// ModRevision of zero means that there is no such key. It ends with an error, or when the
// loop does.
func follow(ctx context.Context, c *client.Client, key string) iter.Seq2[client.KV, error] {
	return func(yield func(client.KV, error) bool) {
		last, began := client.KV{}, false
		for n := 0; ; n++ {
			res, err := c.Get(ctx, key)
			if err == nil {
				now := client.KV{Key: key}
				if len(res.KVs) > 0 {
					now = res.KVs[0]
				}
				if began && now.ModRevision == last.ModRevision || yield(now, nil) {
					last, began = now, true
					err = watch(ctx, c, key, res.Revision, func(kv client.KV) bool {
						last = kv
						return yield(kv, nil)
					})
				}
				if err == nil {
					return // the loop has ended
				}
			}
			again := errors.Is(err, client.ErrCompacted) || retry.Unreached(err) && retry.Backoff(ctx, n)
			if ctx.Err() != nil || !again {
				yield(client.KV{}, err)
				return
			}
		}
	}
}

// watch yields the key after each change behind rev. It returns nil when yield does not
// want more.
func watch(ctx context.Context, c *client.Client, key string, rev client.Revision, yield func(client.KV) bool) error {
	for ev, err := range c.Watch(ctx, key, client.FromRevision(rev+1)) {
		if err != nil {
			return err
		}
		kv := ev.KV
		if ev.Type == client.EventDelete {
			kv = client.KV{Key: key}
		}
		if !yield(kv) {
			return nil
		}
	}
	return nil
}
