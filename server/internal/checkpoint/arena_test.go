package checkpoint

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestArena: what is lent does not overlap until the reset, and a reset keeps what was needed and no more.
func TestArena(t *testing.T) {
	var a arena
	lend := func(sizes ...int) {
		var lent [][]byte
		for i, n := range sizes {
			s := a.space(n)
			require.Len(t, s, 0)
			require.Equal(t, n, cap(s))
			lent = append(lent, append(s, bytes.Repeat([]byte{byte(i)}, n)...))
		}
		for i, s := range lent {
			require.Equal(t, bytes.Repeat([]byte{byte(i)}, sizes[i]), s)
		}
	}
	lend(1, 100, arenaChunkBytes-101, 1, arenaChunkBytes, 10*arenaChunkBytes, 7)
	require.Len(t, a.chunks, 4)
	first := &a.chunks[0][0]
	a.reset()
	lend(arenaChunkBytes, arenaChunkBytes)
	require.Len(t, a.chunks, 4)
	require.Same(t, first, &a.chunks[0][0])
	a.reset()
	require.Len(t, a.chunks, 2)
	lend(1)
	a.reset()
	require.Len(t, a.chunks, 1)
	a.reset()
	require.Empty(t, a.chunks)
}
