package watch

import (
	"slices"
	"sync"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// Request describes a watcher to create.
type Request struct {
	// ID is the watcher's id on its stream; 0 has the stream choose one.
	ID    int64
	Range Range
	// Start is the first revision of interest: 0 for whatever comes next, and it may be in the future.
	Start int64
	// PrevKV adds the version before to events, NoPut and NoDelete suppress events, Fragment allows to split what is
	// too large, Progress asks for a report after each Tick without events.
	PrevKV, NoPut, NoDelete, Fragment, Progress bool
}

// Batch is a response with events, for each of the watchers that it names.
type Batch struct {
	IDs []int64
	// Revision is not below the revision of any event of the batch, and everything up to it that concerns these
	// watchers has been sent or is in the batch.
	Revision int64
	// Events holds one encoded field "events" of WatchResponse each. The bytes are shared and must not be changed;
	// they stay valid after the call, which the slices, and the Batch itself, do not.
	Events [][]byte
	// Fragment tells that the watchers take the events of a batch in several responses.
	Fragment bool
}

// Sink is where a stream's responses go. Its methods are called from Step, one at a time; they may block, and an error
// of theirs ends the step and is returned by it.
type Sink interface {
	Events(b *Batch) error
	// Progress tells the watcher id, or all watchers of the stream when id is AllWatchers, that all events up to the
	// revision have been sent.
	Progress(id, revision int64) error
	// Compacted tells the end of a watcher that needs events below the compact revision.
	Compacted(id, compactRevision int64) error
}

// AllWatchers is the id of a progress report on behalf of all watchers of a stream.
const AllWatchers = -1

// Stream is a set of watchers that share one way out. It is owned by one goroutine: only Ready's channel may be used by
// others. It holds no goroutine; Close lets the hub forget it.
type Stream struct {
	hub      *Hub
	watchers map[int64]*watcher
	live     map[Range]*group
	nextID   int64

	lagging  []*group
	laggards index // of the lagging groups
	turn     int   // index in lagging of the group whose turn is next

	progress int   // unanswered requests for a report on all watchers
	asked    int64 // what was published at the last of them
	tick     bool  // reports are due to watchers that were sent nothing
	ticking  int   // watchers that asked for periodic reports
	closed   bool

	ready   chan struct{} // capacity 1, so that a signal during a step is not lost
	touched bool          // owned by the dispatcher

	mu    sync.Mutex
	queue *queue // protected by mu; nil when there is nothing in it
	lost  []loss // protected by mu
}

// delivery is an event on its way to a live group.
type delivery struct {
	group *group
	rev   state.Revision
}

// queue is a list of deliveries whose revisions never fall.
type queue struct{ list []delivery }

func (q *queue) deliveries() []delivery {
	if q == nil {
		return nil
	}
	return q.list
}

// recycle keeps an empty queue for any stream that needs one.
func (h *Hub) recycle(q *queue) {
	if q != nil {
		clear(q.list)
		q.list = q.list[:0]
		h.queues.Put(q)
	}
}

// loss tells that a live group was not given its events from revision rev on; what is below was queued.
type loss struct {
	group *group
	rev   int64
}

// scratch is working space for a step, so that idle streams hold none.
type scratch struct {
	groups  []*group
	ids     [variants][]int64
	parts   [][]byte
	matched []*group
	batch   Batch
}

// NewStream returns a stream without watchers.
func (h *Hub) NewStream() *Stream {
	h.counts.streams.Add(1)
	return &Stream{
		hub:      h,
		watchers: make(map[int64]*watcher),
		live:     make(map[Range]*group),
		ready:    make(chan struct{}, 1),
	}
}

// Ready returns the channel that delivers a signal when Step has something to do.
func (s *Stream) Ready() <-chan struct{} { return s.ready }

// Len returns the number of watchers.
func (s *Stream) Len() int { return len(s.watchers) }

// Watchers calls fn for each watcher, in no order. fn must not add or cancel any.
func (s *Stream) Watchers(fn func(id int64, r Range)) {
	for id, w := range s.watchers {
		fn(id, w.group.rng)
	}
}

// Ticking reports whether some watcher wants Tick to be called.
func (s *Stream) Ticking() bool { return s.ticking > 0 }

// Create adds a watcher and returns its id, and the revision at which it was created: a watcher that asked for whatever
// comes next is sent everything above that revision. No event is sent for it before the next Step. The errors are
// ErrEmptyRange, ErrDuplicateID and ErrTooManyWatchers.
func (s *Stream) Create(r Request) (id, revision int64, err error) {
	if r.Range.empty() {
		return 0, 0, ErrEmptyRange
	}
	id, err = s.chooseID(r.ID)
	if err != nil {
		return 0, 0, err
	}
	if len(s.watchers) >= s.hub.streamWatchersMax {
		return 0, 0, ErrTooManyWatchers
	}
	if s.hub.counts.watchers.Add(1) > s.hub.watchersMax {
		s.hub.counts.watchers.Add(-1)
		return 0, 0, ErrTooManyWatchers
	}
	w := &watcher{id: id, floor: r.Start, progress: r.Progress, variant: variantOf(r)}
	s.watchers[id] = w
	if w.progress {
		s.ticking++
	}
	revision = s.hub.Revision()
	switch {
	case r.Start == 0:
		revision = s.goLive(r.Range, 0, w) - 1
	case r.Start <= revision || s.goLive(r.Range, r.Start, w) == 0:
		// The second condition holds when the start was in the future a moment ago and has been dispatched by now.
		s.goLag(&group{stream: s, rng: r.Range, cursor: r.Start}, w)
	}
	return id, revision, nil
}

func variantOf(r Request) variant {
	var v variant
	for _, f := range [...]struct {
		on   bool
		flag variant
	}{{r.PrevKV, wantPrev}, {r.NoPut, noPut}, {r.NoDelete, noDelete}, {r.Fragment, fragment}} {
		if f.on {
			v |= f.flag
		}
	}
	return v
}

// chooseID returns the id that was asked for, or the next free one.
func (s *Stream) chooseID(id int64) (int64, error) {
	if id != 0 {
		if s.watchers[id] != nil {
			return 0, ErrDuplicateID
		}
		return id, nil
	}
	for s.watchers[s.nextID] != nil {
		s.nextID++
	}
	id = s.nextID
	s.nextID++
	return id, nil
}

// Cancel removes a watcher; nothing is sent for it any more. It returns false when there is none of that id.
func (s *Stream) Cancel(id int64) bool {
	w := s.watchers[id]
	if w == nil {
		return false
	}
	g := w.group
	g.leave(w)
	s.dropWatcher(w)
	if len(g.watchers) > 0 {
		return true
	}
	if s.live[g.rng] == g {
		delete(s.live, g.rng)
		s.hub.detach(g)
	} else {
		s.dropLagging(g)
	}
	return true
}

// dropWatcher forgets a watcher that has left its group.
func (s *Stream) dropWatcher(w *watcher) {
	delete(s.watchers, w.id)
	s.hub.counts.watchers.Add(-1)
	if w.progress {
		s.ticking--
	}
	if len(s.watchers) == 0 {
		s.progress = 0
	}
}

// RequestProgress has the next steps report progress on all watchers, once all of them have been sent everything that
// is published now. With no watchers there is nothing to report. Requests that have to wait are answered together.
func (s *Stream) RequestProgress() {
	if len(s.watchers) == 0 {
		return
	}
	s.progress++
	s.asked = s.hub.Revision()
	s.signal()
}

// Tick has the next step report progress to each watcher that asked for it and was sent nothing since the last tick.
func (s *Stream) Tick() {
	if s.ticking > 0 {
		s.tick = true
		s.signal()
	}
}

// Close lets the hub forget the stream and its watchers. The stream must not be used any more.
func (s *Stream) Close() {
	if s.closed {
		return
	}
	s.closed = true
	groups := make([]*group, 0, len(s.live))
	for _, g := range s.live {
		groups = append(groups, g)
	}
	for chunk := range slices.Chunk(groups, detachGroupsMax) {
		s.hub.detach(chunk...)
	}
	s.hub.forget(s)
	s.hub.counts.lagging.Add(int64(-len(s.lagging)))
	s.hub.counts.watchers.Add(int64(-len(s.watchers)))
	s.hub.counts.streams.Add(-1)
}

// signal makes Ready's channel deliver.
func (s *Stream) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// goLive gives watchers, which have been sent everything below cursor, to the dispatcher. It returns the first revision
// that they will be given, which is cursor, or the one after the present revision if cursor is zero; or it returns
// zero, because events from cursor on were dispatched already.
func (s *Stream) goLive(r Range, cursor int64, watchers ...*watcher) int64 {
	if g := s.live[r]; g != nil {
		if cursor == 0 {
			cursor = s.hub.Revision() + 1
		}
		// Events above the dispatched revision cannot have been taken from the queue yet, by this goroutine, so the
		// watchers join in time for them.
		if s.hub.dispatched.Load() >= cursor {
			return 0
		}
		g.join(cursor, watchers...)
		return cursor
	}
	g := &group{stream: s, rng: r}
	cursor, ok := s.hub.attach(g, cursor)
	if !ok {
		return 0
	}
	g.join(cursor, watchers...)
	s.live[r] = g
	return cursor
}

// goLag has watchers read for themselves, as the new group g with the cursor that it has.
func (s *Stream) goLag(g *group, watchers ...*watcher) {
	g.join(0, watchers...)
	s.laggards.add(g)
	s.lagging = append(s.lagging, g)
	s.hub.counts.lagging.Add(1)
	s.signal()
}

// dropLagging forgets a lagging group.
func (s *Stream) dropLagging(g *group) {
	i := slices.Index(s.lagging, g)
	s.lagging = slices.Delete(s.lagging, i, i+1)
	if s.turn > i {
		s.turn--
	}
	s.laggards.remove(g)
	s.hub.counts.lagging.Add(-1)
}

// push queues an event for a live group. Called by the dispatcher.
func (s *Stream) push(d delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case d.group.lost:
	case len(s.queue.deliveries()) >= s.hub.limits.queueEvents:
		d.group.lost = true
		s.lost = append(s.lost, loss{group: d.group, rev: d.rev.Main})
	default:
		if s.queue == nil {
			s.queue = s.hub.queues.Get().(*queue)
		}
		s.queue.list = append(s.queue.list, d)
	}
}

// lose notes that events from rev on will not be queued for a live group. Called by the dispatcher.
func (s *Stream) lose(g *group, rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !g.lost {
		g.lost = true
		s.lost = append(s.lost, loss{group: g, rev: rev})
	}
}
