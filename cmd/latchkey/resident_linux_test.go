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
	// The kernel may have taken back on its own what was not used for some seconds.
	memory, err := os.Open("/proc/self/mem")
	require.NoError(t, err)
	defer memory.Close()
	require.NoError(t, ofProgram(func(from, to uintptr) error {
		_, err := memory.ReadAt(make([]byte, to-from), int64(from))
		return err
	}))
	before := residentFile(t)
	require.Greater(t, residentFiles(), int64(programKeptBytes), "a test program is large")
	require.NoError(t, giveBackProgram())
	after := residentFile(t)
	t.Logf("%d kB of files are resident, %d kB were", after, before)
	require.Less(t, after, before)
}

// residentFile returns how many kB of mapped files are in memory, also of such on a file system that is memory itself.
func residentFile(t *testing.T) int {
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	sum := 0
	for line := range strings.Lines(string(status)) {
		name, rest, _ := strings.Cut(line, ":")
		if name == "RssFile" || name == "RssShmem" {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			require.NoError(t, err)
			sum += n
		}
	}
	require.Positive(t, sum)
	return sum
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
