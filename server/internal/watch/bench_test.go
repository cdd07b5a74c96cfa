package watch

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// count is a Sink that counts.
type count struct{ responses, bytes int }

func (c *count) Events(b *Batch) error {
	c.responses += len(b.IDs)
	for _, e := range b.Events {
		c.bytes += len(e)
	}
	return nil
}

func (c *count) Progress(int64, int64) error  { return nil }
func (c *count) Compacted(int64, int64) error { return nil }

// BenchmarkPublish is what watching costs the goroutine that applies: Publish alone, one event each. Hypothesis: 0.1 us
// while nobody watches the key, and for a key that is watched less than it takes to wake a dispatcher for it.
func BenchmarkPublish(b *testing.B) {
	for _, bench := range []struct {
		name      string
		unrelated int
		watched   bool
		work      int
	}{
		{"nobody", 0, false, publishWorkMax}, {"unrelated=10000", 10_000, false, publishWorkMax},
		{"unrelated=10000 by dispatcher", 10_000, false, 0},
		{"one stream", 0, true, publishWorkMax}, {"one stream by dispatcher", 0, true, 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			m := state.New(state.Config{})
			limits := defaultLimits()
			limits.publishWork = bench.work
			h := newHub(Config{}, m.History(), m.CompactRevision(), limits)
			h.stopped.Go(h.run)
			defer h.Close()
			s := h.NewStream()
			for i := range bench.unrelated {
				_, _, err := s.Create(Request{Range: Range{Start: fmt.Sprintf("other/%d", i)}})
				require.NoError(b, err)
			}
			if bench.watched {
				_, _, err := s.Create(Request{Range: Range{Start: "key"}})
				require.NoError(b, err)
			}
			defer consumeUntilClosed(s)()
			index := uint64(0)
			histories := make([]state.History, 1000)
			i := len(histories)
			b.ReportAllocs()
			for b.Loop() {
				if i == len(histories) {
					b.StopTimer()
					for i = range histories {
						index++
						m.Apply(index, 1, []state.Command{put("key", "value")})
						histories[i] = m.History()
					}
					i = 0
					b.StartTimer()
				}
				h.Publish(histories[i], -1)
				i++
			}
		})
	}
}

// consumeUntilClosed steps a stream on a goroutine of its own; the function that it returns ends both.
func consumeUntilClosed(s *Stream) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer s.Close()
		for {
			select {
			case <-s.Ready():
				for more := true; more; {
					more, _ = s.Step(&count{})
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// BenchmarkLatency is the way from Publish to the Sink of a stream that was asleep.
func BenchmarkLatency(b *testing.B) {
	for _, work := range []int{publishWorkMax, 0} {
		b.Run(fmt.Sprintf("publishWork=%d", work), func(b *testing.B) {
			m := state.New(state.Config{})
			limits := defaultLimits()
			limits.publishWork = work
			h := newHub(Config{}, m.History(), m.CompactRevision(), limits)
			h.stopped.Go(h.run)
			defer h.Close()
			s := h.NewStream()
			defer s.Close()
			_, _, err := s.Create(Request{Range: Range{Start: "key"}})
			require.NoError(b, err)
			arrived, done, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				for {
					select {
					case <-s.Ready():
						_, _ = s.Step(&count{})
						arrived <- struct{}{}
					case <-done:
						return
					}
				}
			}()
			index := uint64(0)
			for b.Loop() {
				index++
				m.Apply(index, 1, []state.Command{put("key", "value")})
				h.Publish(m.History(), -1)
				<-arrived
			}
			close(done)
			<-ended
		})
	}
}

// BenchmarkDispatch is the dispatcher's work for one event that none of 10,000 watchers wants, and for one that 1000
// streams want.
func BenchmarkDispatch(b *testing.B) {
	run := func(b *testing.B, h *Hub, m *state.Machine, streams []*Stream) {
		index := uint64(0)
		var sink count
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			index++
			m.Apply(index, 1, []state.Command{put("key", "value")})
			h.Publish(m.History(), -1)
			b.StartTimer()
			h.dispatchAll()
			b.StopTimer()
			for _, s := range streams {
				_, _ = s.Step(&sink)
			}
			b.StartTimer()
		}
	}
	b.Run("unrelated=10000", func(b *testing.B) {
		m := state.New(state.Config{})
		h := newHub(Config{}, m.History(), m.CompactRevision(), defaultLimits())
		s := h.NewStream()
		for i := range 10_000 {
			_, _, err := s.Create(Request{Range: Range{Start: fmt.Sprintf("other/%d", i)}})
			require.NoError(b, err)
		}
		run(b, h, m, nil)
	})
	b.Run("streams=1000", func(b *testing.B) {
		m := state.New(state.Config{})
		h := newHub(Config{}, m.History(), m.CompactRevision(), defaultLimits())
		var streams []*Stream
		for range 1000 {
			s := h.NewStream()
			_, _, err := s.Create(Request{Range: Range{Start: "key"}})
			require.NoError(b, err)
			streams = append(streams, s)
		}
		run(b, h, m, streams)
	})
}

// BenchmarkCatchUp is what a lagging watcher pays for an event in memory that it wants, and for one that it does not.
func BenchmarkCatchUp(b *testing.B) {
	for _, key := range []string{"key", "other"} {
		b.Run("watching "+key, func(b *testing.B) {
			m := state.New(state.Config{HistoryBytes: 1 << 30})
			const events = 20_000
			for i := range uint64(events) {
				m.Apply(i+1, 1, []state.Command{put("key", "value")})
			}
			h := newHub(Config{}, m.History(), m.CompactRevision(), defaultLimits())
			rounds := 0
			for b.Loop() {
				s := h.NewStream()
				_, _, err := s.Create(Request{Range: Range{Start: key}, Start: 2})
				require.NoError(b, err)
				require.NoError(b, settle(s, &count{}))
				s.Close()
				rounds++
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rounds*events), "ns/event")
		})
	}
}

// BenchmarkIdleMemory tells what a watcher of its own key costs on a stream with many, one of a shared key, and a
// stream with one watcher.
func BenchmarkIdleMemory(b *testing.B) {
	const n = 100_000
	measure := func(b *testing.B, fill func(h *Hub) []*Stream) {
		m := state.New(state.Config{})
		for b.Loop() {
			h := newHub(Config{}, m.History(), m.CompactRevision(), defaultLimits())
			before := inUse()
			streams := fill(h)
			b.ReportMetric(float64(inUse()-before)/n, "bytes/watcher")
			runtime.KeepAlive(streams)
		}
	}
	one := func(key func(i int) string) func(h *Hub) []*Stream {
		return func(h *Hub) []*Stream {
			s := h.NewStream()
			for i := range n {
				if _, _, err := s.Create(Request{Range: Range{Start: key(i)}}); err != nil {
					panic(err)
				}
			}
			return []*Stream{s}
		}
	}
	b.Run("one stream, keys of 16 bytes", func(b *testing.B) {
		measure(b, one(func(i int) string { return fmt.Sprintf("key/%012d", i) }))
	})
	b.Run("one stream, one key", func(b *testing.B) {
		measure(b, one(func(int) string { return "key" }))
	})
	b.Run("a stream each", func(b *testing.B) {
		measure(b, func(h *Hub) []*Stream {
			streams := make([]*Stream, n)
			for i := range streams {
				streams[i] = h.NewStream()
				if _, _, err := streams[i].Create(Request{Range: Range{Start: fmt.Sprintf("key/%012d", i)}}); err != nil {
					panic(err)
				}
			}
			return streams
		})
	})
}

func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
