package rendezvous

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// Programs of different versions must choose alike: these numbers never change.
// They come from a separate implementation of the definition.
func TestHashIsFixed(t *testing.T) {
	for _, c := range []struct {
		candidate, item string
		want            uint64
	}{
		{"", "", 0x25fc6dd36ce04b20},
		{"a", "x", 0x8248bbd45c3577a8},
		{"ab", "c", 0x9291f5e7171dc35a},
		{"a", "bc", 0x82a144826e72d59e},
		{"node-1", "shard-17", 0xdbf0d207a60dcedf},
		{"ä", "漢", 0x0d74fd25f51df0bf},
	} {
		require.Equal(t, c.want, hash(c.candidate, c.item), "%q %q", c.candidate, c.item)
	}
}

func TestScore(t *testing.T) {
	require.Zero(t, Score("a", "x", 0))
	require.Positive(t, Score("a", "x", 1))
	require.InEpsilon(t, 3*Score("a", "x", 1), Score("a", "x", 3), 1e-12)
	require.NotEqual(t, Score("ab", "c", 1), Score("a", "bc", 1))
}

// Every candidate gets its part of what there is, also of names that differ little.
func TestShares(t *testing.T) {
	const items = 20_000
	count := make(map[string]int)
	for i := range items {
		best, score := "", math.Inf(-1)
		for c := range 10 {
			name := fmt.Sprintf("node-%d", c)
			if s := Score(name, fmt.Sprintf("shard-%d", i), 1); s > score {
				best, score = name, s
			}
		}
		count[best]++
	}
	require.Len(t, count, 10)
	for name, n := range count {
		require.InDelta(t, items/10, n, items/100, name)
	}
}
