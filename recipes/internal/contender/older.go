package contender

import (
	"context"
	"strings"

	"github.com/latchkey-go/latchkey/client"
)

const (
	// pageFirst keys are read to find the one to wait for; if all of them are
	// nested, pageFactor times as many are.
	pageFirst  = 4
	pageFactor = 8
)

// OpOlder reads the newest keys below a prefix that are older than the claim's,
// for [Claim.Older]. The token is that of [Rule.Reads].
func OpOlder(prefix string, token client.Revision) client.Op {
	limit := int64(pageFirst)
	if token == 0 {
		limit++ // our own is among them
	}
	return client.OpGet(prefix, before(token, limit)...)
}

func before(token client.Revision, limit int64) []client.GetOption {
	opts := []client.GetOption{
		client.Prefix(), client.Descending(client.ByCreateRevision), client.Limit(limit), client.KeysOnly(),
	}
	if token != 0 {
		opts = append(opts, client.MaxCreateRevision(token-1))
	}
	return opts
}

// Older returns the newest place in the line that is older than the claim's, given
// what OpOlder has read; nil when there is none. Nested keys are skipped; if they
// fill the page, a larger one of the same revision is read.
//
// Errors: [*ForeignError], client.ErrCompacted, and those of Get.
func (c *Claim) Older(ctx context.Context, prefix string, v View, page *client.GetResult) (*client.KV, error) {
	for limit := int64(pageFirst); ; {
		kv, err := FirstPlace(prefix, page.KVs, v.Token)
		if err != nil || kv != nil || !page.More {
			return kv, err
		}
		limit *= pageFactor
		opts := append(before(v.Token, limit), client.AtRevision(v.Revision))
		if page, err = c.Get(ctx, prefix, opts...); err != nil {
			return nil, err
		}
	}
}

// FirstPlace returns the first place among kvs, which are all keys below the
// prefix in some order, from below the limit on; nil when there is none.
// [*ForeignError] when a key of another recipe comes first.
func FirstPlace(prefix string, kvs []client.KV, below client.Revision) (*client.KV, error) {
	for i := range kvs {
		kv := &kvs[i]
		if kv.CreateRevision >= below {
			continue
		}
		switch k, recipe := Classify(strings.TrimPrefix(kv.Key, prefix)); k {
		case Place:
			return kv, nil
		case Foreign:
			return nil, &ForeignError{Key: kv.Key, Recipe: recipe}
		case Nested:
		}
	}
	return nil, nil
}
