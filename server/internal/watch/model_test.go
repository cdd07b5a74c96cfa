package watch

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// smallLimits make every bound bite within a few dozen events.
func smallLimits() *limits {
	return &limits{
		dispatchWork: 7, cacheBytes: 4000, cacheEvents: 16, queueEvents: 9, batchBytes: 400, turnRevisions: 5,
	}
}

// shadow is what the model knows of one watcher.
type shadow struct {
	request  Request
	from     int64 // first revision to be sent
	position int64 // everything of interest up to here was sent, by what the stream said
	events   []*mvccpb.Event
	ended    bool
}

// modelStream is a stream with what the model knows of it.
type modelStream struct {
	*Stream
	sink    record
	shadows map[int64]*shadow
	asked   int  // progress requests, less the answers; requests that wait may share one
	waiting bool // no answer since the last request
}

type model struct {
	*world
	streams []*modelStream
	seen    map[string]int // what happened, so that a quiet run does not pass
}

// wanted returns the changes that a watcher is to be sent in from..to.
func (m *model) wanted(sh *shadow, to int64) []change {
	var all []change
	for _, c := range m.log {
		if c.rev < sh.from || c.rev > to || !sh.request.Range.holds(string(c.kv.Key)) {
			continue
		}
		if (c.del && sh.request.NoDelete) || (!c.del && sh.request.NoPut) {
			continue
		}
		all = append(all, c)
	}
	return all
}

// complete checks that the watcher was sent exactly what it is to be sent up to revision to.
func (m *model) complete(t require.TestingT, sh *shadow, to int64) {
	want := m.wanted(sh, to)
	require.Len(t, sh.events, len(want), "watcher %+v up to %d", sh.request, to)
	for i, c := range want {
		got := sh.events[i]
		require.Equal(t, c.del, got.Type == mvccpb.Event_DELETE)
		require.True(t, proto.Equal(c.kv, got.Kv), "got %v, want %v", got.Kv, c.kv)
		switch {
		case !sh.request.PrevKV || c.prev == nil:
			require.Nil(t, got.PrevKv)
		case got.PrevKv == nil:
			require.Less(t, c.rev-1, m.machine.CompactRevision(), "the previous version may be missing only when compacted")
			m.seen["previous version compacted"]++
		default:
			require.True(t, proto.Equal(c.prev, got.PrevKv), "got %v, want %v", got.PrevKv, c.prev)
		}
	}
}

// judge checks all that a stream sent since the last time.
func (m *model) judge(t require.TestingT, s *modelStream) {
	for _, r := range s.sink.take() {
		if r.id == AllWatchers {
			require.Positive(t, s.asked)
			s.asked--
			s.waiting = false
			require.NotEmpty(t, s.shadows)
			for _, sh := range s.shadows {
				m.progress(t, sh, r.revision)
			}
			m.seen["progress of all"]++
			continue
		}
		sh := s.shadows[r.id]
		require.NotNil(t, sh, "response %+v to no watcher", r)
		require.False(t, sh.ended)
		switch {
		case r.compact != 0:
			require.LessOrEqual(t, r.compact, m.machine.CompactRevision())
			require.Less(t, max(sh.from, sh.position+1), r.compact, "only who needs what was compacted is cancelled")
			delete(s.shadows, r.id)
			m.seen["compacted"]++
		case len(r.events) == 0:
			require.True(t, sh.request.Progress)
			m.progress(t, sh, r.revision)
			m.seen["progress of one"]++
		default:
			require.Equal(t, sh.request.Fragment, r.fragment)
			require.Greater(t, r.events[0].Kv.ModRevision, sh.position, "a revision in two responses, or out of order")
			sh.events = append(sh.events, r.events...)
			sh.position = r.revision
			m.complete(t, sh, r.revision)
			if len(r.events) > 1 {
				m.seen["batches"]++
			}
		}
	}
}

func (m *model) progress(t require.TestingT, sh *shadow, rev int64) {
	require.GreaterOrEqual(t, rev, sh.position, "progress goes back")
	require.GreaterOrEqual(t, rev, sh.request.Start, "progress before the start")
	sh.position = max(sh.position, rev)
	m.complete(t, sh, rev)
}

var modelKeys = []string{"a", "a\xff", "a\xff\xff", "b", "b/1", "b/2", "b/3", "c", "c0", "d"}

func drawRange(t *rapid.T) Range {
	return rapid.SampledFrom([]Range{
		{Start: "a"}, {Start: "b/1"}, {Start: "c"}, {Start: "nothing"},
		{Start: "b/", End: "b0"}, {Start: "b", End: "c"}, {Start: "a\xff", End: "b"}, {Start: "c", End: "d"},
		{Start: "a", End: "b/2"}, {Start: "b/2", End: "c0"}, {Start: "b", End: fromKey}, {Start: fromKey, End: fromKey},
	}).Draw(t, "range")
}

func drawCommand(t *rapid.T) state.Command {
	key := rapid.SampledFrom(modelKeys)
	value := rapid.SampledFrom([]string{"", "v", "a longer value that fills a batch a little faster than the others do"})
	switch rapid.IntRange(0, 9).Draw(t, "command") {
	case 0:
		return del(key.Draw(t, "key"), "")
	case 1:
		r := drawRange(t)
		return del(r.Start, r.End)
	case 2, 3:
		keys := rapid.SliceOfNDistinct(key, 1, 4, rapid.ID).Draw(t, "keys")
		var ops []state.Command
		for i, k := range keys {
			if i == 0 && len(keys) > 2 {
				ops = append(ops, del(k, ""))
				continue
			}
			ops = append(ops, put(k, value.Draw(t, "value")))
		}
		return txn(ops...)
	default:
		return put(key.Draw(t, "key"), value.Draw(t, "value"))
	}
}

func (m *model) create(t *rapid.T, s *modelStream) {
	now := m.machine.Revision()
	r := Request{
		ID:       rapid.SampledFrom([]int64{0, 0, 0, 3, 4}).Draw(t, "id"),
		Range:    drawRange(t),
		Start:    max(0, rapid.SampledFrom([]int64{0, 0, now + 1, now + 4, now, now - 3, now - 30, 1}).Draw(t, "start")),
		PrevKV:   rapid.Bool().Draw(t, "prev"),
		Progress: rapid.Bool().Draw(t, "progress"),
		Fragment: rapid.Bool().Draw(t, "fragment"),
	}
	switch rapid.IntRange(0, 5).Draw(t, "filter") {
	case 0:
		r.NoPut = true
	case 1:
		r.NoDelete = true
	}
	id, revision, err := s.Create(r)
	if r.ID != 0 && s.shadows[r.ID] != nil {
		require.ErrorIs(t, err, ErrDuplicateID)
		return
	}
	require.NoError(t, err)
	require.Nil(t, s.shadows[id])
	require.Equal(t, now, revision)
	from := r.Start
	if from == 0 {
		from = now + 1
	}
	s.shadows[id] = &shadow{request: r, from: from, position: from - 1}
}

func (m *model) act(t *rapid.T, action string) {
	s := m.streams[rapid.IntRange(0, len(m.streams)-1).Draw(t, "stream")]
	switch action {
	case "apply":
		var commands []state.Command
		for range rapid.IntRange(1, 6).Draw(t, "commands") {
			commands = append(commands, drawCommand(t))
		}
		m.apply(commands...)
	case "install":
		if rapid.IntRange(0, 4).Draw(t, "rarely") == 0 {
			m.install(drawCommand(t), drawCommand(t), drawCommand(t))
			m.seen["installs"]++
		}
	case "dispatch":
		m.hub.dispatchSome()
	case "step", "compact while reading":
		if action != "step" {
			m.archive.during = func() {
				m.compactBehind(0)
				m.checkpoint(1000)
				m.seen["compacted while reading"]++
			}
		}
		before := m.hub.live.size
		_, err := s.Step(&s.sink)
		require.NoError(t, err)
		m.archive.during = nil
		if m.hub.live.size < before {
			m.seen["lagged again"]++
		}
	case "checkpoint":
		m.checkpoint(rapid.IntRange(0, 50).Draw(t, "sweep"))
	case "shrink":
		m.shrink()
	case "compact":
		m.compactBehind(rapid.Int64Range(0, 60).Draw(t, "behind"))
	case "create":
		m.create(t, s)
	case "cancel":
		id := rapid.Int64Range(0, 6).Draw(t, "id")
		require.Equal(t, s.shadows[id] != nil, s.Cancel(id))
		delete(s.shadows, id)
	case "progress":
		m.ask(s)
	case "tick":
		s.Tick()
	}
	m.judge(t, s)
	if len(s.shadows) == 0 {
		s.asked = 0
	}
}

// Whatever happens in whatever order, every watcher is sent what a replay of the commands says: each event of interest
// from its start on, once, in order, no revision in parts; what is claimed to be complete is; and only watchers that
// need what was compacted are cancelled. All bounds are small, so that queues overflow and the cache gives events up.
func TestModel(t *testing.T) {
	seen := map[string]int{}
	for range 3 {
		rapid.Check(t, func(t *rapid.T) { runModel(t, seen) })
	}
	for _, what := range []string{
		"progress of all", "progress of one", "compacted", "batches", "scans", "installs",
		"lagged again", "compacted while reading", "shrunk",
	} {
		require.NotZero(t, seen[what], fmt.Sprintf("no run showed: %s", what))
	}
	t.Log(seen)
}

func runModel(t *rapid.T, seen map[string]int) {
	limits := smallLimits()
	limits.publishWork = rapid.SampledFrom([]int{0, 0, 4, 40}).Draw(t, "publish work")
	m := &model{world: newWorld(1500, limits), seen: seen}
	for range 3 {
		m.streams = append(m.streams, &modelStream{Stream: m.hub.NewStream(), shadows: map[int64]*shadow{}})
	}
	actions := []string{
		"apply", "apply", "apply", "dispatch", "dispatch", "step", "step", "step", "checkpoint", "compact",
		"create", "create", "cancel", "progress", "tick", "install",
		"compact while reading", "shrink",
	}
	for i := range rapid.IntRange(10, 800).Draw(t, "actions") {
		m.act(t, rapid.SampledFrom(actions).Draw(t, "action"))
		if i%5 == 0 {
			require.NoError(t, m.hub.check(m.plain()...))
		}
	}
	m.hub.dispatchAll()
	for _, s := range m.streams {
		m.ask(s)
		require.NoError(t, settle(s.Stream, &s.sink))
		m.judge(t, s)
		future := len(s.shadows) == 0
		for _, sh := range s.shadows {
			m.complete(t, sh, m.machine.Revision())
			future = future || sh.request.Start > m.machine.Revision()
		}
		require.True(t, future || !s.waiting, "progress was asked for, and there is nothing to wait for")
		s.Close()
	}
	require.Equal(t, Stats{}, m.hub.Stats())
	require.Zero(t, m.hub.live.size)
	m.seen["scans"] += m.archive.scans
}

// shrink moves the versions and makes the window small, as a member does that has nothing else to do.
func (m *model) shrink() {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := m.machine.History().First()
	m.machine.Shrink()
	m.hub.Refresh(m.machine.History())
	m.machine.Pack("", len(modelKeys))
	if m.machine.History().First() > first {
		m.seen["shrunk"]++
	}
}

func (m *model) compactBehind(revisions int64) {
	if rev := m.machine.Revision() - revisions; rev > m.machine.CompactRevision() && rev > 0 {
		m.compact(rev)
	}
}

func (m *model) ask(s *modelStream) {
	if len(s.shadows) > 0 {
		s.asked++
		s.waiting = true
	}
	s.RequestProgress()
}

func (m *model) plain() []*Stream {
	var streams []*Stream
	for _, s := range m.streams {
		streams = append(streams, s.Stream)
	}
	return streams
}
