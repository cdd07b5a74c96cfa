package election

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// script is a history of an election named "e", a revision a step.
type script struct {
	rev  client.Revision
	live map[string]client.KV // by key
}

func (s *script) put(key, value string) client.Event {
	kv := client.KV{Key: key, Value: []byte(value), CreateRevision: s.rev, ModRevision: s.rev}
	if old, ok := s.live[key]; ok {
		kv.CreateRevision = old.CreateRevision
	}
	s.live[key] = kv
	return client.Event{Type: client.EventPut, KV: kv}
}

func (s *script) delete(key string) client.Event {
	delete(s.live, key)
	return client.Event{Type: client.EventDelete, KV: client.KV{Key: key, ModRevision: s.rev}}
}

// stand lets one of our candidates join the line.
func (s *script) stand(id string, rec record) []client.Event {
	return []client.Event{s.put("e/"+id, id), s.put("e.prio/"+id, string(encode(rec)))}
}

func (s *script) leave(id string) []client.Event {
	return []client.Event{s.delete("e/" + id), s.delete("e.prio/" + id)}
}

func (s *script) name(id string) client.Event {
	next := succession{To: id, Term: fence.Token(s.live["e/"+id].CreateRevision)}
	return s.put("e.next", string(encode(next)))
}

// Each step is one revision; wanted is who leads after it, empty for nobody.
func TestRoll(t *testing.T) {
	type step struct {
		do     func(s *script) []client.Event
		wanted string
	}
	stand := func(id string, priority int) func(*script) []client.Event {
		return func(s *script) []client.Event { return s.stand(id, record{Priority: priority}) }
	}
	etcd := func(id string) func(*script) []client.Event {
		return func(s *script) []client.Event { return []client.Event{s.put("e/"+id, "x")} }
	}
	leave := func(id string) func(*script) []client.Event {
		return func(s *script) []client.Event { return s.leave(id) }
	}
	put := func(key string) func(*script) []client.Event {
		return func(s *script) []client.Event { return []client.Event{s.put(key, "x")} }
	}
	handOver := func(from, to string) func(*script) []client.Event {
		return func(s *script) []client.Event { return append(s.leave(from), s.name(to)) }
	}
	for name, steps := range map[string][]step{
		"the line is served in order": {
			{stand("b", 0), "b"}, {stand("a", 0), "b"}, {stand("c", 0), "b"}, {leave("b"), "a"}, {leave("a"), "c"}, {leave("c"), ""},
		},
		"one who waits leaves": {
			{stand("a", 0), "a"}, {stand("b", 0), "a"}, {stand("c", 0), "a"}, {leave("b"), "a"}, {leave("a"), "c"},
		},
		"a new key of the same session goes to the tail": {
			{stand("a", 0), "a"}, {stand("b", 0), "a"}, {leave("a"), "b"}, {stand("a", 0), "b"}, {leave("b"), "a"},
		},
		"a proclaimed value changes nothing": {
			{stand("b", 0), "b"}, {stand("a", 0), "b"}, {put("e/a"), "b"}, {put("e/b"), "b"},
		},
		"who leads is not outranked by who comes": {
			{stand("a", 1), "a"}, {stand("b", 9), "a"}, {leave("b"), "a"},
		},
		"the highest priority is next, and the others pass their turns": {
			{stand("a", 0), "a"}, {stand("b", 1), "a"}, {stand("c", 3), "a"}, {stand("d", 2), "a"},
			{leave("a"), ""}, {leave("b"), "c"}, {stand("b", 1), "c"}, {leave("c"), "d"}, {leave("d"), "b"},
		},
		"equal priorities keep the line": {
			{stand("a", 0), "a"}, {stand("b", 2), "a"}, {stand("c", 2), "a"}, {leave("a"), "b"},
		},
		"the one who outranks leaves before the turn was passed": {
			{stand("a", 0), "a"}, {stand("b", 1), "a"}, {stand("c", 3), "a"}, {leave("a"), ""}, {leave("c"), "b"},
		},
		"clients of etcd pass nothing": {
			{etcd("a"), "a"}, {etcd("b"), "a"}, {stand("c", 3), "a"}, {leave("a"), "b"}, {leave("b"), "c"},
		},
		"a record without its candidate outranks nobody": {
			{stand("a", 0), "a"}, {stand("b", 0), "a"}, {func(s *script) []client.Event {
				return []client.Event{s.put("e.prio/d", string(encode(record{Priority: 9})))}
			}, "a"}, {leave("a"), "b"},
		},
		"the named one is next, before the line and its priorities": {
			{stand("a", 0), "a"}, {stand("b", 9), "a"}, {stand("c", 0), "a"}, {handOver("a", "c"), ""}, {leave("b"), "c"},
			{stand("b", 9), "c"},
		},
		"the named one is gone": {
			{stand("a", 0), "a"}, {stand("b", 0), "a"}, {stand("c", 0), "a"}, {handOver("a", "c"), ""}, {leave("c"), "b"},
		},
		"a later candidacy of the named one is not meant": {
			{stand("a", 0), "a"}, {stand("b", 0), "a"}, {stand("c", 0), "a"}, {handOver("a", "c"), ""}, {leave("c"), "b"},
			{stand("c", 0), "b"}, {stand("d", 0), "b"}, {leave("b"), "c"}, {leave("c"), "d"},
		},
		"what can not be read names nobody": {
			{stand("a", 0), "a"}, {stand("b", 0), "a"}, {put("e.next"), "a"}, {leave("a"), "b"},
		},
		"other keys are no candidates": {
			{put("e/a/1"), ""}, {put("e/xyz"), ""}, {put("e/1.2"), ""}, {put("e.other/1"), ""}, {put("e/f"), "f"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{rev: 100, live: make(map[string]client.KV)}
			r := roll{keys: "e"}
			r.load(s.rev, nil)
			require.Empty(t, r.leader)
			for i, step := range steps {
				s.rev++
				r.apply(s.rev, step.do(s))
				require.Equal(t, step.wanted, r.leader, "after step %d", i)
				require.Equal(t, s.rev, r.revision)
				require.Equal(t, s.live["e/"+r.leader].CreateRevision, r.term)
			}
			// Whoever reads the same again finds the same leader.
			again, kvs := r, make([]client.KV, 0, len(s.live))
			for _, kv := range s.live {
				kvs = append(kvs, kv)
			}
			again.load(s.rev, kvs)
			require.Equal(t, r.leader, again.leader)
			require.Equal(t, r.line(), again.line())
		})
	}
}

// A reader who does not know since when the first one is first takes it for the
// leader, even if it is outranked.
func TestRollLoadedAnew(t *testing.T) {
	s := &script{rev: 100, live: make(map[string]client.KV)}
	var kvs []client.KV
	for i, id := range []string{"b", "a"} {
		s.rev++
		for _, ev := range s.stand(id, record{ID: "node-" + id, Priority: i, Preempts: i == 1}) {
			kvs = append(kvs, ev.KV)
		}
	}
	r := roll{keys: "e"}
	r.load(s.rev, kvs)
	require.Equal(t, "b", r.leader)
	require.Equal(t, "a", r.heir("b"))
	require.Equal(t, []Candidate{
		{ID: "node-b", Term: 101, Key: "e/b", Proposal: []byte("b"), Leads: true, Ours: true},
		{ID: "node-a", Term: 102, Key: "e/a", Proposal: []byte("a"), Priority: 1, Preempts: true, Ours: true},
	}, r.line())

	// What was compacted away may hide that the leader has changed.
	r.load(200, kvs[2:])
	require.Equal(t, "a", r.leader)
	r.load(300, nil)
	require.Empty(t, r.leader)
}

func TestKeys(t *testing.T) {
	k := keys("svc/leader")
	for key, wanted := range map[string]bool{
		"svc/leader/694d7": true, "svc/leader.prio/694d7": true, "svc/leader.next": true,
		"svc/leader": false, "svc/leader/": false, "svc/leader/694d7/x": false, "svc/leader.prio/": false,
		"svc/leader.next/1": false, "svc/leader.req/7/1": false, "svc/leaders/1": false, "svc/leader/694d7.1": false,
	} {
		require.Equal(t, wanted, k.concerns(key), key)
	}
	require.Equal(t, "svc/leader.req/17/", k.requests(17))
	from, _ := k.all()
	for _, key := range []string{k.candidate("1"), k.record("1"), k.next(), k.requests(1)} {
		require.GreaterOrEqual(t, key, from)
		require.Less(t, key, "svc/leader0")
	}
	from, _ = k.beside()
	for _, key := range []string{k.record("1"), k.next(), k.requests(1) + "x"} {
		require.GreaterOrEqual(t, key, from)
		require.Less(t, key, "svc/leader.req0")
	}
	require.Greater(t, k.candidates(), "svc/leader.req0")
}
