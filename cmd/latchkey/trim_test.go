package main

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server"
)

// TestTrimmerWaitsForTheEndOfTheLoad: memory is given back once, after the load, and again only when there is more.
func TestTrimmerWaitsForTheEndOfTheLoad(t *testing.T) {
	const mib, little = 1 << 20, trimQuietBytes / 2
	var h trimmer
	now := heapState{taken: 100 * mib, live: 20 * mib, held: 60 * mib}
	// look lets the member take so many bytes first.
	look := func(taken uint64, live, held uint64) bool {
		now = heapState{taken: now.taken + taken, live: live, held: held}
		return h.due(now)
	}
	require.False(t, look(100*mib, 20*mib, 60*mib), "busy")
	require.False(t, look(100*mib, 20*mib, 60*mib), "still busy")
	for range trimQuietLooks - 1 {
		require.False(t, look(little, 20*mib, 60*mib), "just over")
	}
	require.True(t, look(little, 20*mib, 60*mib))
	require.False(t, look(little, 18*mib, 60*mib), "holes between what lives")
	for range trimLeastBytes/little - 2 {
		require.False(t, look(little, 18*mib, 60*mib), "little was taken since")
	}
	require.False(t, look(little, 18*mib, 18*mib+trimLeastBytes-1), "too little for a collection")
	require.True(t, look(little, 18*mib, 18*mib+trimLeastBytes))
	require.False(t, look(100*mib, 400*mib, 450*mib), "busy")
	for range trimQuietLooks {
		require.False(t, look(little, 400*mib, 449*mib), "less than an eighth")
	}
	require.True(t, look(little, 400*mib, 450*mib))
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

// A process may start a member while another one runs in it, as the tests here do.
func TestMemberStartsBesideAnother(t *testing.T) {
	before := debug.SetGCPercent(gcPercent)
	defer debug.SetGCPercent(before)
	a := &app{}
	a.tuneRuntime(server.Config{})()
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		readHeap() // as the first member's trim does at any time
	}()
	first := ballast.Load()
	a.tuneRuntime(server.Config{})()
	<-looked
	require.NotNil(t, first)
	require.Same(t, first, ballast.Load())
}
