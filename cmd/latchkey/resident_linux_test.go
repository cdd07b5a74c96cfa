package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGiveBackProgram looks at how much of the program is resident before and after.
func TestGiveBackProgram(t *testing.T) {
	before := residentFile(t)
	require.Greater(t, residentFiles(), int64(programKeptBytes), "a test program is large")
	require.NoError(t, giveBackProgram())
	after := residentFile(t)
	t.Logf("%d kB of files are resident, %d kB were", after, before)
	require.Less(t, after, before)
}

// residentFile returns how many kB of mapped files are in memory.
func residentFile(t *testing.T) int {
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			require.NoError(t, err)
			return n
		}
	}
	t.Fatal("no RssFile in /proc/self/status")
	return 0
}

// TestAttentive ends when it is told to, and the garbage collector, which stops the world, does not wait for its naps.
func TestAttentive(t *testing.T) {
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { attentive(stop); close(done) }()
	var pauses [8]uint64
	for i := range pauses {
		pauses[i] = longestPause()
	}
	close(stop)
	<-done
	t.Logf("longest pauses of collections: %v ns", pauses)
	shortest := pauses[0]
	for _, p := range pauses {
		shortest = min(shortest, p)
	}
	require.Less(t, shortest, uint64(attentiveNap.Nanoseconds()/2))
}

// longestPause collects garbage and returns for how long the world stopped, in nanoseconds.
func longestPause() uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	runtime.GC()
	runtime.ReadMemStats(&after)
	return after.PauseTotalNs - before.PauseTotalNs
}
