package watch

import (
	"errors"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

const (
	// DefaultWatchersMax bounds the watchers of a member when Config.WatchersMax is zero.
	DefaultWatchersMax = 1_000_000
	// DefaultStreamWatchersMax bounds the watchers of one stream when Config.StreamWatchersMax is zero.
	DefaultStreamWatchersMax = 100_000
	// dispatchWorkMax bounds the events and matches that are dealt with under one hold of the hub's mutex, which those
	// who create and cancel watchers wait for: about 0.2 ms. A revision is never split.
	dispatchWorkMax = 4096
	// publishWorkMax bounds the same for Publish itself. Up to there it is cheaper to do the work than to wake the
	// dispatcher for it, and the streams hear of the events one goroutine earlier.
	publishWorkMax = 32
	// cacheBytesMax bounds the events that are kept encoded for all streams together. A stream that is this far
	// behind the others reads the history again.
	cacheBytesMax = 16 << 20
	// cacheEventsMax bounds their number; a power of two.
	cacheEventsMax = 1 << 14
	// queueEventsMax bounds the references to events that wait for one stream. Beyond it, the groups that miss one
	// read for themselves.
	queueEventsMax = 4096
	// turnRevisionsMax bounds the revisions that are looked at in one turn of reading.
	turnRevisionsMax = 1000
	// batchBytesMax bounds the events of one response, and of one turn of reading; a single revision may exceed it.
	batchBytesMax = 1 << 20
	// batchKeptMax is the capacity up to which a group keeps its empty batch for the next events.
	batchKeptMax = 16
	// detachGroupsMax bounds the groups that leave the index under one hold of the mutex.
	detachGroupsMax = 512
)

// Errors of Stream.Create.
var (
	ErrEmptyRange      = errors.New("watch: the range holds no key")
	ErrDuplicateID     = errors.New("watch: the watcher id is in use on this stream")
	ErrTooManyWatchers = errors.New("watch: too many watchers")
)

// Archive reads what the history in memory no longer holds.
type Archive interface {
	// Scan calls fn with all versions, tombstones included, whose Mod is in from..to, in the order of revisions,
	// until fn returns false. What was compacted may be missing. The versions must stay valid after the call.
	Scan(from, to int64, fn func(*state.Version) bool) error
	// At returns the key as it was at revision rev: nil when it did not exist, and nil when rev has been compacted.
	At(key string, rev int64) (*mvccpb.KeyValue, error)
}

// Config has what a Hub needs. Zero values are usable.
type Config struct {
	// Archive is asked for events below the first of the published history. Nil when the history never drops any.
	Archive Archive
	// WatchersMax bounds the watchers of all streams together.
	WatchersMax int
	// StreamWatchersMax bounds the watchers of each stream.
	StreamWatchersMax int
}

// limits are the bounds above that tests make small.
type limits struct {
	dispatchWork, publishWork, cacheBytes, cacheEvents, queueEvents, batchBytes int
	turnRevisions                                                               int64
}

func defaultLimits() limits {
	return limits{
		dispatchWork: dispatchWorkMax, publishWork: publishWorkMax, cacheBytes: cacheBytesMax, cacheEvents: cacheEventsMax,
		queueEvents: queueEventsMax, batchBytes: batchBytesMax, turnRevisions: turnRevisionsMax,
	}
}

// Stats counts what a hub has now.
type Stats struct {
	Streams  int64
	Watchers int64
	Lagging  int64 // groups of watchers that are reading events of the past
}

// Hub wakes streams when events match one of their watchers. All methods may be called from any goroutine.
type Hub struct {
	archive           Archive
	watchersMax       int64
	streamWatchersMax int
	limits            limits

	latest     atomic.Pointer[snapshot]
	dispatched atomic.Int64 // events up to here stand in the queues of all live groups; written under mu
	attached   atomic.Int64 // live groups: with none, publishing wakes nobody

	// replacing is held for reading while the archive is read, until the outcome is judged by the newest snapshot.
	replacing sync.RWMutex

	mu      sync.Mutex
	live    index       // protected by mu
	waiting []waiter    // protected by mu; streams that want to hear of a dispatched revision
	working dispatching // protected by mu

	cache   *cache
	scratch sync.Pool // of *scratch
	queues  sync.Pool // of *queue
	counts  counts

	wake    chan struct{} // capacity 1: a signal that is pending covers all that was published before it is taken
	done    chan struct{} // closed by Close
	stopped sync.WaitGroup
}

// dispatching is the working space of dispatch; all empty between two calls.
type dispatching struct {
	touched  []*Stream  // to be woken
	matched  []*group   // of one event
	gathered []delivery // of a revision that is not queued yet
}

// counts are the hub's Stats in the making.
type counts struct{ streams, watchers, lagging atomic.Int64 }

// snapshot is what one Publish published; immutable.
type snapshot struct {
	history state.History
	compact int64
}

// waiter is a stream that wants to be woken when everything up to rev is dispatched.
type waiter struct {
	stream *Stream
	rev    int64
}

// NewHub returns a hub that shows the given history and compact revision, and starts its dispatcher. Close ends it.
func NewHub(c Config, history state.History, compact int64) *Hub {
	h := newHub(c, history, compact, defaultLimits())
	h.stopped.Go(h.run)
	return h
}

// newHub returns a hub without its dispatcher.
func newHub(c Config, history state.History, compact int64, l limits) *Hub {
	h := &Hub{
		archive:           c.Archive,
		watchersMax:       int64(c.WatchersMax),
		streamWatchersMax: c.StreamWatchersMax,
		limits:            l,
		cache:             newCache(l),
		wake:              make(chan struct{}, 1),
		done:              make(chan struct{}),
	}
	if h.watchersMax == 0 {
		h.watchersMax = DefaultWatchersMax
	}
	if h.streamWatchersMax == 0 {
		h.streamWatchersMax = DefaultStreamWatchersMax
	}
	h.scratch.New = func() any { return new(scratch) }
	h.queues.New = func() any { return new(queue) }
	h.latest.Store(&snapshot{history: history, compact: compact})
	h.dispatched.Store(history.Last())
	return h
}

// Close stops the dispatcher and returns when it has ended. Streams stay usable but hear of nothing new.
func (h *Hub) Close() {
	h.mu.Lock()
	select {
	case <-h.done:
	default:
		close(h.done)
	}
	h.mu.Unlock()
	h.stopped.Wait()
}

// Publish shows watchers a new history and the compact revision that goes with it. It is called by the goroutine that
// applies, after each batch: before the batch's clients are answered, so that a watch created after an answer begins
// behind it, and before the archive loses anything below the compact revision, so that a reader of the archive who
// lost something always learns of it. Revisions never go back; a machine that is replaced is published in Replace.
//
// It never waits for a stream to send. A few events for a few streams are queued right here, the rest is left to the
// dispatcher.
func (h *Hub) Publish(history state.History, compact int64) {
	h.latest.Store(&snapshot{history: history, compact: compact})
	// A group that attaches after the Store above and before this Load sees the new history itself; see attach.
	if h.attached.Load() == 0 {
		return
	}
	if h.mu.TryLock() {
		more := h.dispatch(h.limits.publishWork, false)
		h.mu.Unlock()
		if !more {
			return
		}
	}
	// Who holds the mutex may have looked at the history before it was stored, so the dispatcher has to look again.
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Refresh shows the same revision with another history, whose window is smaller. It does nothing once a later revision
// was published.
func (h *Hub) Refresh(history state.History) {
	old := h.latest.Load()
	if old.history.Last() == history.Last() {
		h.latest.CompareAndSwap(old, &snapshot{history: history, compact: old.compact})
	}
}

// Replace runs f, which puts another machine with another archive in place and publishes its history, while no stream
// reads the archive. Otherwise a stream could miss what the new archive does not have, and not learn from the compact
// revision that it did. Streams that need the archive wait for f.
func (h *Hub) Replace(f func() error) error {
	h.replacing.Lock()
	defer h.replacing.Unlock()
	return f()
}

// Revision returns the revision of the history that was published last.
func (h *Hub) Revision() int64 {
	return h.latest.Load().history.Last()
}

// Stats returns the present counts.
func (h *Hub) Stats() Stats {
	return Stats{Streams: h.counts.streams.Load(), Watchers: h.counts.watchers.Load(), Lagging: h.counts.lagging.Load()}
}

// run is the dispatcher.
func (h *Hub) run() {
	for {
		select {
		case <-h.done:
			return
		case <-h.wake:
		}
		for more := true; more; {
			select {
			case <-h.done:
				return
			default:
			}
			h.mu.Lock()
			more = h.dispatch(h.limits.dispatchWork, true)
			h.mu.Unlock()
		}
	}
}

// dispatch queues events up to an amount of work for the streams that they are for, wakes those, and reports whether
// there is more. If it must, it does at least a revision, whatever the amount. The caller holds mu. Streams are woken
// after the dispatched revision has moved, since they take nothing above it.
func (h *Hub) dispatch(work int, must bool) (more bool) {
	at, last := h.dispatched.Load(), h.latest.Load().history
	switch {
	case last.Last() <= at:
		return false
	case h.live.size == 0:
		at = last.Last()
	case last.First() > at+1:
		if !must {
			return true
		}
		h.loseAll(at + 1)
		at = last.Last()
	default:
		at = h.matchSome(last, at, work, must)
	}
	h.dispatched.Store(at)
	h.wakeTouched(at)
	return at < last.Last()
}

// matchSome queues the events after revision at and returns the revision up to which it did. Without must, nothing of a
// revision is queued before it is known that the work allows for all of it.
func (h *Hub) matchSome(history state.History, at int64, work int, must bool) int64 {
	rev := at // of the events that are gathered; all below is queued
	for e := range history.From(at + 1) {
		if e.Version.Mod != rev {
			h.queueGathered()
			if work <= 0 {
				return rev
			}
			rev = e.Version.Mod
		}
		h.working.matched = h.live.match(e.Version.Key, h.working.matched[:0])
		work -= 1 + len(h.working.matched)
		if work < 0 && !must {
			clear(h.working.gathered)
			h.working.gathered = h.working.gathered[:0]
			return rev - 1
		}
		if len(h.working.matched) == 0 {
			continue
		}
		h.cache.intern(e)
		for _, g := range h.working.matched {
			h.working.gathered = append(h.working.gathered, delivery{group: g, rev: e.Version.Revision()})
		}
		if must {
			h.queueGathered()
		}
	}
	h.queueGathered()
	return history.Last()
}

// queueGathered hands the gathered events to the streams.
func (h *Hub) queueGathered() {
	for _, d := range h.working.gathered {
		d.group.stream.push(d)
		h.touch(d.group.stream)
	}
	clear(h.working.gathered)
	h.working.gathered = h.working.gathered[:0]
}

// loseAll makes every live group lag from revision rev on: the history in memory no longer reaches back to it, because
// the machine was replaced by a snapshot, or because the window moved on before the dispatcher came round.
func (h *Hub) loseAll(rev int64) {
	h.working.matched = h.live.all(h.working.matched[:0])
	for _, g := range h.working.matched {
		g.stream.lose(g, rev)
		h.touch(g.stream)
	}
	clear(h.working.matched)
}

func (h *Hub) touch(s *Stream) {
	if !s.touched {
		s.touched = true
		h.working.touched = append(h.working.touched, s)
	}
}

// wakeTouched wakes the streams that were given something and those that wait for revision at.
func (h *Hub) wakeTouched(at int64) {
	for _, s := range h.working.touched {
		s.touched = false
		s.signal()
	}
	clear(h.working.touched)
	h.working.touched = h.working.touched[:0]
	kept := h.waiting[:0]
	for _, w := range h.waiting {
		if w.rev <= at {
			w.stream.signal()
		} else {
			kept = append(kept, w)
		}
	}
	clear(h.waiting[len(kept):])
	h.waiting = kept
}

// attach puts a group into the live index, so that it is given all events after the dispatched revision. It refuses
// when that is not enough, because events from cursor on were dispatched already. A cursor of zero stands for the
// first revision after the present one; attach returns the cursor.
func (h *Hub) attach(g *group, cursor int64) (int64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// Count first, look at the history second. Publish stores first and looks at the count second. So either we see
	// its history here, or it sees our count and wakes the dispatcher.
	h.attached.Add(1)
	current := h.latest.Load().history.Last()
	if h.live.size == 0 {
		// The dispatcher was not woken for what nobody watched.
		h.dispatched.Store(current)
	}
	if cursor == 0 {
		cursor = current + 1
	}
	if h.dispatched.Load() >= cursor {
		h.attached.Add(-1)
		return cursor, false
	}
	h.live.add(g)
	return cursor, true
}

// detach takes groups out of the live index. When it returns, nothing more is queued for them.
func (h *Hub) detach(groups ...*group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range groups {
		h.live.remove(g)
	}
	h.attached.Add(int64(-len(groups)))
}

// await has the stream woken once everything up to rev is dispatched. It returns false when that is so already.
func (h *Hub) await(s *Stream, rev int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dispatched.Load() >= rev {
		return false
	}
	for i := range h.waiting {
		if h.waiting[i].stream == s {
			h.waiting[i].rev = min(h.waiting[i].rev, rev)
			return true
		}
	}
	h.waiting = append(h.waiting, waiter{stream: s, rev: rev})
	return true
}

// forget drops what a stream awaits.
func (h *Hub) forget(s *Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.waiting {
		if h.waiting[i].stream == s {
			last := len(h.waiting) - 1
			h.waiting[i] = h.waiting[last]
			h.waiting[last] = waiter{}
			h.waiting = h.waiting[:last]
			return
		}
	}
}
