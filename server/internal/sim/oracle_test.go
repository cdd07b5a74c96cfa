package sim

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// caught runs fn and returns the violation in it, nil if there is none.
func caught(fn func()) (v *Violation) {
	defer func() {
		if p := recover(); p != nil {
			err, ok := p.(error)
			if !ok || !errors.As(err, &v) {
				panic(p)
			}
		}
	}()
	fn()
	return nil
}

// bench is a quiet cluster that was just started, and a truth with one key: "k" was "a" at revision 2, "b" at 3, gone
// at 4.
func bench(t *testing.T) (*sim, *node) {
	s := &sim{Options: Draw(1), load: true}
	s.rng = newRand(1)
	s.boot()
	t.Cleanup(func() {
		for _, n := range s.nodes {
			n.kill()
		}
	})
	for _, v := range []*state.Version{
		{Key: "k", Value: []byte("a"), Create: 2, Mod: 2, Count: 1},
		{Key: "k", Value: []byte("b"), Create: 2, Mod: 3, Count: 2},
		{Key: "k", Mod: 4, Deleted: true},
	} {
		s.truth.events = append(s.truth.events, state.Event{Version: v})
		s.truth.keys["k"] = append(s.truth.keys["k"], v)
	}
	s.truth.entries = []entry{{term: 2, revision: 2}, {term: 2, revision: 3}, {term: 4, revision: 4}}
	return s, s.nodes[0]
}

// TestOracles hands each oracle a good and a bad case made by hand.
func TestOracles(t *testing.T) {
	type act = func(s *sim, n *node)
	for name, c := range map[string]struct {
		oracle    string
		good, bad act
	}{
		"two leaders": {"leader",
			func(s *sim, n *node) { s.truth.leads(2, n); s.truth.leads(2, n); s.truth.leads(3, s.nodes[1]) },
			func(s *sim, n *node) { s.truth.leads(2, n); s.truth.leads(2, s.nodes[1]) }},
		"incomplete leader": {"leader",
			func(s *sim, n *node) { s.truth.elected(n, replica.Status{Term: 4, LastIndex: 3}) },
			func(s *sim, n *node) { s.truth.elected(n, replica.Status{Term: 5, LastIndex: 3}) }},
		"other entry": {"log",
			func(s *sim, n *node) { s.truth.applying(n, replica.Entry{Index: 5, Term: 4}, nil) },
			func(s *sim, n *node) { s.truth.applying(n, replica.Entry{Index: 4, Term: 3}, nil) }},
		"gap": {"log",
			func(*sim, *node) {},
			func(s *sim, n *node) { s.truth.applying(n, replica.Entry{Index: 6, Term: 4}, nil) }},
		"revision": {"state",
			func(*sim, *node) {},
			func(s *sim, n *node) { s.truth.applied(n, replica.Entry{Index: 4, Term: 4}) }},
		"digest": {"state",
			func(s *sim, n *node) { s.truth.compareDigest(n) },
			func(s *sim, n *node) { s.truth.digests[bootIndex] = [32]byte{1}; s.truth.compareDigest(n) }},
		"twice": {"ack",
			func(s *sim, n *node) { s.truth.written(value("x", "v1")) },
			func(s *sim, n *node) { s.truth.written(value("x", "v1")); s.truth.written(value("y", "v1")) }},
		"refused, then applied": {"ack",
			func(s *sim, n *node) { s.truth.wrote("v1", notApplied) },
			func(s *sim, n *node) { s.truth.wrote("v1", notApplied); s.truth.written(value("x", "v1")) }},
		"applied, then refused": {"ack",
			func(s *sim, n *node) { s.truth.written(value("x", "v1")); s.truth.wrote("v1", unknown) },
			func(s *sim, n *node) { s.truth.written(value("x", "v1")); s.truth.wrote("v1", notApplied) }},
		"acknowledged and lost": {"ack",
			func(s *sim, n *node) {
				s.truth.wrote("v1", applied)
				s.truth.written(value("x", "v1"))
				s.truth.finish()
			},
			func(s *sim, n *node) { s.truth.wrote("v1", applied); s.truth.finish() }},
		"stale answer": {"read",
			func(s *sim, n *node) { s.truth.answered(n, "k", 2, s.truth.keys["k"][0]) },
			func(s *sim, n *node) { s.truth.answered(n, "k", 3, s.truth.keys["k"][0]) }},
		"ghost": {"read",
			func(s *sim, n *node) { s.truth.answered(n, "k", 4, nil) },
			func(s *sim, n *node) { s.truth.answered(n, "k", 4, s.truth.keys["k"][1]) }},
		"read below its floor": {"read",
			func(s *sim, n *node) { n.serve(confirmed{index: 1, r: &reading{floor: 1, serve: func(*reading) {}}}) },
			func(s *sim, n *node) { n.serve(confirmed{index: 1, r: &reading{floor: 2, serve: func(*reading) {}}}) }},
		"watch skips": {"watch",
			func(s *sim, n *node) { watchAll(s, n, 0, 1, 2) },
			func(s *sim, n *node) { watchAll(s, n, 0, 2) }},
		"watch repeats": {"watch",
			func(*sim, *node) {},
			func(s *sim, n *node) { watchAll(s, n, 0, 0) }},
		"early expiry": {"lease",
			func(s *sim, n *node) { expireAfter(s, n, 1100*time.Millisecond, 2) },
			func(s *sim, n *node) { expireAfter(s, n, 900*time.Millisecond, 2) }},
		"expiry of another term": {"lease",
			func(*sim, *node) {},
			func(s *sim, n *node) { expireAfter(s, n, 2*time.Second, 3) }},
		"lock without a key": {"lock",
			func(s *sim, n *node) { s.truth.locked(1, "k", 2, 3) },
			func(s *sim, n *node) { s.truth.locked(1, "k", 2, 4) }},
		"lock behind another": {"lock",
			func(s *sim, n *node) { lockKeys(s); s.truth.locked(1, "lock/1", 2, 9) },
			func(s *sim, n *node) { lockKeys(s); s.truth.locked(1, "lock/2", 5, 9) }},
		"tokens fall": {"lock",
			func(s *sim, n *node) {
				s.truth.locks = []acquisition{{1, 7, 9}, {2, 5, 8}}
				s.truth.finish()
			},
			func(s *sim, n *node) {
				s.truth.locks = []acquisition{{1, 7, 8}, {2, 5, 9}}
				s.truth.finish()
			}},
		"guarded writes fall": {"lock",
			func(s *sim, n *node) {
				s.truth.written(value(resourceKey, "5"))
				s.truth.written(value(resourceKey, "5"))
			},
			func(s *sim, n *node) {
				s.truth.written(value(resourceKey, "5"))
				s.truth.written(value(resourceKey, "4"))
			}},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := bench(t)
			require.Nil(t, caught(func() { c.good(s, n) }))
			s, n = bench(t)
			v := caught(func() { c.bad(s, n) })
			require.NotNil(t, v)
			require.Equal(t, c.oracle, v.Oracle)
		})
	}
}

func value(key, v string) *state.Version {
	return &state.Version{Key: key, Value: []byte(v), Create: 9, Mod: 9, Count: 1}
}

func watchAll(s *sim, n *node, events ...int) {
	w := &watcher{s: s, node: n}
	for _, i := range events {
		w.take(s.truth.events[i].Version, nil)
	}
}

// expireAfter has the leader of term 2 decide on a lease of one second some time after it was renewed, and applies an
// entry of a term that says so.
func expireAfter(s *sim, n *node, d time.Duration, term uint64) {
	n.rate = 1
	s.truth.leads(2, n)
	s.truth.leads(3, n)
	s.truth.ttls[7] = 1
	s.now = 10 * time.Second
	s.truth.renewed(7, s.now)
	s.now += d
	s.truth.expiring(2, []int64{7})
	s.truth.expired(term, 7)
}

func lockKeys(s *sim) {
	for key, create := range map[string]int64{"lock/1": 2, "lock/2": 5} {
		s.truth.keys[key] = []*state.Version{{Key: key, Create: create, Mod: create, Count: 1}}
	}
}

// TestHistoryOracle hands porcupine's model histories that can and that can not be.
func TestHistoryOracle(t *testing.T) {
	put := func(v string, call, ret time.Duration) *operation {
		return &operation{kind: opPut, key: "k", value: v, call: call, ret: ret, known: true}
	}
	get := func(v string, call, ret time.Duration) *operation {
		return &operation{kind: opGet, key: "k", got: v, found: v != "", call: call, ret: ret, known: true}
	}
	swap := func(old, v string, held bool, call, ret time.Duration) *operation {
		return &operation{kind: opSwap, key: "k", old: old, value: v, found: held, call: call, ret: ret, known: true}
	}
	lostPut := put("b", 3, never)
	lostPut.known = false
	for name, c := range map[string]struct {
		ops  []*operation
		good bool
	}{
		"in order":          {[]*operation{put("a", 1, 2), get("a", 3, 4)}, true},
		"stale":             {[]*operation{put("a", 1, 2), put("b", 3, 4), get("a", 5, 6)}, false},
		"concurrent":        {[]*operation{put("a", 1, 2), put("b", 3, 6), get("a", 4, 5)}, true},
		"back and forth":    {[]*operation{put("a", 1, 2), put("b", 3, 9), get("b", 4, 5), get("a", 6, 7)}, false},
		"swap on the wrong": {[]*operation{put("a", 1, 2), swap("b", "c", true, 3, 4)}, false},
		"swap refused":      {[]*operation{put("a", 1, 2), swap("a", "c", false, 3, 4)}, false},
		"swap":              {[]*operation{put("a", 1, 2), swap("a", "c", true, 3, 4), get("c", 5, 6)}, true},
		"uncertain, seen":   {[]*operation{put("a", 1, 2), lostPut, get("a", 4, 5), get("b", 6, 7)}, true},
		"uncertain, unseen": {[]*operation{put("a", 1, 2), lostPut, get("b", 4, 5), get("a", 6, 7)}, false},
		"deleted": {[]*operation{
			put("a", 1, 2), {kind: opDelete, key: "k", call: 3, ret: 4, known: true}, get("a", 5, 6),
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := bench(t)
			s.history = c.ops
			s.truth.values["b"] = 1
			v := caught(s.checkHistory)
			require.Equal(t, c.good, v == nil)
			require.Zero(t, s.counts.Undecided)
		})
	}
}
