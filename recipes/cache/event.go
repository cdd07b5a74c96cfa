package cache

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/latchkey-go/latchkey/client"
)

// eventsMax is how many of the last events a cache keeps for loops over Events. A
// loop that is further behind gets a Resynced instead.
const eventsMax = 1024

// EventType says what happened in the cache.
type EventType uint8

// The types of events.
const (
	// Resynced: Diff is all that has changed since the event before. It is the
	// first event of every loop, where Diff has all items, and comes when the
	// cache has been read anew or the loop was too slow; what was changed and
	// changed back meanwhile is not told.
	Resynced EventType = iota
	// Added: New is in the cache now. Old is zero.
	Added
	// Modified: New has taken the place of Old. It may have been deleted in
	// between; then its CreateRevision is another one.
	Modified
	// Deleted: Old is no longer in the cache. New is zero. After a Rejected, Old
	// has no Value.
	Deleted
	// Rejected: the new value under Key is no T, see Err. The key is not in the
	// cache; Old is what was, or zero.
	Rejected
)

// String returns the type's name in lower case.
func (t EventType) String() string {
	return [...]string{"resynced", "added", "modified", "deleted", "rejected"}[t]
}

// Event is one change of the cache's content.
type Event[T any] struct {
	Type EventType
	Key  string // without the cache's prefix; empty for Resynced
	// Old and New are the item before and after. Their values are the cache's
	// own: do not change what they point to.
	Old, New client.Item[T]
	// Rev is the revision of the change. Inside of a Diff, that of a deletion is
	// not known: then it is the revision of the Resynced.
	Rev client.Revision
	// Err is the [*client.DecodeError] of Rejected.
	Err error
	// Diff are the events of a Resynced, in order of their keys, each key once.
	Diff []Event[T]
}

// change is what an Event is made of, without copies of the items.
type change[T any] struct {
	key      string
	old, new *entry[T] // nil where there is none
	rev      client.Revision
}

// event is false for a change that is none for who looks at the cache.
func (c change[T]) event() (Event[T], bool) {
	ev := Event[T]{Key: c.key, Rev: c.rev}
	if c.old != nil {
		ev.Old = c.old.item
	}
	switch {
	case c.old == nil && c.new == nil:
		return ev, false
	case c.new == nil:
		ev.Type = Deleted
		return ev, true
	case c.new.err != nil:
		ev.Type, ev.Err = Rejected, c.new.err
		return ev, true
	case c.old == nil || c.old.err != nil:
		ev.Type, ev.Old = Added, client.Item[T]{}
	default:
		ev.Type = Modified
	}
	ev.New = c.new.item
	return ev, true
}

// resynced makes the event that leads from one view to another; from nil, it has
// everything.
func resynced[T any](from, to *View[T]) Event[T] {
	out := Event[T]{Type: Resynced, Rev: to.rev}
	var old *node[*entry[T]]
	if from != nil {
		old = from.entries.root
	}
	differ(old, to.entries.root, func(a, b *node[*entry[T]]) {
		c := change[T]{rev: to.rev}
		if a != nil {
			c.key, c.old = a.key, a.value
		}
		if b != nil {
			c.key, c.new, c.rev = b.key, b.value, b.value.item.Revision
		}
		if c.old != nil && c.new != nil && c.old.item.Revision == c.new.item.Revision {
			return
		}
		if ev, ok := c.event(); ok {
			out.Diff = append(out.Diff, ev)
		}
	})
	return out
}

// window is the last changes of a cache, numbered without gap. All loops over
// Events read it, each from where it is, so a slow one costs nothing and stops
// nobody: it may find that what it wants is gone.
type window[T any] struct {
	mu    sync.Mutex  // protects what follows
	ring  []change[T] // change n is at n % eventsMax; nil while there is no loop
	first uint64      // number of the oldest one that is kept
	next  uint64      // number of the next one
	loops int         // that are reading; without, nothing is kept
}

// add appends changes and returns the number of the next one.
func (w *window[T]) add(changes []change[T]) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range changes {
		if w.loops > 0 {
			w.ring[w.next%eventsMax] = c
		}
		w.next++
	}
	if w.loops == 0 {
		w.first = w.next
	} else if w.next-w.first > eventsMax {
		w.first = w.next - eventsMax
	}
	return w.next
}

// skip leaves a gap that nobody can read across and returns the next number.
func (w *window[T]) skip() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.ring)
	w.next++
	w.first = w.next
	return w.next
}

// between returns the changes from one number up to another, without that; false
// if some of them are no longer kept.
func (w *window[T]) between(from, to uint64) ([]change[T], bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if from < w.first {
		return nil, false
	}
	out := make([]change[T], 0, to-from)
	for n := from; n < to; n++ {
		out = append(out, w.ring[n%eventsMax])
	}
	return out, true
}

func (w *window[T]) enter() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.loops++; w.ring == nil {
		w.ring = make([]change[T], eventsMax)
	}
}

func (w *window[T]) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.loops--; w.loops == 0 {
		w.ring, w.first = nil, w.next
	}
}

// Events yields what changes, from now on, in order of revision. The first event is
// a Resynced with the whole content, as soon as there is one; from then on, who
// carries out every event has the same items as the cache. The cache may be ahead
// of the event that is being looked at.
//
// Each loop has its own pace. One that falls more than 1,024 events behind gets a
// Resynced with the difference; it never makes the cache, or another loop, wait.
//
// The loop ends with one last error: that of ctx, or [ErrClosed] when the cache or
// its client was closed.
func (c *Cache[T]) Events(ctx context.Context) iter.Seq2[Event[T], error] {
	return func(yield func(Event[T], error) bool) {
		c.window.enter()
		defer c.window.leave()
		var seen *state[T] // up to where events were yielded; nil before the first
		for {
			s := c.head.Load()
			if s.synced && (seen == nil || s.next != seen.next) {
				if !c.deliver(seen, s, yield) {
					return
				}
				seen = s
				continue
			}
			if s.ended {
				yield(Event[T]{}, fmt.Errorf("events of cache %q: %w", c.prefix, s.err))
				return
			}
			select {
			case <-s.changed:
			case <-ctx.Done():
				yield(Event[T]{}, fmt.Errorf("events of cache %q: %w", c.prefix, ctxError(ctx)))
				return
			}
		}
	}
}

// deliver yields what leads from one state to another.
func (c *Cache[T]) deliver(from, to *state[T], yield func(Event[T], error) bool) bool {
	var seen *View[T]
	if from != nil {
		if changes, ok := c.window.between(from.next, to.next); ok {
			for _, change := range changes {
				if ev, ok := change.event(); ok && !yield(ev, nil) {
					return false
				}
			}
			return true
		}
		seen = from.view
	}
	return yield(resynced(seen, to.view), nil)
}
