package peer

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"net"
)

// sink counts messages and frees the sender to go on when it has seen enough of them.
type sink struct {
	recording
	seen chan struct{}
}

func (s sink) Message(*raftpb.Message) { s.seen <- struct{}{} }

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

func benchNode(b *testing.B, id uint64, h Handler) *node {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	n := &node{served: make(chan struct{}), url: []string{"http://" + l.Addr().String()}}
	switch h := h.(type) {
	case sink:
		n.recorder = h.recorder
	case recording:
		n.recorder = h.recorder
	}
	n.Transport = New(Config{ID: id, ClusterID: testCluster, Handler: h})
	n.server = grpc.NewServer(ServerOptions()...)
	n.Register(n.server)
	go func() {
		defer close(n.served)
		_ = n.server.Serve(l)
	}()
	b.Cleanup(n.stop)
	return n
}
