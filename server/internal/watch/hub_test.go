package watch

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// consume runs a stream until a batch brings the event of the key "end" to the watcher last, or until the context ends.
func consume(ctx context.Context, s *Stream, sink Sink, ended func() bool) error {
	for {
		more, err := s.Step(sink)
		if err != nil || ended() {
			return err
		}
		if more {
			continue
		}
		select {
		case <-s.Ready():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watching is a stream on a goroutine of its own, with what came of it.
type watching struct {
	stream *Stream
	sink   record
	from   map[int64]int64 // first revision by watcher
	ranges map[int64]Range
}

var watchedRanges = []Range{
	{Start: "k/1"}, {Start: "k/", End: "k0"}, {Start: "k/3", End: fromKey}, {Start: "k/2", End: "k/7"},
}

// create adds a watcher that starts in the present, the past or the future, and steps once.
func (w *watching) create(n int) error {
	start := int64(0)
	switch n % 3 {
	case 1:
		start = max(1, w.stream.hub.Revision()-int64(50*n))
	case 2:
		start = w.stream.hub.Revision() + int64(10*n)
	}
	rng := watchedRanges[n%len(watchedRanges)]
	id, revision, err := w.stream.Create(Request{Range: rng, Start: start, PrevKV: n%2 == 0})
	if err != nil {
		return err
	}
	if start == 0 {
		start = revision + 1
	}
	w.from[id], w.ranges[id] = start, rng
	_, err = w.stream.Step(&w.sink)
	return err
}

// run creates watchers and steps until the key "end" was written.
func (w *watching) run(ctx context.Context, first int, in *world, started chan<- struct{}, written <-chan struct{}) error {
	defer w.stream.Close()
	for n := range 12 {
		if err := w.create(first + n); err != nil {
			return err
		}
		if n == 0 {
			started <- struct{}{}
		}
	}
	const last = 100
	if _, _, err := w.stream.Create(Request{ID: last, Range: Range{Start: "end"}, Start: 1}); err != nil {
		return err
	}
	err := consume(ctx, w.stream, &w.sink, func() bool {
		return slices.ContainsFunc(w.sink.responses, func(r response) bool { return r.id == last })
	})
	if err != nil {
		return err
	}
	// One watcher has seen the end, but others may lag.
	<-written
	return consume(ctx, w.stream, &w.sink, func() bool {
		got := w.got()
		for id := range w.from {
			if len(got[id]) < len(w.want(id, in)) {
				return false
			}
		}
		return true
	})
}

// Streams on goroutines of their own, with a dispatcher and an applier that never wait for them: each watcher is sent
// what a replay says. Watchers are created while events flow, from the past, the present and the future.
func TestConcurrentStreams(t *testing.T) {
	w := newWorld(1<<20, nil)
	defer w.hub.Close()
	const writes, streams = 1500, 8
	all := make([]*watching, streams)
	failed := make(chan error, streams)
	started, written := make(chan struct{}, streams), make(chan struct{})
	for i := range all {
		all[i] = &watching{stream: w.hub.NewStream(), from: map[int64]int64{}, ranges: map[int64]Range{}}
		go func() { failed <- all[i].run(t.Context(), i, w, started, written) }()
	}
	for range streams {
		<-started
	}
	for n := range writes {
		key := fmt.Sprintf("k/%d", n%9)
		switch n % 10 {
		case 7:
			w.apply(del(key, ""), txn(put("k/1", "x"), put("k/4", "y")))
		default:
			w.apply(put(key, "value"))
		}
	}
	w.apply(txn(put("end", ""), put("k/4", "the last")))
	close(written)
	for range streams {
		require.NoError(t, <-failed)
	}
	for _, stream := range all {
		stream.check(t, w)
	}
}

// check compares what each watcher was sent with the account.
func (w *watching) check(t *testing.T, in *world) {
	got := w.got()
	for id, start := range w.from {
		want := w.want(id, in)
		require.True(t, slices.Equal(want, got[id]), "watcher %d from %d: %d events, want %d", id, start, len(got[id]), len(want))
	}
}

// got is what was sent, by watcher.
func (w *watching) got() map[int64][]string {
	got := map[int64][]string{}
	for _, r := range w.sink.responses {
		for _, e := range r.events {
			got[r.id] = append(got[r.id], fmt.Sprintf("%d %s %v", e.Kv.ModRevision, e.Kv.Key, e.Type))
		}
	}
	return got
}

// want is what the account says that a watcher is sent.
func (w *watching) want(id int64, in *world) (want []string) {
	m := &model{world: in}
	for _, c := range m.wanted(&shadow{request: Request{Range: w.ranges[id]}, from: w.from[id]}, in.revision()) {
		typ := "PUT"
		if c.del {
			typ = "DELETE"
		}
		want = append(want, fmt.Sprintf("%d %s %s", c.rev, c.kv.Key, typ))
	}
	return want
}

// A stream is woken by an event of interest and by nothing else.
func TestWakeUps(t *testing.T) {
	w := newWorld(0, smallLimits())
	s := w.hub.NewStream()
	defer s.Close()
	for _, rng := range []Range{{Start: "a"}, {Start: "p/", End: "p0"}, {Start: "x", End: "y"}} {
		_, _, err := s.Create(Request{Range: rng})
		require.NoError(t, err)
	}
	woken := func(c state.Command) bool {
		w.apply(c)
		w.hub.dispatchAll()
		select {
		case <-s.Ready():
			require.NoError(t, settle(s, &record{}))
			return true
		default:
			return false
		}
	}
	require.True(t, woken(put("a", "")))
	require.True(t, woken(put("p/1", "")))
	require.True(t, woken(put("p/", "")))
	require.True(t, woken(put("x", "")))
	require.True(t, woken(del("a", "b")))
	for _, key := range []string{"A", "aa", "p", "p0", "y", "w"} {
		require.False(t, woken(put(key, "")), key)
	}
	require.True(t, s.Cancel(0))
	require.False(t, woken(put("a", "")))
}

// Without live watchers nobody is woken, and the events that passed meanwhile are not walked through later.
func TestPublishWithoutWatchers(t *testing.T) {
	w := newWorld(0, smallLimits())
	w.apply(put("a", "1"))
	require.Empty(t, w.hub.wake)
	s := w.hub.NewStream()
	defer s.Close()
	_, revision, err := s.Create(Request{Range: Range{Start: "a"}})
	require.NoError(t, err)
	require.Equal(t, int64(2), revision)
	require.Equal(t, int64(2), w.hub.dispatched.Load())
	w.apply(put("a", "2"))
	require.Len(t, w.hub.wake, 1)
}

// A revision of which only a part is queued is not sent, and neither is what is queued behind it.
func TestHalfARevisionIsNotSent(t *testing.T) {
	w := newWorld(0, smallLimits())
	s := w.hub.NewStream()
	defer s.Close()
	_, _, err := s.Create(Request{Range: Range{Start: "a", End: "z"}})
	require.NoError(t, err)
	w.apply(put("b", ""))
	w.apply(txn(put("c", ""), put("d", "")))
	g := s.live[Range{Start: "a", End: "z"}]
	var events []delivery
	for e := range w.machine.History().From(2) {
		w.hub.cache.intern(e)
		events = append(events, delivery{group: g, rev: e.Version.Revision()})
	}
	var sink record
	s.push(events[0])
	s.push(events[1])
	w.hub.dispatched.Store(2)
	require.NoError(t, settle(s, &sink))
	require.Len(t, sink.responses, 1)
	require.Equal(t, int64(2), sink.responses[0].revision)
	require.Len(t, sink.take()[0].events, 1)

	s.push(events[2])
	w.hub.dispatched.Store(3)
	require.NoError(t, settle(s, &sink))
	require.Len(t, sink.responses, 1)
	require.Len(t, sink.take()[0].events, 2)
}

// When a queue overflows in the middle of a revision, that revision is read again as a whole.
func TestOverflowInsideARevision(t *testing.T) {
	limits := smallLimits()
	limits.queueEvents = 2
	w := newWorld(0, limits)
	s := w.hub.NewStream()
	defer s.Close()
	_, _, err := s.Create(Request{Range: Range{Start: "a", End: "z"}})
	require.NoError(t, err)
	w.apply(put("b", ""), txn(put("c", ""), put("d", ""), put("e", "")), put("f", ""))
	w.hub.dispatchAll()
	var sink record
	more, err := s.Step(&sink)
	require.NoError(t, err)
	require.False(t, more)
	var sizes []int
	for _, r := range sink.responses {
		sizes = append(sizes, len(r.events))
	}
	require.Equal(t, []int{1, 4}, sizes)
	require.NoError(t, w.hub.check(s))
}

// A stream that is not stepped holds a bounded number of references, and the events behind them are given up.
func TestStalledStreamIsBounded(t *testing.T) {
	limits := smallLimits()
	w := newWorld(0, limits)
	s := w.hub.NewStream()
	defer s.Close()
	_, _, err := s.Create(Request{Range: Range{Start: "a", End: "z"}})
	require.NoError(t, err)
	for range 200 {
		w.apply(put("b", "value"))
	}
	w.hub.dispatchAll()
	require.Len(t, s.queue.list, limits.queueEvents)
	require.LessOrEqual(t, w.hub.cache.bytes, limits.cacheBytes)
	for _, d := range s.queue.list {
		require.Nil(t, w.hub.cache.find(d.rev), "newer events have taken its place")
	}
	var sink record
	require.NoError(t, settle(s, &sink))
	events := 0
	for _, r := range sink.responses {
		events += len(r.events)
	}
	require.Equal(t, 200, events)
	require.Nil(t, s.queue)
}

// An error of the sink or of the archive ends the step that met it.
func TestErrorsEndTheStep(t *testing.T) {
	w := newWorld(1000, smallLimits())
	s := w.hub.NewStream()
	defer s.Close()
	_, _, err := s.Create(Request{Range: Range{Start: "a"}, Progress: true})
	require.NoError(t, err)
	sink := record{err: errBroken}
	w.apply(put("a", ""))
	w.hub.dispatchSome()
	_, err = s.Step(&sink)
	require.ErrorIs(t, err, errBroken)
	s.RequestProgress()
	_, err = s.Step(&sink)
	require.ErrorIs(t, err, errBroken)
	s.Tick()
	s.Tick()
	_, err = s.Step(&sink)
	require.ErrorIs(t, err, errBroken)

	w.compact(2)
	_, _, err = s.Create(Request{Range: Range{Start: "b"}, Start: 1})
	require.NoError(t, err)
	_, err = s.Step(&sink)
	require.ErrorIs(t, err, errBroken)

	for range 600 {
		w.apply(put("a", "value"))
	}
	w.checkpoint(0)
	_, _, err = s.Create(Request{Range: Range{Start: "a"}, Start: 3})
	require.NoError(t, err)
	w.archive.err = errBroken
	_, err = s.Step(&record{})
	require.ErrorIs(t, err, errBroken)
	require.ErrorContains(t, err, "read events 3-7")
}

func TestBoundsOnWatchers(t *testing.T) {
	w := newWorld(0, smallLimits())
	w.hub.watchersMax, w.hub.streamWatchersMax = 5, 3
	a, b := w.hub.NewStream(), w.hub.NewStream()
	defer a.Close()
	create := func(s *Stream) error {
		_, _, err := s.Create(Request{Range: Range{Start: "a"}})
		return err
	}
	for range 3 {
		require.NoError(t, create(a))
	}
	require.ErrorIs(t, create(a), ErrTooManyWatchers)
	require.NoError(t, create(b))
	require.NoError(t, create(b))
	require.ErrorIs(t, create(b), ErrTooManyWatchers)
	require.True(t, a.Cancel(1))
	require.NoError(t, create(b))
	b.Close()
	require.NoError(t, create(a))
	_, _, err := a.Create(Request{Range: Range{Start: "b", End: "a"}})
	require.ErrorIs(t, err, ErrEmptyRange)
	require.Equal(t, Stats{Streams: 1, Watchers: 3}, w.hub.Stats())
}

// Progress that has to wait for the dispatcher, or for a start in the future, is reported as soon as it can be, without
// an event of interest.
func TestProgressWaits(t *testing.T) {
	w := newWorld(0, smallLimits())
	s := w.hub.NewStream()
	defer s.Close()
	_, _, err := s.Create(Request{Range: Range{Start: "a"}})
	require.NoError(t, err)
	w.apply(put("b", ""))
	_, revision, err := s.Create(Request{Range: Range{Start: "a"}})
	require.NoError(t, err)
	require.Equal(t, int64(2), revision)
	require.Equal(t, int64(1), w.hub.dispatched.Load())

	var sink record
	s.RequestProgress()
	<-s.Ready()
	require.NoError(t, settle(s, &sink))
	require.Empty(t, sink.responses, "revision 1 is below what the second watcher was told")
	w.hub.dispatchSome()
	<-s.Ready()
	require.NoError(t, settle(s, &sink))
	require.Equal(t, []response{{id: AllWatchers, revision: 2}}, sink.take())

	_, _, err = s.Create(Request{Range: Range{Start: "c"}, Start: 4})
	require.NoError(t, err)
	s.RequestProgress()
	s.RequestProgress()
	<-s.Ready()
	require.NoError(t, settle(s, &sink))
	w.apply(put("b", ""))
	w.hub.dispatchSome()
	require.NoError(t, settle(s, &sink))
	require.Empty(t, sink.responses, "revision 3 is below the start")
	w.apply(put("b", ""))
	w.hub.dispatchSome()
	<-s.Ready()
	require.NoError(t, settle(s, &sink))
	require.Equal(t, []response{{id: AllWatchers, revision: 4}}, sink.take(), "one answer for requests that waited")
	require.Empty(t, w.hub.waiting)
}

// A report is on all that was published when it was asked for, so that who has been answered a write and then asks sees
// that write behind him.
func TestProgressIsOfTheRequest(t *testing.T) {
	w := newWorld(0, smallLimits())
	s := w.hub.NewStream()
	defer s.Close()
	_, _, err := s.Create(Request{Range: Range{Start: "a"}})
	require.NoError(t, err)
	w.hub.mu.Lock() // so that publishing leaves the rest to the dispatcher
	w.apply(put("b", ""))
	w.hub.mu.Unlock()
	require.Equal(t, int64(1), w.hub.dispatched.Load())

	var sink record
	s.RequestProgress()
	require.NoError(t, settle(s, &sink))
	require.Empty(t, sink.responses)
	w.hub.dispatchSome()
	<-s.Ready()
	require.NoError(t, settle(s, &sink))
	require.Equal(t, []response{{id: AllWatchers, revision: 2}}, sink.take())
	require.Empty(t, w.hub.waiting)
}

// Requests that need not wait have an answer each.
func TestProgressAnswersEach(t *testing.T) {
	w := newWorld(0, smallLimits())
	s := w.hub.NewStream()
	defer s.Close()
	var sink record
	s.RequestProgress()
	require.NoError(t, settle(s, &sink))
	require.Empty(t, sink.responses, "no watchers")
	_, _, err := s.Create(Request{Range: Range{Start: "a"}})
	require.NoError(t, err)
	s.RequestProgress()
	s.RequestProgress()
	require.NoError(t, settle(s, &sink))
	require.Equal(t, []response{{id: AllWatchers, revision: 1}, {id: AllWatchers, revision: 1}}, sink.responses)
}

// A tick reports to those that were sent nothing since the last one.
func TestTick(t *testing.T) {
	w := newWorld(0, smallLimits())
	s := w.hub.NewStream()
	defer s.Close()
	require.False(t, s.Ticking())
	for _, key := range []string{"a", "b"} {
		_, _, err := s.Create(Request{Range: Range{Start: key}, Progress: true})
		require.NoError(t, err)
	}
	_, _, err := s.Create(Request{Range: Range{Start: "a"}})
	require.NoError(t, err)
	require.True(t, s.Ticking())
	var sink record
	w.apply(put("a", ""))
	w.hub.dispatchSome()
	require.NoError(t, settle(s, &sink))
	sink.take()
	s.Tick()
	require.NoError(t, settle(s, &sink))
	require.Equal(t, []response{{id: 1, revision: 2}}, sink.take())
	s.Tick()
	require.NoError(t, settle(s, &sink))
	require.ElementsMatch(t, []response{{id: 0, revision: 2}, {id: 1, revision: 2}}, sink.take())
}

// Several lagging groups share a turn, and one that is far behind does not keep the others from the present.
func TestLaggardsAreServedInTurn(t *testing.T) {
	limits := smallLimits()
	w := newWorld(0, limits)
	for range 100 {
		w.apply(put("a", ""), put("b", ""))
	}
	now := w.machine.Revision()
	s := w.hub.NewStream()
	defer s.Close()
	for _, start := range []int64{2, 2, now - 3} {
		for _, key := range []string{"a", "b"} {
			_, _, err := s.Create(Request{Range: Range{Start: key}, Start: start})
			require.NoError(t, err)
		}
	}
	steps, recent := 0, 0
	for {
		more, err := s.Step(&record{})
		require.NoError(t, err)
		steps++
		if recent == 0 && len(s.lagging) == 4 {
			recent = steps
		}
		if !more {
			break
		}
	}
	require.NotZero(t, recent)
	require.LessOrEqual(t, recent, 6, "the two that are near had their turn")
	require.LessOrEqual(t, steps, int(now/limits.turnRevisions)+8, "the four that are far read together")
	require.NoError(t, w.hub.check(s))
}

// What a reader of the archive found while a compaction removed some of it is not sent: it does not know what it missed.
func TestCompactedWhileReading(t *testing.T) {
	limits := smallLimits()
	limits.turnRevisions = 1000
	w := newWorld(1000, limits)
	w.apply(put("a", "1"), put("b", "kept"), put("a", "2"), put("a", "3"))
	for range 600 {
		w.apply(put("c", "filler"))
	}
	w.checkpoint(0)
	s := w.hub.NewStream()
	defer s.Close()
	_, _, err := s.Create(Request{Range: Range{Start: "a", End: "c"}, Start: 2})
	require.NoError(t, err)
	w.archive.during = func() {
		w.compact(5)
		w.checkpoint(1000)
	}
	var sink record
	require.NoError(t, settle(s, &sink))
	require.Equal(t, []response{{compact: 5}}, sink.responses)
}

// The archive is asked for no more than memory lacks, since it may lack what memory has.
func TestArchiveEndsWhereMemoryBegins(t *testing.T) {
	limits := smallLimits()
	limits.turnRevisions = 1000
	w := newWorld(1000, limits)
	for range 256 {
		w.apply(put("a", "value"))
	}
	w.checkpoint(0)
	for range 256 {
		w.apply(put("a", "value"))
	}
	require.Equal(t, int64(258), w.machine.History().First())
	s := w.hub.NewStream()
	defer s.Close()
	_, _, err := s.Create(Request{Range: Range{Start: "a"}, Start: 2})
	require.NoError(t, err)
	var sink record
	require.NoError(t, settle(s, &sink))
	next := int64(2)
	for _, r := range sink.responses {
		for _, e := range r.events {
			require.Equal(t, next, e.Kv.ModRevision)
			next++
		}
	}
	require.Equal(t, w.machine.Revision()+1, next)
}

// A group does not go live for events that have been dispatched without it, though they may have come after it looked.
func TestNoGapOnGoingLive(t *testing.T) {
	w := newWorld(0, smallLimits())
	s := w.hub.NewStream()
	defer s.Close()
	watched := Range{Start: "a"}
	_, _, err := s.Create(Request{Range: watched})
	require.NoError(t, err)
	w.apply(put("a", ""), put("a", ""))
	w.hub.dispatchAll()
	for _, rng := range []Range{watched, {Start: "b"}} {
		require.Zero(t, s.goLive(rng, 3, &watcher{}))
		require.Equal(t, int64(4), s.goLive(rng, 4, &watcher{}))
	}
}

// Closing twice, in any state, is harmless, and a closed hub leaves streams as they are.
func TestClose(t *testing.T) {
	w := newWorld(0, nil)
	s := w.hub.NewStream()
	_, _, err := s.Create(Request{Range: Range{Start: "a"}})
	require.NoError(t, err)
	w.hub.Close()
	w.hub.Close()
	w.apply(put("a", ""))
	require.NoError(t, settle(s, &record{}))
	s.Close()
	s.Close()
	require.NoError(t, w.hub.check())
}
