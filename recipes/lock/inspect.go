package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

const (
	// inspectMax bounds the keys that Inspect reads.
	inspectMax = 10_000
	// listPage keys are read at once by List, which keeps at most listMax.
	listPage = 1000
	listMax  = 100_000
)

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
	if !contender.ValidName(name) {
		return Info{}, fmt.Errorf("inspect lock %q: %w", name, ErrName)
	}
	res, err := c.Get(ctx, name+"/", client.Prefix(), client.Ascending(client.ByCreateRevision), client.Limit(inspectMax))
	if err != nil {
		return Info{}, fmt.Errorf("inspect lock %q: %w", name, err)
	}
	info := Info{Name: name, Revision: res.Revision, More: res.More}
	for _, kv := range res.KVs {
		switch k, recipe := contender.Classify(strings.TrimPrefix(kv.Key, name+"/")); k {
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

// Watch yields what [Inspect] finds, now and after each change of the queue or of
// what its keys say. Changes in quick succession may be seen as one. The loop
// ends with an error: that of ctx, or one of Inspect or of the client's Watch.
func Watch(ctx context.Context, c *client.Client, name string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for {
			info, err := Inspect(ctx, c, name)
			if !yield(info, err) || err != nil {
				return
			}
			for _, err := range c.Watch(ctx, name+"/", client.Prefix(), client.FromRevision(info.Revision+1)) {
				if err != nil && !errors.Is(err, client.ErrCompacted) {
					yield(Info{}, err)
					return
				}
				break // look again
			}
		}
	}
}

// List yields all names below a prefix that are held, in order, as they are at
// one revision: those that have a key as locks do, named by the lease that it is
// attached to. Elections have such keys too.
//
// Errors: [client.ErrLimit] for more than 100,000 keys, [client.ErrCompacted] if
// reading takes longer than the cluster keeps history, and those of a read.
func List(ctx context.Context, c *client.Client, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		queues, rev, err := list(ctx, c, prefix)
		if err != nil {
			yield(Info{}, fmt.Errorf("list locks below %q: %w", prefix, err))
			return
		}
		for _, name := range slices.Sorted(maps.Keys(queues)) {
			q := queues[name]
			slices.SortFunc(q, func(a, b Contender) int { return cmp.Compare(a.Token, b.Token) })
			if !yield(Info{Name: name, Revision: rev, Holders: q[:1:1], Waiters: q[1:]}, nil) {
				return
			}
		}
	}
}

// list reads all contenders below a prefix, page by page.
func list(ctx context.Context, c *client.Client, prefix string) (map[string][]Contender, client.Revision, error) {
	queues := make(map[string][]Contender)
	end := client.Prefix()
	var rev client.Revision
	for key, n := prefix, 0; ; {
		opts := []client.GetOption{end, client.Limit(listPage)}
		if rev != 0 {
			opts = append(opts, client.AtRevision(rev))
		}
		res, err := c.Get(ctx, key, opts...)
		if err != nil {
			return nil, 0, err
		}
		if rev == 0 {
			rev = res.Revision
		}
		for _, kv := range res.KVs {
			i := strings.LastIndexByte(kv.Key, '/')
			if i < 0 || kv.Lease == 0 || kv.Key[i+1:] != kv.Lease.String() || !contender.ValidName(kv.Key[:i]) {
				continue
			}
			queues[kv.Key[:i]] = append(queues[kv.Key[:i]], contenderOf(kv))
		}
		if n += len(res.KVs); n > listMax {
			return nil, 0, client.ErrLimit
		}
		if !res.More {
			return queues, rev, nil
		}
		key, end = res.KVs[len(res.KVs)-1].Key+"\x00", prefixEnd(prefix)
	}
}

// prefixEnd returns the range from a key on to the end of the prefix.
func prefixEnd(prefix string) client.RangeOption {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return client.Range(prefix[:i] + string([]byte{prefix[i] + 1}))
		}
	}
	return client.FromKey()
}
