package cachetest

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/cache"
)

// A cache has what was there before it, and what comes after, each item with its
// revisions and its lease.
func testContent(t *testing.T, h *harness) {
	before := h.put("n/a", 1)
	h.put("m/a", 0)
	h.put("n0", 0)
	ca := h.numbers(h.c)
	got, ok := ca.Get("a")
	require.True(t, ok)
	require.Equal(t, item("a", 1, before, before), got)
	require.Equal(t, 1, ca.Len())
	_, ok = ca.Get("b")
	require.False(t, ok)

	s, err := h.c.Session(h.ctx)
	require.NoError(t, err)
	b := h.raw("n/b", "2", client.WithLease(s.ID()))
	c := h.put("n/", 3) // the prefix itself is a key like any other
	a := h.put("n/a", 4)
	h.reached(ca, a)
	leased := item("b", 2, b, b)
	leased.Lease = s.ID()
	var all []client.Item[int]
	for key, item := range ca.All() {
		require.Equal(t, key, item.Key)
		all = append(all, item)
	}
	require.Equal(t, []client.Item[int]{item("", 3, c, c), item("a", 4, a, before), leased}, all)

	view := ca.View()
	h.reached(ca, h.delete("n/", client.Prefix()))
	require.Zero(t, ca.Len())
	require.Equal(t, 3, view.Len(), "a view stays as it is")
	_, ok = view.Get("a")
	require.True(t, ok)
	for range ca.All() {
		t.Fatal("there is nothing")
	}
}

// A prefix of many large values is read in pages, all of one revision, while
// others write.
func testPages(t *testing.T, h *harness) {
	const keys = 700
	filler := strings.Repeat("x", 20_000)
	for i := 0; i < keys; i += 35 {
		var ops []client.Op
		for j := i; j < i+35; j++ {
			ops = append(ops, client.OpPut(fmt.Sprintf("n/%04d", j), []byte(`"`+filler+`"`)))
		}
		h.txn(ops...)
	}
	var revs []int64
	var first atomic.Bool
	tap := &tap{before: func(c *call) {
		r := c.page()
		if r == nil {
			return
		}
		revs = append(revs, r.Revision)
		if first.CompareAndSwap(false, true) {
			return
		}
		h.delete("n/0000")
		h.raw("n/0699", `"newer"`)
	}}
	ca := open[string](h, h.client(tap.config()), "n/")
	require.GreaterOrEqual(t, len(revs), 3, "pages")
	require.Less(t, len(revs), 20)
	require.Zero(t, revs[0])
	for _, rev := range revs[1:] {
		require.Positive(t, rev)
		require.Equal(t, revs[1], rev)
	}
	end := h.delete("n/0698")
	require.NoError(t, ca.WaitRev(h.ctx, end))
	require.Equal(t, keys-2, ca.Len())
	last, _ := ca.Get("0699")
	require.Equal(t, "newer", last.Value)
}

type user struct {
	Team  string   `json:"team"`
	Roles []string `json:"roles"`
}

// Items are found by any of the terms of their newest values.
func testIndexes(t *testing.T, h *harness) {
	h.raw("u/ada", `{"team":"core","roles":["admin","dev","admin"]}`)
	h.raw("u/bob", `{"team":"core","roles":["dev"]}`)
	h.raw("u/cy", `{"team":"ops"}`)
	ca := open(h, h.c, "u/",
		cache.WithIndex("team", func(u user) []string { return []string{u.Team} }),
		cache.WithIndex("role", func(u user) []string { return u.Roles }))
	keys := func(name, term string) string {
		var out []string
		for item := range ca.ByIndex(name, term) {
			out = append(out, item.Key)
		}
		return strings.Join(out, " ")
	}
	require.Equal(t, "ada bob", keys("team", "core"))
	require.Equal(t, "cy", keys("team", "ops"))
	require.Equal(t, "ada", keys("role", "admin"))
	require.Equal(t, "ada bob", keys("role", "dev"))
	require.Equal(t, "", keys("role", "none"))
	h.raw("u/ada", `{"team":"ops","roles":["dev"]}`)
	h.delete("u/bob")
	require.NoError(t, ca.WaitRev(h.ctx, h.raw("u/dee", `{"team":"core"}`)))
	require.Equal(t, "dee", keys("team", "core"))
	require.Equal(t, "ada cy", keys("team", "ops"))
	require.Equal(t, "", keys("role", "admin"))
	require.Equal(t, "ada", keys("role", "dev"))
	require.PanicsWithValue(t, "cache: there is no index mail", func() { ca.ByIndex("mail", "") })
	same := cache.WithIndex("team", func(user) []string { return nil })
	_, err := cache.New(h.c, "u/", same, same)
	require.ErrorContains(t, err, `index "team"`)
}

// What the filter leaves out is not there, and crossing it is coming or going.
func testFilter(t *testing.T, h *harness) {
	h.put("n/a", 1)
	h.put("n/b", 2)
	even := cache.WithFilter(func(i client.Item[int]) bool { return i.Value%2 == 0 })
	notZ := cache.WithFilter(func(i client.Item[int]) bool { return i.Key != "z" })
	ca := h.numbers(h.c, even, notZ)
	m := newMirror(h)
	done := make(chan error, 1)
	go func() { done <- m.listen(ca) }()
	h.put("n/a", 4) // comes
	h.put("n/b", 3) // goes
	h.put("n/b", 5) // is not seen
	h.put("n/z", 2) // neither
	h.put("n/c", 6)
	h.put("n/c", 8)
	h.delete("n/b") // was not there
	end := h.put("n/end", 0)
	require.NoError(t, <-done)
	h.reached(ca, end)
	require.Equal(t, []string{"a", "c", "end"}, slices.Sorted(maps.Keys(m.items)))
	require.Equal(t, 3, ca.Len())
	require.LessOrEqual(t, m.events, 5)
}

// A transaction is seen whole or not at all, by any number of readers, who look at
// each change, and once more in between.
func testWholeTransactions(t *testing.T, h *harness) {
	const rounds, readers = 300, 4
	h.txn(client.OpPut("n/a", []byte("0")), client.OpPut("n/b", []byte("0")))
	ca := h.numbers(h.c)
	errs := make(chan error, readers)
	for range readers {
		go func() {
			last := 0
			for _, err := range ca.Events(h.ctx) {
				if err != nil {
					errs <- err
					return
				}
				v := ca.View()
				a, _ := v.Get("a")
				runtime.Gosched()
				b, _ := v.Get("b")
				if a.Value != b.Value || a.Revision != b.Revision || a.Value < last {
					errs <- fmt.Errorf("a is %+v, b is %+v, after %d", a, b, last)
					return
				}
				if last = a.Value; last == rounds {
					errs <- nil
					return
				}
			}
		}()
	}
	for i := range rounds {
		v := []byte(fmt.Sprint(i + 1))
		h.txn(client.OpPut("n/a", v), client.OpPut("n/b", v))
	}
	for range readers {
		require.NoError(t, <-errs)
	}
}

// shout is a codec that is not JSON.
type shout struct{}

func (shout) Encode(v string) ([]byte, error) { return []byte(v + "!"), nil }

func (shout) Decode(b []byte) (string, error) {
	s, ok := strings.CutSuffix(string(b), "!")
	if !ok {
		return "", errors.New("too quiet")
	}
	return s, nil
}

// A value that is no T is kept out and told of, from the beginning and later, and
// the cache goes on.
func testRejected(t *testing.T, h *harness) {
	h.raw("s/a", "hello!")
	h.raw("s/b", "quiet")
	ca := open(h, h.c, "s/", cache.WithCodec(client.Codec[string](shout{})))
	rejected := func() string {
		var out []string
		for key, err := range ca.View().Rejected() {
			var decode *client.DecodeError
			require.ErrorAs(t, err, &decode)
			require.Equal(t, key, decode.Key)
			require.ErrorContains(t, err, "too quiet")
			out = append(out, key)
		}
		return strings.Join(out, " ")
	}
	require.Equal(t, 1, ca.Len())
	require.Equal(t, "b", rejected())
	_, ok := ca.Get("b")
	require.False(t, ok)

	var got []string
	step := 0
	for ev, err := range ca.Events(h.ctx) {
		require.NoError(t, err)
		got = append(got, fmt.Sprintf("%v %s %q %q %v", ev.Type, ev.Key, ev.Old.Value, ev.New.Value, ev.Err != nil))
		for _, d := range ev.Diff {
			got = append(got, fmt.Sprintf("- %v %s %q %v", d.Type, d.Key, d.New.Value, d.Err != nil))
		}
		switch step++; step {
		case 1:
			h.raw("s/a", "now quiet")
			h.raw("s/b", "now loud!")
			h.raw("s/a", "quiet still")
			h.raw("s/a", "loud!")
			h.raw("s/b", "quiet")
			h.delete("s/b")
			continue
		case 7:
		default:
			continue
		}
		break
	}
	require.Equal(t, []string{
		`resynced  "" "" false`, `- added a "hello" false`, `- rejected b "" true`,
		`rejected a "hello" "" true`, `added b "" "now loud" false`, `rejected a "" "" true`,
		`added a "" "loud" false`, `rejected b "now loud" "" true`, `deleted b "" "" false`,
	}, got)
	require.Equal(t, "", rejected())
	require.Equal(t, 1, ca.Len())
}
