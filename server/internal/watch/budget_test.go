package watch

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// TestBudgets holds to what telling of one event may cost the heap: for each of many streams that want it, and where
// nobody does. The machine's own part is in both.
func TestBudgets(t *testing.T) {
	if raced {
		t.Skip("a budget counts on the pools")
	}
	const streams = 200
	for _, b := range []struct {
		name          string
		watch         string
		allocs, bytes float64 // an event
	}{
		{"nobody", "other", 8, 768},
		{"many streams", "key", 16, 2048},
	} {
		t.Run(b.name, func(t *testing.T) {
			m := state.New(state.Config{})
			h := newHub(Config{}, m.History(), m.CompactRevision(), defaultLimits())
			var open []*Stream
			for i := range streams {
				s := h.NewStream()
				key := b.watch
				if key == "other" {
					key = fmt.Sprint(key, i)
				}
				_, _, err := s.Create(Request{Range: Range{Start: key}})
				require.NoError(t, err)
				open = append(open, s)
			}
			index := uint64(0)
			var sink count
			event := func() {
				index++
				m.Apply(index, 1, []state.Command{put("key", "value")})
				h.Publish(m.History(), -1)
				h.dispatchAll()
				for _, s := range open {
					select {
					case <-s.Ready():
						if _, err := s.Step(&sink); err != nil {
							t.Error(err)
						}
					default:
					}
				}
			}
			for range 64 {
				event()
			}
			const runs = 256
			before := sink.responses
			allocs, bytes := perRun(runs, event)
			t.Logf("%.1f allocations, %.0f bytes, %d responses", allocs, bytes, sink.responses-before)
			if b.watch == "key" {
				require.Equal(t, runs*streams, sink.responses-before)
			}
			require.LessOrEqual(t, allocs, b.allocs)
			require.LessOrEqual(t, bytes, b.bytes)
		})
	}
}

// perRun returns the allocations and bytes of a call of op.
func perRun(runs int, op func()) (allocs, bytes float64) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		op()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(runs), float64(after.TotalAlloc-before.TotalAlloc) / float64(runs)
}
