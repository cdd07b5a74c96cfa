package sequence

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIDs(t *testing.T) {
	ids := []ID{
		{}, {Count: 1}, {Count: 1<<48 - 1}, {Tag: 1}, {Tag: math.MaxUint32, Count: 7},
		{Seed: 1}, {Seed: 1, Tag: 3}, {Seed: math.MaxInt64},
	}
	var texts []string
	for _, id := range ids {
		text := id.String()
		require.Len(t, text, idLength)
		back, err := ParseID(text)
		require.NoError(t, err)
		require.Equal(t, id, back)
		require.Equal(t, id.Seed, seedOf(text))
		require.LessOrEqual(t, Bound(id.Seed), text)
		texts = append(texts, text)
	}
	require.True(t, slices.IsSorted(texts))
	require.True(t, slices.IsSortedFunc(ids, compareIDs))
	for _, text := range []string{"", "floor", texts[0][1:], texts[0] + "0", "x" + texts[0][1:], texts[0][:idLength-1] + "g"} {
		_, err := ParseID(text)
		require.Error(t, err, text)
	}
}

func TestMint(t *testing.T) {
	m := NewMint()
	a := m.Next(10, 3)
	b := m.Next(7, 1)
	c := m.Next(11, 1)
	require.Negative(t, compareIDs(a, b), "a view that is older changes nothing")
	require.Equal(t, a.Count+3, b.Count)
	require.Negative(t, compareIDs(b, c))
}
