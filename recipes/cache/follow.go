package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

const (
	// A prefix is read in pages: the first of pageKeysFirst keys, the others of
	// as many as make pageBytes, by what was seen so far.
	pageKeysFirst = 256
	pageKeysMax   = 16_384
	pageBytes     = 4 << 20
	// The pause before the prefix is read again after a failure.
	retryMin = 50 * time.Millisecond
	retryMax = 5 * time.Second
)

// errBehind: a member answered with a state that is older than what the cache has.
var errBehind = errors.New("a member is behind what the cache has seen")

// run reads the prefix and follows it, again and again, until the cache or the
// client is closed.
func (c *Cache[T]) run(ctx context.Context) {
	defer close(c.done)
	for failures := 0; ; {
		err := c.load(ctx)
		if err == nil {
			failures = 0
			err = c.follow(ctx)
		}
		if ctx.Err() != nil {
			c.end(context.Cause(ctx))
			return
		}
		if errors.Is(err, client.ErrClosed) {
			c.end(fmt.Errorf("%w: %w", ErrClosed, err))
			return
		}
		c.schema.log.Warn("cache has to be read again", "prefix", c.prefix, "error", err)
		if errors.Is(err, client.ErrCompacted) && failures == 0 {
			failures++ // no reason to wait, unless it happens again
			continue
		}
		c.fail(err)
		pause(ctx, failures)
		failures++
	}
}

// load reads the whole prefix, at one revision, and makes it the content.
func (c *Cache[T]) load(ctx context.Context) error {
	var entries []*entry[T]
	was := c.View()
	from, rev, limit := "", client.Revision(0), pageKeysFirst
	for {
		page, err := c.store.Get(ctx, from, client.FromKey(), client.Limit(int64(limit)), client.AtRevision(rev))
		if err != nil {
			return fmt.Errorf("read prefix %q: %w", c.prefix, err)
		}
		if rev == 0 {
			if rev = page.Revision; rev < was.rev {
				return fmt.Errorf("read prefix %q: %w: revision %d is before %d", c.prefix, errBehind, rev, was.rev)
			}
		}
		bytes := 0
		for _, kv := range page.KVs {
			bytes += len(kv.Key) + len(kv.Value)
			// What has not changed keeps its value: nobody decodes it twice.
			e, ok := was.entries.get(kv.Key)
			if !ok || e.item.Revision != kv.ModRevision {
				e = c.schema.entry(kv)
			}
			if e != nil {
				entries = append(entries, e)
			}
		}
		if !page.More || len(page.KVs) == 0 {
			break
		}
		from = page.KVs[len(page.KVs)-1].Key + "\x00"
		limit = min(max(1, pageBytes*len(page.KVs)/(bytes+1)), pageKeysMax)
	}
	c.publish(state[T]{view: viewOf(c.schema, rev, entries), synced: true, heard: time.Now(), next: c.window.skip()})
	return nil
}

// follow carries out what happens after the content's revision, until the watch
// ends, and returns why.
func (c *Cache[T]) follow(ctx context.Context) error {
	from := client.FromRevision(c.Rev() + 1)
	for batch, err := range c.store.WatchBatches(ctx, "", client.Prefix(), from, client.WithProgress()) {
		if err != nil {
			return fmt.Errorf("watch prefix %q: %w", c.prefix, err)
		}
		c.apply(batch)
	}
	return nil // not reached: a watch ends with an error
}

// apply carries out a batch, which has all events of each of its revisions: what
// readers see is always the store at some revision.
func (c *Cache[T]) apply(batch client.WatchBatch) {
	s := *c.head.Load()
	view := s.view.clone()
	var changes []change[T]
	for _, ev := range batch.Events {
		if ev.KV.ModRevision <= s.view.rev {
			continue // the watch does not repeat, and time does not go back
		}
		var e *entry[T]
		if ev.Type == client.EventPut {
			e = c.schema.entry(ev.KV)
		}
		ch := change[T]{key: ev.KV.Key, new: e, rev: ev.KV.ModRevision}
		if ch.old = view.replace(ch.key, e); ch.old != nil || e != nil {
			changes = append(changes, ch)
		}
	}
	view.rev = max(view.rev, batch.Revision)
	s.view, s.heard, s.err = view, time.Now(), nil
	if len(changes) > 0 {
		s.next = c.window.add(changes)
	}
	c.publish(s)
}

// fail notes what keeps the cache from following. The content stays.
func (c *Cache[T]) fail(err error) {
	s := *c.head.Load()
	s.err = err
	c.publish(s)
}

// end is the last thing that happens.
func (c *Cache[T]) end(err error) {
	s := *c.head.Load()
	s.err, s.ended = err, true
	c.publish(s)
}

// publish makes s the state that readers see, and wakes who waits for one.
func (c *Cache[T]) publish(s state[T]) {
	s.changed = make(chan struct{})
	close(c.head.Swap(&s).changed)
}

// refused says that err is an answer that will be the same next time.
func refused(err error) bool {
	for _, kind := range []error{
		client.ErrPermissionDenied, client.ErrUnauthenticated, client.ErrInvalid,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// pause waits before attempt n+1. It returns false when ctx ends first.
func pause(ctx context.Context, n int) bool { return retry.BackoffWithin(ctx, n, retryMin, retryMax) }
