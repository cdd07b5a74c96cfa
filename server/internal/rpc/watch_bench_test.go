package rpc

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/latchkey-go/latchkey/server/internal/watch"
)

// BenchmarkWatchFanOut delivers one event at a time to 1000 watchers of its key, over gRPC on a pipe, to a client that
// takes the frames and does not decode them. Hypothesis: on one stream, a response costs what gRPC's SendMsg and its
// transport cost, and less than one allocation of ours.
func BenchmarkWatchFanOut(b *testing.B) {
	for _, bench := range []struct{ streams, valueBytes int }{{1, 100}, {16, 100}, {1, 10_000}, {16, 10_000}} {
		b.Run(fmt.Sprintf("streams=%d/value=%d", bench.streams, bench.valueBytes), func(b *testing.B) {
			const watchers = 1000
			m := startWatch(b, WatchConfig{})
			calls := make([]*call, bench.streams)
			for i := range calls {
				calls[i] = m.open()
			}
			for i := range watchers {
				calls[i%len(calls)].create(&pb.WatchCreateRequest{Key: []byte("a")})
			}
			got := make(chan error)
			for i, c := range calls {
				n := (watchers + len(calls) - 1 - i) / len(calls)
				go func() {
					var err error
					for err == nil {
						for range n {
							if err = c.stream.RecvMsg(new(pb.ResponseHeader)); err != nil {
								break
							}
						}
						got <- err
					}
				}()
			}
			value := strings.Repeat("v", bench.valueBytes)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			events := 0
			for b.Loop() {
				m.put("a", value)
				for range calls {
					require.NoError(b, <-got)
				}
				events++
			}
			runtime.ReadMemStats(&after)
			responses := float64(events * watchers)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/responses, "ns/response")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/responses, "allocs/response")
			for _, c := range calls {
				c.cancel()
			}
			for range calls {
				require.Error(b, <-got)
			}
		})
	}
}

// nowhere is a transport that takes everything at no cost.
type nowhere struct {
	grpc.ServerStream
	codec interface {
		Marshal(v any) (mem.BufferSlice, error)
	}
	bytes int
}

func (n *nowhere) SendMsg(v any) error {
	b, err := n.codec.Marshal(v)
	if err != nil {
		return err
	}
	n.bytes += b.Len()
	b.Free()
	return nil
}

func (n *nowhere) HoldMsg(v any) error { return n.SendMsg(v) }
func (n *nowhere) Flush()              {}

// BenchmarkWatchSend is the fan-out without gRPC: from the published history to encoded responses, one event to 1000
// watchers of a stream.
func BenchmarkWatchSend(b *testing.B) {
	for _, valueBytes := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("value=%d", valueBytes), func(b *testing.B) {
			const watchers = 1000
			m := startWatch(b, WatchConfig{})
			stream := m.hub.NewStream()
			defer stream.Close()
			for range watchers {
				_, _, err := stream.Create(watch.Request{Range: watch.Range{Start: "a"}})
				require.NoError(b, err)
			}
			to := &nowhere{codec: Codec()}
			sink := &watchSink{rpc: to, holder: to, backend: m, rooms: newWatchRooms()}
			value := strings.Repeat("v", valueBytes)
			b.ReportAllocs()
			events := 0
			for b.Loop() {
				m.put("a", value)
				<-stream.Ready()
				_, err := stream.Step(sink)
				require.NoError(b, err)
				events++
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events*watchers), "ns/response")
		})
	}
}

// BenchmarkWatchPlain is what BenchmarkWatchSend replaces: a message of protobuf for each watcher.
func BenchmarkWatchPlain(b *testing.B) {
	const watchers = 1000
	to := &nowhere{codec: Codec()}
	kv := &mvccpb.KeyValue{Key: []byte("a"), Value: make([]byte, 100), CreateRevision: 2, ModRevision: 1000, Version: 999}
	b.ReportAllocs()
	events := 0
	for b.Loop() {
		for id := range int64(watchers) {
			_ = to.SendMsg(&pb.WatchResponse{
				Header:  &pb.ResponseHeader{ClusterId: 11, MemberId: 22, Revision: 1000, RaftTerm: 33},
				WatchId: id,
				Events:  []*mvccpb.Event{{Kv: kv}},
			})
		}
		events++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events*watchers), "ns/response")
}

// BenchmarkWatchIdleStream tells what a stream with one watcher of its own key costs in memory, both ends of the
// connection included.
func BenchmarkWatchIdleStream(b *testing.B) {
	const streams = 2000
	m := startWatch(b, WatchConfig{})
	m.open().create(&pb.WatchCreateRequest{Key: []byte("a")})
	before := inUse()
	calls := make([]*call, streams)
	for i := range calls {
		calls[i] = m.open()
		calls[i].create(&pb.WatchCreateRequest{Key: fmt.Appendf(nil, "key/%06d", i)})
	}
	after := inUse()
	for b.Loop() {
	}
	b.ReportMetric(float64(after-before)/streams, "bytes/stream")
	runtime.KeepAlive(calls)
}

// inUse is the memory of heap and stacks.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc + s.StackInuse
}

// TestWatchBudget: what one event costs the heap for each of the watchers that are sent it, from the published history
// to encoded responses.
func TestWatchBudget(t *testing.T) {
	const watchers = 1000
	for _, valueBytes := range []int{100, 10_000} {
		m := startWatch(t, WatchConfig{})
		stream := m.hub.NewStream()
		for range watchers {
			_, _, err := stream.Create(watch.Request{Range: watch.Range{Start: "a"}})
			require.NoError(t, err)
		}
		to := &nowhere{codec: Codec()}
		sink := &watchSink{rpc: to, holder: to, backend: m, rooms: newWatchRooms()}
		value := strings.Repeat("v", valueBytes)
		event := func() {
			m.put("a", value)
			<-stream.Ready()
			_, err := stream.Step(sink)
			require.NoError(t, err)
		}
		event()
		allocs := testing.AllocsPerRun(20, event) / watchers
		t.Logf("values of %d bytes: %.3f allocations a response", valueBytes, allocs)
		require.Less(t, allocs, 0.1)
		require.Positive(t, to.bytes)
		stream.Close()
	}
}
