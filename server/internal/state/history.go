package state

import (
	"iter"
	"slices"
	"sort"
)

const (
	// DefaultHistoryBytes bounds the event window when Config.HistoryBytes is zero.
	DefaultHistoryBytes = 16 << 20
	// A chunk of the window ends with chunkEvents events or 1/chunkShare of the window's bytes, whichever comes first.
	// Chunks leave memory whole, so they are small against the window.
	chunkEvents = 256
	chunkShare  = 16
)

// Event is one change: the version that it made, and the live version that the key had at the end of the revision
// before, as etcd tells it: a transaction that puts and then deletes a key makes two events with the same Prev. Prev is
// nil when the key did not exist then, when this write created it, or when that version is no longer known.
type Event struct{ Version, Prev *Version }

// History is an immutable stretch of the newest events, in revision order. It is a value: copying it is cheap, reading
// it allocates nothing, and any number of goroutines may do so. It keeps the events that it shows in memory.
type History struct {
	// sealed chunks never change. tail is the open chunk as it was when the snapshot was made: the machine writes only
	// behind its end, to memory that no snapshot reaches.
	sealed      []*chunk
	tail        []Event
	first, last int64
}

// chunk is a run of events; immutable once it is sealed.
type chunk struct {
	start  Revision
	events []Event
	bytes  int
}

// last returns the revision of the last event.
func (c *chunk) last() int64 { return c.events[len(c.events)-1].Version.Mod }

// First returns the revision from which the events are complete; it is above Last when there are none.
func (h History) First() int64 { return h.first }

// Last returns the current revision at the time of the snapshot: the events are complete up to and including it.
func (h History) Last() int64 { return h.last }

// From yields the events with revision rev and above in order, up to Last. Events below First are missing: who needs
// them reads the archive first.
func (h History) From(rev int64) iter.Seq[Event] {
	return func(yield func(Event) bool) { h.walk(rev, yield) }
}

// walk is From's loop, apart from it so that From is inlined and its closure stays on the caller's stack.
func (h History) walk(rev int64, yield func(Event) bool) {
	rev = max(rev, h.first)
	for i := h.chunkOf(Revision{Main: rev}); i <= len(h.sealed); i++ {
		events := h.chunk(i)
		if len(events) == 0 {
			return
		}
		if events[0].Version.Mod < rev {
			events = events[search(events, Revision{Main: rev}):]
		}
		for _, e := range events {
			if !yield(e) {
				return
			}
		}
	}
}

// chunk returns the events of the i-th chunk; the tail comes after the sealed ones.
func (h History) chunk(i int) []Event {
	if i == len(h.sealed) {
		return h.tail
	}
	return h.sealed[i].events
}

// chunkOf returns the chunk in which rev is, or would be.
func (h History) chunkOf(rev Revision) int {
	if len(h.tail) > 0 && h.tail[0].Version.Revision().Compare(rev) <= 0 {
		return len(h.sealed)
	}
	n := sort.Search(len(h.sealed), func(i int) bool { return h.sealed[i].start.Compare(rev) > 0 })
	return max(n-1, 0)
}

// search returns the index of the first event at or above rev.
func search(events []Event, rev Revision) int {
	return sort.Search(len(events), func(i int) bool { return events[i].Version.Revision().Compare(rev) >= 0 })
}

// find returns the version written at rev, nil when it is not in memory.
func (h History) find(rev Revision) *Version { return h.event(rev).Version }

// event returns the event of rev, the zero Event when it is not in memory.
func (h History) event(rev Revision) Event {
	events := h.chunk(h.chunkOf(rev))
	if i := search(events, rev); i < len(events) && events[i].Version.Revision() == rev {
		return events[i]
	}
	return Event{}
}

// window is the machine's end of the history: it appends events, and drops the oldest chunks once they are archived and
// more than limit bytes are held. Owned by the machine.
type window struct {
	sealed    []*chunk
	tail      []Event
	tailBytes int
	bytes     int   // of all chunks
	first     int64 // see History.First
	limit     int
	archived  int64 // events with Mod <= archived may be dropped; -1 for none
}

// snapshot returns what the window holds now; last is the current revision.
func (w *window) snapshot(last int64) History {
	return History{sealed: w.sealed, tail: w.tail, first: w.first, last: last}
}

// append adds an event; its revision is above all others.
func (w *window) append(e Event) {
	if len(w.tail) == chunkEvents || w.tailBytes >= w.limit/chunkShare && len(w.tail) > 0 {
		w.seal()
	}
	if w.tail == nil {
		w.tail = make([]Event, 0, chunkEvents)
	}
	n := eventBytes(e.Version)
	if e.Prev != nil && !w.holds(e.Prev.Revision()) {
		n += eventBytes(e.Prev)
	}
	w.tail = append(w.tail, e)
	w.tailBytes += n
	w.bytes += n
	w.drop()
}

// holds reports whether the version written at rev is in the window.
func (w *window) holds(rev Revision) bool {
	switch {
	case len(w.sealed) > 0:
		return w.sealed[0].start.Compare(rev) <= 0
	case len(w.tail) > 0:
		return w.tail[0].Version.Revision().Compare(rev) <= 0
	default:
		return false
	}
}

func (w *window) seal() {
	w.sealed = append(w.sealed, &chunk{start: w.tail[0].Version.Revision(), events: w.tail, bytes: w.tailBytes})
	w.tail, w.tailBytes = nil, 0
}

// drop lets go of the oldest chunks while the window is over its limit and they are archived.
func (w *window) drop() { w.dropTo(w.limit) }

// dropTo is drop with another limit. The list is copied, since a slice of it would keep the dropped chunks alive.
func (w *window) dropTo(limit int) {
	n := 0
	for n < len(w.sealed) && w.bytes > limit {
		c := w.sealed[n]
		if c.last() > w.archived {
			break
		}
		w.bytes -= c.bytes
		// The revision that the chunk ends in may go on in the next one: it is no longer complete either.
		w.first = max(w.first, c.last()+1)
		n++
	}
	if n > 0 {
		w.sealed = slices.Clone(w.sealed[n:])
	}
}

// forget drops Prev from the events up to revision rev: where compaction removed versions, the one loaded before an
// event need not be the one that it replaced.
func (w *window) forget(rev int64) {
	h := w.snapshot(rev)
	for i := range len(h.sealed) + 1 {
		events := h.chunk(i)
		for k := range events {
			if events[k].Version.Mod > rev {
				return
			}
			events[k].Prev = nil
		}
	}
}

// eventBytes is what an event with version v holds in memory.
func eventBytes(v *Version) int { return len(v.Key) + len(v.Value) + versionBytes + eventSlotBytes }
