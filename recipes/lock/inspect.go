package lock

import (
	"context"
	"fmt"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// inspectMax bounds the keys that Inspect reads.
const inspectMax = 10_000

// Info is what Inspect finds.
type Info struct {
	Name     string
	Revision client.Revision // at which it was so
	Holders  []Contender     // one, or none when the lock is free
	Waiters  []Contender     // in the order in which they will be served
	More     bool            // there are more keys than were read: Waiters are incomplete
}

// Inspect tells who holds a lock and who waits for it, at one revision. It
// counts clients of etcd as well. Of goroutines that share a session it sees the
// one whose turn it is.
//
// Errors: [ErrName], [ErrConflict], and those of a read.
func Inspect(ctx context.Context, c *client.Client, name string) (Info, error) {
	l := New(c, name)
	if l.err != nil {
		return Info{}, fmt.Errorf("inspect lock %q: %w", name, l.err)
	}
	res, err := c.Get(ctx, l.prefix(), client.Prefix(), client.Ascending(client.ByCreateRevision), client.Limit(inspectMax))
	if err != nil {
		return Info{}, fmt.Errorf("inspect lock %q: %w", name, err)
	}
	info := Info{Name: name, Revision: res.Revision, More: res.More}
	for _, kv := range res.KVs {
		switch k, recipe := contender.Classify(strings.TrimPrefix(kv.Key, l.prefix())); k {
		case contender.Place:
			info.Waiters = append(info.Waiters, contenderOf(kv))
		case contender.Foreign:
			return Info{}, &ConflictError{Name: name, Key: kv.Key, Recipe: recipe}
		case contender.Nested:
		}
	}
	if len(info.Waiters) > 0 {
		info.Holders, info.Waiters = info.Waiters[:1:1], info.Waiters[1:]
	}
	return info, nil
}
