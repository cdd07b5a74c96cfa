package peer

import (
	"runtime/metrics"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// sink counts messages and frees the sender to go on when it has seen enough of them.
type sink struct {
	recording
	seen chan struct{}
}

func (s sink) Messages(_ uint64, ms []*raftpb.Message, _ bool) {
	for range ms {
		s.seen <- struct{}{}
	}
}

// BenchmarkSend sends from one member to another over loopback, at most window messages ahead of what has arrived.
func BenchmarkSend(b *testing.B) {
	body := make([]byte, 300)
	var many [][]byte
	for range 64 {
		many = append(many, body)
	}
	for _, c := range []struct {
		name    string
		message *raftpb.Message
		window  int
	}{
		{"heartbeat/window=1", message(raftpb.MsgHeartbeat, 1, 2, 1), 1},
		{"heartbeat/window=512", message(raftpb.MsgHeartbeat, 1, 2, 1), 512},
		{"app-1x300B/window=1", message(raftpb.MsgApp, 1, 2, 1, body), 1},
		{"app-1x300B/window=512", message(raftpb.MsgApp, 1, 2, 1, body), 512},
		{"app-64x300B/window=1", message(raftpb.MsgApp, 1, 2, 1, many...), 1},
		{"app-64x300B/window=64", message(raftpb.MsgApp, 1, 2, 1, many...), 64},
		{"app-1x19200B/window=64", message(raftpb.MsgApp, 1, 2, 1, make([]byte, 64*300)), 64},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := sink{recording{newRecorder()}, make(chan struct{}, c.window)}
			sender := benchNode(b, 1, recording{newRecorder()})
			receiver := benchNode(b, 2, s)
			receiver.SetPeers(map[uint64][]string{1: nil})
			sender.SetPeers(map[uint64][]string{2: receiver.url})
			wait(b, sender.connected)
			msgs := []*raftpb.Message{c.message}
			room := make(chan struct{}, c.window)
			var wg sync.WaitGroup
			wg.Go(func() {
				for range b.N {
					<-s.seen
					<-room
				}
			})
			b.SetBytes(int64(queueBytes(c.message)))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				room <- struct{}{}
				sender.Send(msgs)
			}
			wg.Wait()
			b.StopTimer()
			stats := sender.Stats()
			require.Zero(b, stats.Dropped)
			b.ReportMetric(float64(stats.MessagesSent)/float64(stats.FramesSent), "msgs/frame")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}

// BenchmarkRoundTrip sends an append and waits for its answer, one after the other: what a write with one caller does.
// wakes/op are goroutines that began to run after they waited; three are needed: a receiver on each side, and who waits.
// switches/op are those of the operating system's threads, cpu-ns/op is the time of both members together.
func BenchmarkRoundTrip(b *testing.B) {
	body := make([]byte, 300)
	for _, c := range []struct {
		name    string
		message *raftpb.Message
	}{
		{"app-1x300B", message(raftpb.MsgApp, 1, 2, 1, body)},
		{"app-64x300B", message(raftpb.MsgApp, 1, 2, 1, slices.Repeat([][]byte{body}, 64)...)},
		{"app-1x60000B", message(raftpb.MsgApp, 1, 2, 1, make([]byte, 60_000))},
		{"app-1x200000B", message(raftpb.MsgApp, 1, 2, 1, make([]byte, 200_000))},
	} {
		b.Run(c.name, func(b *testing.B) {
			seen := make(chan struct{}, 1)
			x := benchNode(b, 1, sink{recording{newRecorder()}, seen})
			echo := &answering{recording: recording{newRecorder()}}
			y := benchNode(b, 2, echo)
			echo.node = y
			y.SetPeers(map[uint64][]string{1: x.url})
			x.SetPeers(map[uint64][]string{2: y.url})
			wait(b, x.connected)
			wait(b, y.connected)
			msgs := []*raftpb.Message{c.message}
			b.ReportAllocs()
			var before, after syscall.Rusage
			require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
			woken := wakes()
			b.ResetTimer()
			for range b.N {
				x.Send(msgs)
				<-seen
			}
			b.StopTimer()
			woken = wakes() - woken
			require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
			switches := after.Nvcsw + after.Nivcsw - before.Nvcsw - before.Nivcsw
			cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
			b.ReportMetric(float64(woken)/float64(b.N), "wakes/op")
			b.ReportMetric(float64(switches)/float64(b.N), "switches/op")
			b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
		})
	}
}

// wakes counts them since the program began. The runtime looks at every eighth.
func wakes() (n uint64) {
	sample := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(sample)
	for _, count := range sample[0].Value.Float64Histogram().Counts {
		n += 8 * count
	}
	return n
}

// answering answers every append.
type answering struct {
	recording
	node *node
}

func (h *answering) Messages(uint64, []*raftpb.Message, bool) {
	h.node.Send([]*raftpb.Message{message(raftpb.MsgAppResp, 2, 1, 1)})
}

func benchNode(b *testing.B, id uint64, h Handler) *node {
	n := start(b, id, "", func(s *setup) { s.config.Handler = h })
	switch h := h.(type) { // whose channels tell of connections
	case sink:
		n.recorder = h.recorder
	case recording:
		n.recorder = h.recorder
	case *answering:
		n.recorder = h.recorder
	}
	return n
}
