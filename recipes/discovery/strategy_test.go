package discovery

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func candidates(weights ...uint32) []*Candidate[struct{}] {
	var out []*Candidate[struct{}]
	for i, w := range weights {
		id := string(rune('a' + i))
		out = append(out, &Candidate[struct{}]{
			Instance: Instance[struct{}]{ID: id, Weight: w, Zone: "z" + id}, usage: &usage{},
		})
	}
	return out
}

// In turn, each as often as its weight says, never the same more often in a row
// than needed.
func TestRoundRobin(t *testing.T) {
	s := RoundRobin[struct{}]()
	order := func(c []*Candidate[struct{}], n int) (got string) {
		for range n {
			got += s.Choose(c, "").ID
		}
		return got
	}
	require.Equal(t, "abcabc", order(candidates(1, 1, 1), 6))
	s = RoundRobin[struct{}]()
	require.Equal(t, "aabacaa", order(candidates(5, 1, 1), 7))
	// Instances that are gone are forgotten.
	many := candidates(1, 1, 1, 1, 1, 1)
	order(many, 6)
	require.Equal(t, "fff", order(many[5:], 3))
	require.Len(t, s.(*roundRobin[struct{}]).credit, 1)
}

// Of two, the one with less to do for its weight.
func TestLeastLoaded(t *testing.T) {
	s, c := LeastLoaded[struct{}](), candidates(1, 1)
	c[0].usage.inFlight.Store(5)
	c[1].usage.inFlight.Store(4)
	for range 50 {
		require.Equal(t, "b", s.Choose(c, "").ID)
	}
	c[0].Weight = 2
	for range 50 {
		require.Equal(t, "a", s.Choose(c, "").ID)
	}
	require.Equal(t, "a", s.Choose(c[:1], "").ID)
	// Requests that stay under way spread over all.
	c = candidates(1, 1, 2, 1)
	for range 5000 {
		s.Choose(c, "").usage.inFlight.Add(1)
	}
	for _, one := range c {
		require.InDelta(t, 1000*float64(one.Weight), one.InFlight(), 100)
	}
}

// A key stays where it is unless its instance goes; a new one takes its share of
// all, and nothing else moves.
func TestConsistentHash(t *testing.T) {
	const keys = 10_000
	s, c := ConsistentHash[struct{}](), candidates(1, 1, 2, 1)
	where := func(c []*Candidate[struct{}]) []string {
		out := make([]string, keys)
		for i := range out {
			out[i] = s.Choose(c, fmt.Sprintf("user-%d", i)).ID
		}
		return out
	}
	before := where(c)
	count := make(map[string]int)
	for _, id := range before {
		count[id]++
	}
	for _, one := range c {
		require.InDelta(t, keys/5*int(one.Weight), count[one.ID], keys/50)
	}
	for i, id := range where(c[:3]) { // d is gone
		if before[i] != "d" {
			require.Equal(t, before[i], id)
		}
	}
	require.Equal(t, before[0], s.Choose(c, "user-0").ID)
}

func TestZoneFirst(t *testing.T) {
	c := candidates(1, 1, 1)
	s := ZoneFirst("zb", RoundRobin[struct{}]())
	for range 5 {
		require.Equal(t, "b", s.Choose(c, "").ID)
	}
	require.Contains(t, "ac", s.Choose([]*Candidate[struct{}]{c[0], c[2]}, "").ID, "no one is near")
}
