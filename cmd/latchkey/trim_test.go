package main

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTrimmerWaitsForTheEndOfTheLoad: memory is given back once, after the load, and again only when there is more.
func TestTrimmerWaitsForTheEndOfTheLoad(t *testing.T) {
	const mib = 1 << 20
	var h trimmer
	require.False(t, h.due(heapState{taken: 100 * mib, live: 20 * mib, held: 60 * mib}), "busy")
	require.False(t, h.due(heapState{taken: 200 * mib, live: 20 * mib, held: 60 * mib}), "still busy")
	require.True(t, h.due(heapState{taken: 201 * mib, live: 20 * mib, held: 60 * mib}))
	require.False(t, h.due(heapState{taken: 202 * mib, live: 18 * mib, held: 19 * mib}), "it was given back")
	require.False(t, h.due(heapState{taken: 204 * mib, live: 18 * mib, held: 60 * mib}), "holes between what lives")
	require.False(t, h.due(heapState{taken: 207 * mib, live: 18 * mib, held: 22 * mib}), "too little for a collection")
	require.True(t, h.due(heapState{taken: 208 * mib, live: 18 * mib, held: 24 * mib}))
	require.False(t, h.due(heapState{taken: 211 * mib, live: 400 * mib, held: 440 * mib}), "less than an eighth")
	require.False(t, h.due(heapState{taken: 500 * mib, live: 400 * mib, held: 450 * mib}), "busy")
	require.True(t, h.due(heapState{taken: 501 * mib, live: 400 * mib, held: 450 * mib}))
	require.False(t, h.due(heapState{taken: 502 * mib, live: 400 * mib, held: 300 * mib}), "what lives is that of the last collection")
}

// TestReadHeap knows the runtime's names.
func TestReadHeap(t *testing.T) {
	runtime.GC()
	before := readHeap()
	require.NotZero(t, before.live)
	require.GreaterOrEqual(t, before.held, before.live/2)
	kept := make([]byte, 32<<20)
	after := readHeap()
	require.GreaterOrEqual(t, after.taken-before.taken, uint64(len(kept)))
	require.GreaterOrEqual(t, after.held, uint64(len(kept)))
	runtime.KeepAlive(kept)
}
