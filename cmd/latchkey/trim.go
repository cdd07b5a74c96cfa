package main

import (
	"log/slog"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// trimInterval is the time between two looks at the heap.
	trimInterval = 500 * time.Millisecond
	// programInterval is how many looks there are between two at the program's pages.
	programInterval = 4
	// A member whose heap has taken less than trimQuietBytes between two looks, at
	// trimQuietLooks in a row, has little to do: its last checkpoint is written as well.
	// What its load has left behind is then given back, if that is at least
	// trimLeastBytes and an eighth of what lives, and if as much was allocated since the
	// last time: what collections can not free is no reason for another.
	trimQuietBytes = 256 << 10
	trimQuietLooks = 3
	trimLeastBytes = 3 << 20
	trimShare      = 8
)

// heapState is what the runtime knows of the heap.
type heapState struct {
	taken uint64 // bytes that were ever allocated
	live  uint64 // that the last collection has found in use
	held  uint64 // from the kernel, in use or not
}

// trimmer decides when memory is given back to the kernel. Go's runtime keeps what
// the load of a while ago has needed: it collects garbage when as much was allocated
// as lives, and returns what is free only above the goal of the last collection. A
// member that was busy and is idle holds that for minutes. A collection costs what
// lives, so there is one after a load and none while it lasts.
type trimmer struct {
	last    uint64 // taken, at the last look
	trimmed uint64 // taken, when it was last due
	quiet   int    // looks in a row at which little had been taken
}

// due reports whether it is time, at each look.
func (t *trimmer) due(h heapState) bool {
	t.quiet++
	if h.taken-t.last >= trimQuietBytes {
		t.quiet = 0
	}
	t.last = h.taken
	least := max(trimLeastBytes, h.live/trimShare)
	if t.quiet < trimQuietLooks || h.held < h.live+least || h.taken-t.trimmed < least {
		return false
	}
	t.trimmed = h.taken
	return true
}

// trim gives memory back until done is closed: pages of the program when there are
// many, and what is free of the heap when there is little to do.
func trim(done <-chan struct{}, log *slog.Logger) {
	var t trimmer
	ticks := time.NewTicker(trimInterval)
	defer ticks.Stop()
	for look := 1; ; look++ {
		select {
		case <-done:
			return
		case <-ticks.C:
		}
		heap := t.due(readHeap())
		if heap {
			runtime.GC() // a sync.Pool lets go of what it holds at the second collection
			debug.FreeOSMemory()
		}
		// The collections look at tables of the program that nothing else needs.
		if heap || look%programInterval == 0 {
			if err := giveBackProgram(); err != nil {
				log.Debug("pages of the program stay resident", "err", err)
			}
		}
	}
}

// heapMetrics are the runtime's names for what readHeap reads.
var heapMetrics = [...]string{
	"/gc/heap/allocs:bytes",
	"/gc/heap/live:bytes",
	"/memory/classes/heap/objects:bytes",
	"/memory/classes/heap/unused:bytes",
	"/memory/classes/heap/free:bytes",
}

// readHeap reads the state of the heap. It stops nothing and costs some
// microseconds.
func readHeap() heapState {
	var samples [len(heapMetrics)]metrics.Sample
	for i, name := range heapMetrics {
		samples[i].Name = name
	}
	metrics.Read(samples[:])
	h := heapState{taken: samples[0].Value.Uint64(), live: samples[1].Value.Uint64()}
	for _, s := range samples[2:] {
		h.held += s.Value.Uint64()
	}
	if ballast.Load() != nil {
		h.live -= min(h.live, ballastBytes)
		h.held -= min(h.held, ballastBytes)
	}
	return h
}
