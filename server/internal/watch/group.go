package watch

// variant is what makes two watchers of a group need different responses.
type variant uint8

const (
	wantPrev variant = 1 << iota
	noPut
	noDelete
	fragment

	variants = 1 << iota // their number
)

// watcher is one watcher of a stream. Owned by the stream.
type watcher struct {
	id int64
	// from is the lowest revision that the watcher may be sent. Below it, its group's events are not for this watcher.
	from int64
	// floor is the lowest revision that a progress report to this watcher may have: the start that it asked for, and
	// what it has been told of already, while it was reading ahead of the dispatcher.
	floor   int64
	group   *group
	index   int32 // in group.watchers
	variant variant
	// progress asks for periodic reports; sent notes that events went out since the last of them was due.
	progress, sent bool
}

// group is the set of watchers of one stream on one range that are at the same point: all fed by the dispatcher (live)
// or all reading for themselves from the same cursor (lagging). A group that changes from one to the other is replaced
// by a new object, so that references in queues to the old one are recognised as stale by its having no watchers.
//
// Owned by the stream, except that the index it stands in owns next, prev and place, and the stream's mutex protects
// lost.
type group struct {
	stream   *Stream
	rng      Range
	watchers []*watcher

	// cursor is the next revision to read, for a lagging group only.
	cursor int64
	// lost is set when an event was not queued for a live group; no later one is either.
	lost bool
	// successor is the group that the watchers of a disbanded live group went to, with its batch.
	successor *group
	// batch gathers the group's events while a step runs; empty between steps.
	batch []*payload

	next, prev *group
	place      place
}

// join moves watchers into the group. None may be sent anything below from.
func (g *group) join(from int64, watchers ...*watcher) {
	for _, w := range watchers {
		w.from = max(w.from, from)
		w.floor = max(w.floor, w.from-1)
		w.group = g
		w.index = int32(len(g.watchers))
		g.watchers = append(g.watchers, w)
	}
}

// leave takes a watcher out of the group.
func (g *group) leave(w *watcher) {
	last := len(g.watchers) - 1
	moved := g.watchers[last]
	g.watchers[w.index] = moved
	moved.index = w.index
	g.watchers[last] = nil
	g.watchers = g.watchers[:last]
	w.group = nil
}

// disband returns the group's watchers and leaves it without any.
func (g *group) disband() []*watcher {
	watchers := g.watchers
	g.watchers = nil
	return watchers
}
