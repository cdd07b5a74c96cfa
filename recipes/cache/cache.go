package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

const (
	// askMin and askMax are how long WaitRev waits before it asks how far the
	// server is: a revision that changed nothing under the prefix is not told
	// otherwise. The pause doubles.
	askMin = 5 * time.Millisecond
	askMax = time.Second
)

// ErrClosed: the cache was closed, or its client was. In the latter case the error
// is [client.ErrClosed] as well.
var ErrClosed = errors.New("cache is closed")

// Cache is a copy of all values under a prefix, in this process. It is safe for
// concurrent use, and no read ever waits: not for the network, not for each other,
// not for a change that is under way.
type Cache[T any] struct {
	client *client.Client // as given to New
	store  *client.Client // with the prefix as its namespace
	prefix string
	schema *schema[T]
	window window[T]
	head   atomic.Pointer[state[T]] // written by run only; never nil

	cancel context.CancelCauseFunc
	done   chan struct{} // closed when run has ended
}

// state is all that readers see at one moment. It is immutable, but for changed.
type state[T any] struct {
	view    *View[T]
	synced  bool          // view is of the store, and was not always empty
	heard   time.Time     // when a member said last how far this cache is
	next    uint64        // number of the next change of the window
	err     error         // why the cache does not follow its prefix; nil while it does
	ended   bool          // it never will again
	changed chan struct{} // closed when another state has taken this one's place
}

// New returns a cache of the keys under the prefix, which by convention ends in
// "/"; the empty one means all keys of the client's namespace. It does not wait:
// the cache is empty until the background has read the prefix, see
// [Cache.WaitSynced]. The caller must Close it.
//
// It returns an error when the options contradict each other.
func New[T any](c *client.Client, prefix string, opts ...Option[T]) (*Cache[T], error) {
	s, err := newSchema(opts)
	if err != nil {
		return nil, err
	}
	ca := &Cache[T]{client: c, store: c.Namespace(prefix), prefix: prefix, schema: s, done: make(chan struct{})}
	ca.head.Store(&state[T]{view: viewOf(s, 0, nil), heard: time.Now(), changed: make(chan struct{})})
	ctx, cancel := context.WithCancelCause(context.Background())
	ca.cancel = cancel
	go ca.run(ctx)
	return ca, nil
}

// Close ends the cache: loops over Events and calls that wait return [ErrClosed].
// What it has read last can still be read. When Close returns, nothing of the cache
// runs any more. Further calls do nothing.
func (c *Cache[T]) Close() error {
	c.cancel(ErrClosed)
	<-c.done
	return nil
}

// View returns the present content, for several reads that agree with each other.
func (c *Cache[T]) View() *View[T] { return c.head.Load().view }

// Get returns the item of a key, which is written without the cache's prefix. The
// item's value is the cache's own: do not change what it points to.
func (c *Cache[T]) Get(key string) (client.Item[T], bool) { return c.View().Get(key) }

// All yields the items in order of their keys, all as of one revision: that at
// which the loop began.
func (c *Cache[T]) All() iter.Seq2[string, client.Item[T]] {
	return func(yield func(string, client.Item[T]) bool) { c.View().All()(yield) }
}

// ByIndex yields the items that the index finds by the term, in order of their
// keys, all as of one revision. It panics if New was not given an index of that
// name.
func (c *Cache[T]) ByIndex(name, term string) iter.Seq[client.Item[T]] {
	return c.View().ByIndex(name, term)
}

// Len returns the number of items.
func (c *Cache[T]) Len() int { return c.View().Len() }

// Rev returns the revision whose content the cache has: that of the store as it was
// then, neither more nor less. It never decreases. Zero before the first sync.
func (c *Cache[T]) Rev() client.Revision { return c.View().Rev() }

// Stale returns for how long no member has said that the cache is up to date, so how
// old the content may be. While all is well it stays below the 30 s after which a
// quiet stream is asked, see [client.Client.AskProgress], plus what the answer
// takes. Before the first sync it counts from New.
//
// It is no proof: a member that lags, or was cut off a moment ago, speaks of what it
// knows. [Cache.Sync] gives one.
func (c *Cache[T]) Stale() time.Duration { return time.Since(c.head.Load().heard) }

// Err returns nil while the cache follows its prefix, or is on its way to, and
// otherwise what keeps it from that: the error of its last try, or [ErrClosed]. A
// connection that is lost, and made anew, is no error.
func (c *Cache[T]) Err() error { return c.head.Load().err }

// WaitSynced waits until the cache has read its prefix for the first time. ctx
// bounds the waiting only.
//
// Errors: those of ctx, together with what kept the cache from being read, if
// anything; [ErrClosed]; and at once, while the background goes on trying, what no
// waiting cures: [client.ErrPermissionDenied], [client.ErrUnauthenticated],
// [client.ErrInvalid].
func (c *Cache[T]) WaitSynced(ctx context.Context) error {
	return c.wait(ctx, "wait for cache", func(s *state[T]) (bool, error) {
		if !s.synced && refused(s.err) {
			return false, s.err
		}
		return s.synced, nil
	})
}

// WaitRev waits until the cache has everything up to rev, which can be that of a
// write: then the cache shows it. A rev that the store has not reached yet is waited
// for too. ctx bounds the waiting only.
//
// Errors: those of ctx, together with what keeps the cache from going on, if
// anything, and [ErrClosed].
func (c *Cache[T]) WaitRev(ctx context.Context, rev client.Revision) error {
	return c.wait(ctx, fmt.Sprintf("wait for revision %d in cache", rev), func(s *state[T]) (bool, error) {
		return s.synced && s.view.rev >= rev, nil
	})
}

// Sync waits until the cache has everything that was acknowledged to anybody before
// the call, so that reads after it are as good as linearizable ones. It costs one
// small read of the store.
//
// Errors: those of the read, and those of [Cache.WaitRev].
func (c *Cache[T]) Sync(ctx context.Context) error {
	res, err := c.store.Get(ctx, "", client.Prefix(), client.Limit(1), client.KeysOnly())
	if err != nil {
		return fmt.Errorf("sync cache %q: %w", c.prefix, err)
	}
	return c.WaitRev(ctx, res.Revision)
}

// wait waits until enough returns true, or an error.
func (c *Cache[T]) wait(ctx context.Context, doing string, enough func(*state[T]) (bool, error)) error {
	ask := time.NewTimer(askMin)
	defer ask.Stop()
	for pause := askMin; ; {
		s := c.head.Load()
		ok, err := enough(s)
		if err == nil && s.ended && !ok {
			err = s.err
		}
		if err != nil {
			return fmt.Errorf("%s %q: %w", doing, c.prefix, err)
		}
		if ok {
			return nil
		}
		select {
		case <-s.changed:
		case <-ask.C:
			c.client.AskProgress()
			pause = min(2*pause, askMax)
			ask.Reset(pause)
		case <-ctx.Done():
			return fmt.Errorf("%s %q: %w", doing, c.prefix, errors.Join(ctxError(ctx), c.Err()))
		}
	}
}

// ctxError returns why ctx is done: its error, which says what kind of end it was,
// and its cause, where that is another one.
func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
