package rpc

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watchMember is a member that only applies and is watched.
type watchMember struct {
	t       testing.TB
	mu      sync.Mutex // protects machine and index
	machine *state.Machine
	index   uint64
	hub     *watch.Hub
	conn    *grpc.ClientConn

	leader     bool
	leaderless chan struct{}
	stopping   chan struct{}
}

func (m *watchMember) Hub() *watch.Hub             { return m.hub }
func (m *watchMember) HasLeader() bool             { return m.leader }
func (m *watchMember) Learner() bool               { return false }
func (m *watchMember) Leaderless() <-chan struct{} { return m.leaderless }
func (m *watchMember) Stopping() <-chan struct{}   { return m.stopping }
func (m *watchMember) FillHeader(h *pb.ResponseHeader) {
	h.ClusterId, h.MemberId, h.RaftTerm = 11, 22, 33
	h.Revision = 99999 // what a watch response says is not the present revision
}

// startWatch serves the watch service over a pipe until the test ends.
func startWatch(t testing.TB, c WatchConfig) *watchMember {
	m := &watchMember{
		t: t, machine: state.New(state.Config{}), leader: true,
		leaderless: make(chan struct{}), stopping: make(chan struct{}),
	}
	m.hub = watch.NewHub(watch.Config{}, m.machine.History(), m.machine.CompactRevision())
	service := NewWatch(m, c)
	server := grpc.NewServer(grpc.ForceServerCodecV2(Codec()), grpc.WaitForHandlers(true))
	pb.RegisterWatchServer(server, service)
	listener := bufconn.Listen(1 << 20)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:///member",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	require.NoError(t, err)
	m.conn = conn
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		service.Wait()
		serving.Wait()
		require.Equal(t, watch.Stats{}, m.hub.Stats(), "streams and watchers that are left")
		m.hub.Close()
	})
	return m
}

// apply carries out requests as one batch and returns the revision after it.
func (m *watchMember) apply(requests ...any) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var commands []state.Command
	for _, r := range requests {
		kind := map[string]state.Kind{
			"*etcdserverpb.PutRequest": state.KindPut, "*etcdserverpb.DeleteRangeRequest": state.KindDeleteRange,
			"*etcdserverpb.TxnRequest": state.KindTxn, "*etcdserverpb.CompactionRequest": state.KindCompact,
		}[fmt.Sprintf("%T", r)]
		commands = append(commands, state.Command{Kind: kind, Request: r})
	}
	m.index++
	for _, r := range m.machine.Apply(m.index, 1, commands) {
		require.NoError(m.t, r.Err)
	}
	m.hub.Publish(m.machine.History(), m.machine.CompactRevision())
	return m.machine.Revision()
}

func (m *watchMember) put(key, value string) int64 {
	return m.apply(&pb.PutRequest{Key: []byte(key), Value: []byte(value)})
}

func (m *watchMember) remove(key string) int64 {
	return m.apply(&pb.DeleteRangeRequest{Key: []byte(key)})
}

// putAll puts several keys in one transaction.
func putAll(values map[string]string, keys ...string) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for _, k := range keys {
		r.Success = append(r.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte(k), Value: []byte(values[k])},
		}})
	}
	return r
}

// call is one watch stream as a client sees it.
type call struct {
	t      testing.TB
	stream pb.Watch_WatchClient
	cancel context.CancelFunc
}

func (m *watchMember) open(md ...string) *call {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), md...))
	m.t.Cleanup(cancel)
	stream, err := pb.NewWatchClient(m.conn).Watch(ctx)
	require.NoError(m.t, err)
	return &call{t: m.t, stream: stream, cancel: cancel}
}

func (c *call) send(r *pb.WatchRequest) {
	require.NoError(c.t, c.stream.Send(r))
}

func (c *call) recv() *pb.WatchResponse {
	r, err := c.stream.Recv()
	require.NoError(c.t, err)
	require.Equal(c.t, []uint64{11, 22, 33}, []uint64{r.Header.ClusterId, r.Header.MemberId, r.Header.RaftTerm})
	return r
}

func (c *call) create(r *pb.WatchCreateRequest) *pb.WatchResponse {
	c.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
	got := c.recv()
	require.True(c.t, got.Created)
	require.Empty(c.t, got.Events)
	return got
}

func (c *call) progress() {
	c.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (c *call) cancelWatch(id int64) {
	c.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

// describe is a response's events as one line.
func describe(r *pb.WatchResponse) string {
	parts := []string{fmt.Sprintf("%d@%d", r.WatchId, r.Header.Revision)}
	for _, e := range r.Events {
		s := fmt.Sprintf("%s=%s@%d", e.Kv.Key, e.Kv.Value, e.Kv.ModRevision)
		if e.Type == mvccpb.Event_DELETE {
			s = fmt.Sprintf("-%s@%d", e.Kv.Key, e.Kv.ModRevision)
		}
		if e.PrevKv != nil {
			s += fmt.Sprintf(" was %s@%d", e.PrevKv.Value, e.PrevKv.ModRevision)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}
