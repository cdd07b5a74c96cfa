package sim

import (
	"slices"
	"sort"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// watcher is a cursor over the history of whichever member it is attached to. It may lag as long as it likes, and must
// get every event of the log once and in order.
type watcher struct {
	s    *sim
	node *node
	next int64   // revision from which it reads on
	seen int     // truth.events[:seen] have come, or were compacted before they did
	lazy float64 // how often it puts off reading
}

func (s *sim) startWatchers() {
	for range s.Watchers {
		w := &watcher{s: s, next: 2, lazy: s.rng.Float64()}
		s.watchers = append(s.watchers, w)
		w.move()
	}
}

// move attaches the watcher to some member, and to another one after a while.
func (w *watcher) move() {
	w.node = w.s.pick()
	w.s.counts.WatchesMoved++
	w.s.Mutant.moved(w)
	w.wake()
	w.s.after(w.s.around(ms(400)), w.move)
}

func (w *watcher) wake() {
	if !w.node.up || w.s.load && w.s.chance(w.lazy) {
		return
	}
	w.read()
}

// read takes everything from its revision on, from the archive where the member's memory does not reach back so far.
func (w *watcher) read() {
	m := w.node.mach
	h := m.History()
	switch {
	case w.next > h.Last(): // the member is behind
		return
	case w.next < m.CompactRevision():
		w.s.counts.WatchesCompacted++
		w.next = h.Last() + 1
		events := w.s.truth.events
		w.seen = sort.Search(len(events), func(i int) bool { return events[i].Version.Mod >= w.next })
		return
	case w.next < h.First():
		if err := (archive{w.node}).Scan(w.next, h.First()-1, func(v *state.Version) bool {
			w.take(v, nil)
			return true
		}); err != nil {
			panic(err)
		}
	}
	for e := range h.From(w.next) {
		w.take(e.Version, e.Prev)
	}
	w.next = h.Last() + 1
	if events := w.s.truth.events; w.seen < len(events) && events[w.seen].Version.Mod < w.next {
		w.s.violate("watch", "member %d has shown all up to %d, but not %q %s",
			w.node.id, w.next-1, events[w.seen].Version.Key, show(events[w.seen].Version))
	}
}

func (w *watcher) take(v, prev *state.Version) {
	t := w.s.truth
	if w.seen >= len(t.events) || !sameVersion(t.events[w.seen].Version, v) {
		w.s.violate("watch", "member %d shows %q %s at %v as event %d, which is another in the log",
			w.node.id, v.Key, show(v), v.Revision(), w.seen)
	}
	w.seen++
	w.s.counts.Watched++
	if prev == nil {
		return
	}
	versions := t.keys[v.Key]
	i := slices.IndexFunc(versions, func(u *state.Version) bool { return u.Revision() == v.Revision() })
	if i < 1 || !sameVersion(versions[i-1], prev) {
		w.s.violate("watch", "member %d shows %s as what %q was before %v", w.node.id, show(prev), v.Key, v.Revision())
	}
}

// finish requires that nothing is left to come.
func (w *watcher) finish() {
	w.node = w.s.members()[0]
	w.read()
	if w.next != w.s.truth.revision+1 || w.seen != len(w.s.truth.events) {
		w.s.violate("watch", "a watcher is at %d when the revision is %d", w.next, w.s.truth.revision)
	}
}
