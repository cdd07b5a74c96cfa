package lock

import (
	"flag"
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

var seed = flag.Int64("seed", 0, "of the random histories; 0 for another one each time")

// newRand returns the source of a test's choices, and says how to have them again.
func newRand(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = time.Now().UnixNano()
	}
	t.Logf("to repeat: -run '^%s$' -seed %d", t.Name(), s)
	return rand.New(rand.NewSource(s))
}

func TestModes(t *testing.T) {
	const yes, no = true, false
	for m, want := range map[Mode][]bool{
		//                write read upgradeable upgraded
		ModeWrite:       {yes, yes, yes, yes},
		ModeRead:        {yes, no, no, yes},
		ModeUpgradeable: {yes, no, yes, yes},
		ModeUpgraded:    {yes, yes, yes, yes},
	} {
		for other, excludes := range want {
			require.Equal(t, excludes, m.excludes(Mode(other)), "%v and %v", m, Mode(other))
		}
	}
}

// places makes contenders from a word: each letter is one, the oldest first.
func places(word string) []place {
	modes := map[rune]Mode{'r': ModeRead, 'w': ModeWrite, 'u': ModeUpgradeable, 'x': ModeUpgraded}
	var out []place
	for i, letter := range word {
		out = append(out, place{key: fmt.Sprint(i), mode: modes[letter], created: client.Revision(i + 1)})
	}
	return out
}

func TestBlocker(t *testing.T) {
	for _, c := range []struct {
		older string
		mode  Mode
		want  int // the blocker's index, or -1
	}{
		{"", ModeWrite, -1},
		{"", ModeRead, -1},
		{"r", ModeRead, -1},
		{"r", ModeWrite, 0},
		{"rrr", ModeWrite, 2},
		{"w", ModeRead, 0},
		{"rw", ModeRead, 1},    // a reader does not overtake a writer who waits
		{"wrr", ModeRead, 0},   // readers behind one writer wait for him, not for each other
		{"wrwrr", ModeRead, 2}, // for the last one
		{"wrwrr", ModeWrite, 4},
		{"u", ModeRead, -1},
		{"u", ModeUpgradeable, 0},
		{"u", ModeWrite, 0},
		{"ur", ModeUpgradeable, 0},
		{"uwr", ModeRead, 1},
		{"uu", ModeRead, -1},
		{"xr", ModeRead, 0},
		{"xu", ModeRead, 0},
	} {
		older := places(c.older)
		slices.Reverse(older)
		got := -1
		if p, ok := blocker(c.mode, older); ok {
			got = int(p.created) - 1
		}
		require.Equal(t, c.want, got, "%v behind %q", c.mode, c.older)
	}
}

func TestSharers(t *testing.T) {
	for _, c := range []struct {
		all  string // u becomes exclusive
		want []int
	}{
		{"u", nil},
		{"ru", []int{0}},
		{"ur", []int{1}},
		{"rrur", []int{0, 1, 3}},
		{"urwr", []int{1}},
		{"uwrr", nil},
		{"ururwr", []int{1, 3}}, // another upgradeable one waits, and lets readers pass
	} {
		all := places(c.all)
		u := all[slices.IndexFunc(all, func(p place) bool { return p.mode == ModeUpgradeable })]
		var got []int
		for _, p := range sharers(u, all) {
			got = append(got, int(p.created)-1)
		}
		require.Equal(t, c.want, got, "%q", c.all)
	}
}

// rwWorld plays a read-write lock: the keys in a store with its history, and
// clients that act on the rules alone, each at a time of its own, on the events
// that it watches. The model beside it is a queue with a list of holders.
type rwWorld struct {
	t     *testing.T
	rnd   *rand.Rand
	rev   client.Revision
	keys  []place                     // the store, the oldest first
	past  map[client.Revision][]place // the store at every revision
	who   map[string]*rwClient
	names int
}

type rwClient struct {
	key     string
	holds   bool
	waitFor string // the key that it watches
	look    bool   // something happened to that key, or it has not looked yet
	upgrade bool   // it has written that it is exclusive, and waits for sharers
	sharers []place
}

func (w *rwWorld) index(key string) int {
	return slices.IndexFunc(w.keys, func(p place) bool { return p.key == key })
}

// changed notes that the store has changed, and wakes those who watch the key.
func (w *rwWorld) changed(key string) {
	w.past[w.rev] = slices.Clone(w.keys)
	for _, c := range w.who {
		if c.waitFor == key {
			c.look = true
		}
	}
}

func (w *rwWorld) arrive(m Mode) {
	w.rev++
	w.names++
	key := fmt.Sprintf("k%d", w.names)
	w.keys = append(w.keys, place{key: key, mode: m, created: w.rev, changed: w.rev})
	w.who[key] = &rwClient{key: key, look: true}
	w.changed("")
	w.act(w.who[key]) // the view is of the transaction that creates the key
}

func (w *rwWorld) leave(key string) {
	w.rev++
	i := w.index(key)
	w.keys = slices.Delete(slices.Clone(w.keys), i, i+1)
	delete(w.who, key)
	w.changed(key)
}

func (w *rwWorld) rewrite(key string, m Mode) {
	w.rev++
	w.keys = slices.Clone(w.keys)
	i := w.index(key)
	w.keys[i].mode, w.keys[i].changed = m, w.rev
	w.changed(key)
}

// act lets a client look at the store as it is, and decide.
func (w *rwWorld) act(c *rwClient) {
	c.look = false
	i := w.index(c.key)
	me := w.keys[i]
	if c.upgrade {
		c.waitFor = ""
		for _, s := range c.sharers {
			if w.index(s.key) >= 0 {
				c.waitFor = s.key
				return
			}
		}
		c.upgrade, c.holds = false, true
		return
	}
	older := slices.Clone(w.keys[:i])
	slices.Reverse(older)
	b, blocked := blocker(me.mode, older)
	if blocked && b.mode == ModeUpgraded && me.mode == ModeRead && me.created < b.changed {
		blocked = !slices.ContainsFunc(sharers(b, w.past[b.changed]), func(p place) bool { return p.key == me.key })
	}
	if blocked {
		c.waitFor = b.key
		return
	}
	c.waitFor, c.holds = "", true
}

// check compares with the model: who has the lock excludes nobody else who has
// it, and when all have looked, everybody has it who could.
func (w *rwWorld) check(settled bool) {
	var holders []place
	for _, p := range w.keys {
		if w.who[p.key].holds {
			for _, other := range holders {
				require.False(w.t, p.mode.excludes(other.mode), "%v and %v have it", other, p)
			}
			holders = append(holders, p)
		}
	}
	if !settled {
		return
	}
	var ahead []place // all before, whether they have it or wait
	for _, p := range w.keys {
		c := w.who[p.key]
		free := !slices.ContainsFunc(ahead, func(a place) bool { return p.mode.excludes(a.mode) })
		if c.upgrade {
			free = len(holders) == 0
		}
		upgrading := slices.ContainsFunc(ahead, func(a place) bool { return w.who[a.key].upgrade })
		require.True(w.t, c.holds == free || upgrading && c.holds, "%v of %v: has it %v, could have it %v", p, w.keys, c.holds, free)
		ahead = append(ahead, p)
	}
}

// wake lets one client look that has a reason to.
func (w *rwWorld) wake() bool {
	var ready []*rwClient
	for _, p := range w.keys {
		if c := w.who[p.key]; c.look {
			ready = append(ready, c)
		}
	}
	if len(ready) == 0 {
		return false
	}
	w.act(ready[w.rnd.Intn(len(ready))])
	return true
}

// step lets somebody do something, and counts it.
func (w *rwWorld) step(did map[string]int) {
	if len(w.keys) == 0 || len(w.keys) < 8 && w.rnd.Intn(3) == 0 {
		modes := []Mode{ModeRead, ModeRead, ModeWrite, ModeUpgradeable}
		w.arrive(modes[w.rnd.Intn(len(modes))])
		did["arrive"]++
		return
	}
	p := w.keys[w.rnd.Intn(len(w.keys))]
	c := w.who[p.key]
	switch {
	case p.mode == ModeUpgradeable && c.holds && w.rnd.Intn(2) == 0:
		w.rewrite(p.key, ModeUpgraded)
		c.holds, c.upgrade, c.look = false, true, true
		c.sharers = sharers(p, w.keys)
		did["upgrade"]++
	case c.upgrade && w.rnd.Intn(2) == 0: // it gives up
		w.rewrite(p.key, ModeUpgradeable)
		c.upgrade, c.holds, c.look, c.waitFor = false, true, false, ""
		did["revert"]++
	case p.mode.alone() && c.holds && w.rnd.Intn(2) == 0:
		w.rewrite(p.key, ModeRead)
		did["downgrade"]++
	case c.holds:
		w.leave(p.key)
		did["release"]++
	case w.rnd.Intn(4) == 0: // it gives up, or its session ends
		w.leave(p.key)
		did["abandon"]++
	}
}

// Random histories, in which clients look late: never do two have the lock that
// exclude each other, nobody sleeps through what he waits for, and the order is
// that of the keys.
func TestRulesOfTheReadWriteLock(t *testing.T) {
	rnd := newRand(t)
	did := make(map[string]int)
	for range 300 {
		w := &rwWorld{t: t, rnd: rnd, past: make(map[client.Revision][]place), who: make(map[string]*rwClient)}
		for range 150 {
			if rnd.Intn(2) == 0 {
				w.step(did)
			} else {
				w.wake()
			}
			w.check(false)
			if rnd.Intn(10) == 0 {
				for w.wake() {
					w.check(false)
				}
				w.check(true)
			}
		}
	}
	t.Log(did)
	for _, what := range []string{"arrive", "release", "abandon", "upgrade", "revert", "downgrade"} {
		require.Greater(t, did[what], 100, what)
	}
}
