package lock

import (
	"fmt"
	"math"
	"math/rand"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

func TestFits(t *testing.T) {
	for _, c := range []struct {
		older         []int64
		weight, limit int64
		want          bool
	}{
		{nil, 1, 1, true},
		{nil, 2, 1, false},
		{nil, 1, 0, false},
		{[]int64{1}, 1, 1, false},
		{[]int64{1}, 1, 2, true},
		{[]int64{1, 1}, 2, 4, true},
		{[]int64{1, 2}, 2, 4, false},
		{[]int64{2, 2}, 1, 2, false},
		{[]int64{math.MaxInt64, math.MaxInt64}, 2, 4, false}, // no overflow
	} {
		var older []ticket
		for _, w := range c.older {
			older = append(older, ticket{weight: w})
		}
		require.Equal(t, c.want, fits(older, c.weight, c.limit), "%+v", c)
	}
}

func TestCounts(t *testing.T) {
	const me = 5
	for _, c := range []struct {
		other   client.Revision
		waits   bool
		limited client.Revision
		want    bool
	}{
		{4, false, 1, true},
		{4, true, 1, true},
		{5, false, 9, false}, // myself
		{6, false, 1, false},
		{6, true, 1, false},
		{6, false, 9, true}, // it may have got in when the limit was larger
		{6, true, 9, false},
	} {
		require.Equal(t, c.want, counts(ticket{created: c.other, waits: c.waits}, me, c.limited), "%+v", c)
	}
}

func TestAhead(t *testing.T) {
	_, head := ahead(nil)
	require.True(t, head)
	_, head = ahead([]ticket{{key: "b"}, {key: "a", waits: true}})
	require.True(t, head, "the one before has got in")
	p, head := ahead([]ticket{{key: "b", waits: true}, {key: "a"}})
	require.False(t, head)
	require.Equal(t, "b", p.key)
}

// semWorld plays a semaphore, like rwWorld. The model is what the clients that
// have permits believe.
type semWorld struct {
	t     *testing.T
	rnd   *rand.Rand
	rev   client.Revision
	limit int64
	since client.Revision // of the limit
	keys  []ticket        // the store, the oldest first
	who   map[string]*semClient
	names int
}

type semClient struct {
	key     string
	holds   bool
	watches func(key string) bool // nil while it waits for nothing
	look    bool
}

const limitKey = ".limit"

func (w *semWorld) index(key string) int {
	return slices.IndexFunc(w.keys, func(t ticket) bool { return t.key == key })
}

func (w *semWorld) changed(key string) {
	w.rev++
	for _, c := range w.who {
		if c.watches != nil && c.watches(key) {
			c.look = true
		}
	}
}

func (w *semWorld) out() (n int64) {
	for _, t := range w.keys {
		if w.who[t.key].holds {
			n += t.weight
		}
	}
	return n
}

func (w *semWorld) admit(c *semClient) {
	c.holds, c.watches = true, nil
	require.LessOrEqual(w.t, w.out(), w.limit, "permits that are out, when somebody has got more")
}

func (w *semWorld) arrive(weight int64, wait bool) {
	if !wait && !fits(w.keys, weight, w.limit) {
		return // and leaves no key
	}
	w.names++
	key := fmt.Sprintf("k%d", w.names)
	w.keys = append(w.keys, ticket{key: key, weight: weight, created: w.rev + 1})
	c := &semClient{key: key}
	w.who[key] = c
	w.changed(key)
	w.act(c)
}

func (w *semWorld) counted(i int) (out []ticket) {
	for _, t := range w.keys {
		if counts(t, w.keys[i].created, w.since) {
			out = append(out, t)
		}
	}
	return out
}

// act lets a client look at the store as it is, and decide.
func (w *semWorld) act(c *semClient) {
	c.look = false
	i := w.index(c.key)
	older := slices.Clone(w.keys[:i])
	slices.Reverse(older)
	counted := w.counted(i)
	switch {
	case fits(counted, w.keys[i].weight, w.limit):
		w.admit(c)
		if w.keys[i].waits {
			w.keys[i].waits = false
			w.changed(c.key)
		}
	case !w.keys[i].waits:
		w.keys[i].waits = true
		c.look = true
		w.changed(c.key)
	default:
		p, head := ahead(older)
		c.watches = func(key string) bool { return key == p.key }
		if head {
			c.watches = func(key string) bool {
				return key == limitKey || slices.ContainsFunc(counted, func(t ticket) bool { return t.key == key })
			}
		}
	}
}

func (w *semWorld) wake() bool {
	var ready []*semClient
	for _, t := range w.keys {
		if c := w.who[t.key]; c.look {
			ready = append(ready, c)
		}
	}
	if len(ready) == 0 {
		return false
	}
	w.act(ready[w.rnd.Intn(len(ready))])
	return true
}

// settled checks that nobody waits who could have his permits, and how many watch
// more than one key.
func (w *semWorld) settled() {
	heads := 0
	for i, t := range w.keys {
		c := w.who[t.key]
		require.Equal(w.t, !c.holds, t.waits, "%v", t)
		if !c.holds {
			require.False(w.t, fits(w.counted(i), t.weight, w.limit), "%v could have got in: %v, limit %d", t, w.keys, w.limit)
			if c.watches(limitKey) {
				heads++
			}
		}
	}
	// A limit that was lowered may have left somebody waiting among the holders.
	if len(w.keys) > 0 && w.since < w.keys[0].created {
		require.LessOrEqual(w.t, heads, 1, "one watches the holders: %v", w.keys)
	}
}

func (w *semWorld) step(did map[string]int) {
	switch n := w.rnd.Intn(12); {
	case n == 0:
		w.limit, w.since = int64(w.rnd.Intn(6)), w.rev+1
		did["resize"]++
		w.changed(limitKey)
	case n < 5 && len(w.keys) < 8:
		wait := w.rnd.Intn(3) > 0
		w.arrive(1+int64(w.rnd.Intn(3)), wait)
		did[fmt.Sprintf("arrive, wait %v", wait)]++
	case len(w.keys) > 0:
		i := w.rnd.Intn(len(w.keys))
		key := w.keys[i].key
		switch c := w.who[key]; {
		case c.holds && w.keys[i].weight > 1 && w.rnd.Intn(2) == 0:
			w.keys[i].weight--
			did["shrink"]++
			w.changed(key)
		case c.holds || w.rnd.Intn(4) == 0:
			w.keys = slices.Delete(w.keys, i, i+1)
			delete(w.who, key)
			did[fmt.Sprintf("leave, had permits %v", c.holds)]++
			w.changed(key)
		}
	}
}

// Random histories, in which clients look late and the limit changes: no more
// permits are given out than the limit allows, nobody sleeps through his turn.
func TestRulesOfTheSemaphore(t *testing.T) {
	rnd := newRand(t)
	did := make(map[string]int)
	for range 300 {
		w := &semWorld{t: t, rnd: rnd, limit: 3, who: make(map[string]*semClient)}
		for range 150 {
			if rnd.Intn(2) == 0 {
				w.step(did)
			} else {
				w.wake()
			}
			if rnd.Intn(10) == 0 {
				for w.wake() {
				}
				w.settled()
			}
		}
	}
	t.Log(did)
	require.Len(t, did, 6)
	for what, n := range did {
		require.Greater(t, n, 100, what)
	}
}
