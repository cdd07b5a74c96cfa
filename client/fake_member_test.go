package client

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// fakeMember is one server of the cluster. Its zero switches mean that it works.
type fakeMember struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer
	pb.UnimplementedClusterServer
	pb.UnimplementedMaintenanceServer

	name  string
	store *fakeStore

	mu       sync.Mutex // protects what follows
	server   *grpc.Server
	listener *bufconn.Listener // nil while the member is down
	hang     chan struct{}     // not nil: requests, and answers of streams, wait until it is closed
	noLeader bool
	mute     bool           // nothing is sent on streams of watches, though all else works
	broken   chan struct{}  // closed and replaced to end all streams
	calls    map[string]int // by the RPC's short name
	// slow is how long a request of a kind waits before it is executed.
	slow func(method string) time.Duration
	// drop decides what becomes of the nth request of a kind: fail it before it is executed, or drop its answer.
	drop func(method string, n int) (before, after error)
	// onTxn, if set, is asked before a transaction is executed, and fails it.
	onTxn func(*pb.TxnRequest) error
	// onCreate, if set, answers a watch's creation instead of the store.
	onCreate func(*pb.WatchCreateRequest) *pb.WatchResponse
	pipes    *fakePipes // nil for a server without pipes
}

// start brings the member up.
func (m *fakeMember) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listener = bufconn.Listen(1 << 20)
	m.server = grpc.NewServer(
		grpc.ChainUnaryInterceptor(m.unary), grpc.ChainStreamInterceptor(m.stream), grpc.MaxRecvMsgSize(64<<20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}), // as etcd does
	)
	pb.RegisterKVServer(m.server, m)
	pb.RegisterWatchServer(m.server, m)
	pb.RegisterLeaseServer(m.server, m)
	pb.RegisterMaintenanceServer(m.server, m)
	if m.pipes != nil {
		m.pipes.register(m)
	}
	hs := health.NewServer()
	healthpb.RegisterHealthServer(m.server, hs)
	server, listener := m.server, m.listener
	go func() { _ = server.Serve(listener) }()
}

// stop kills the member: its connections break, and new ones are refused.
func (m *fakeMember) stop() {
	m.mu.Lock()
	server := m.server
	m.listener, m.server = nil, nil
	if m.hang != nil {
		close(m.hang)
		m.hang = nil
	}
	m.mu.Unlock()
	if server != nil {
		server.Stop()
	}
}

// breakStreams ends all streams, as a member does that has lost its leader.
func (m *fakeMember) breakStreams() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.broken)
	m.broken = make(chan struct{})
}

// set changes switches.
func (m *fakeMember) set(f func(m *fakeMember)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

func (m *fakeMember) called(method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[method]
}

// wait blocks while the member hangs: not even the end of a request is noticed.
func (m *fakeMember) wait() {
	m.mu.Lock()
	hang := m.hang
	m.mu.Unlock()
	if hang != nil {
		<-hang
	}
}

// enter counts a call and refuses it when the member has no leader.
func (m *fakeMember) enter(ctx context.Context, full string) (before, after error) {
	m.wait()
	method := full[strings.LastIndex(full, "/")+1:]
	m.mu.Lock()
	m.calls[method]++
	n, noLeader, drop, slow := m.calls[method], m.noLeader, m.drop, m.slow
	m.mu.Unlock()
	if slow != nil {
		timer := time.NewTimer(slow(method))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err(), nil
		}
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if noLeader && len(md.Get("hasleader")) > 0 {
		return rpctypes.ErrGRPCNoLeader, nil
	}
	if drop != nil {
		return drop(method, n)
	}
	return nil, nil
}

func (m *fakeMember) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	before, after := m.enter(ctx, info.FullMethod)
	if before != nil {
		return nil, before
	}
	resp, err := handle(ctx, req)
	if after != nil {
		return nil, after
	}
	m.sign(resp)
	return resp, err
}

// id is the member's.
func (m *fakeMember) id() uint64 { return uint64(m.name[0]) }

// sign adds who answers, and in which term, to an answer.
func (m *fakeMember) sign(answer any) {
	h, ok := answer.(headed)
	if reign := m.store.reign.Load(); ok && reign != nil && h.GetHeader() != nil {
		h.GetHeader().MemberId, h.GetHeader().RaftTerm = m.id(), reign.term
	}
}

// Status knows who leads, if anybody does.
func (m *fakeMember) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	reign := m.store.reign.Load()
	if reign == nil {
		return nil, rpctypes.ErrGRPCNoLeader
	}
	return &pb.StatusResponse{Header: &pb.ResponseHeader{}, Leader: reign.leader.id(), RaftTerm: reign.term}, nil
}

func (m *fakeMember) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if before, _ := m.enter(ss.Context(), info.FullMethod); before != nil {
		return before
	}
	m.mu.Lock()
	broken := m.broken
	m.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- handle(srv, ss) }()
	select {
	case err := <-ended:
		return err
	case <-broken:
		return rpctypes.ErrGRPCNoLeader
	}
}

func (m *fakeMember) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	return m.store.begin().get(r)
}

func (m *fakeMember) Put(_ context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	w := m.store.begin()
	defer w.end()
	return w.put(r)
}

func (m *fakeMember) DeleteRange(_ context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	w := m.store.begin()
	defer w.end()
	return w.delete(r.Key, r.RangeEnd), nil
}

func (m *fakeMember) Txn(_ context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	m.mu.Lock()
	onTxn := m.onTxn
	m.mu.Unlock()
	if onTxn != nil {
		if err := onTxn(r); err != nil {
			return nil, err
		}
	}
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	w := m.store.begin()
	before := len(m.store.events)
	resp, err := w.txn(r)
	if err != nil {
		m.store.events = m.store.events[:before]
		return nil, err
	}
	w.end()
	resp.Header = &pb.ResponseHeader{Revision: m.store.rev}
	return resp, nil
}

func (m *fakeMember) Compact(_ context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	if r.Revision <= m.store.compacted {
		return nil, rpctypes.ErrGRPCCompacted
	}
	m.store.compacted = r.Revision
	return &pb.CompactionResponse{}, nil
}

func (m *fakeMember) LeaseGrant(_ context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	return m.store.grant(r)
}

func (m *fakeMember) LeaseRevoke(_ context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	if !m.store.revoke(r.ID) {
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	return &pb.LeaseRevokeResponse{}, nil
}

func (m *fakeMember) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		before, after := m.enter(stream.Context(), "/renew")
		if before != nil {
			return before
		}
		resp := &pb.LeaseKeepAliveResponse{ID: r.ID, TTL: m.store.renew(r.ID)}
		if after != nil {
			return after
		}
		m.wait()
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// fakeWatch is one watch of a stream.
type fakeWatch struct {
	req       *pb.WatchCreateRequest
	next      int64
	compacted bool // it has ended, and is not canceled yet
}

// Watch is one loop: it takes requests, and sends to each watch what has happened since it last looked.
func (m *fakeMember) Watch(stream pb.Watch_WatchServer) error {
	requests := make(chan *pb.WatchRequest)
	go func() {
		defer close(requests)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	watches := make(map[int64]*fakeWatch)
	for {
		m.store.mu.Lock()
		out := m.store.due(watches)
		changed := m.store.changed
		m.store.mu.Unlock()
		for _, resp := range out {
			if err := m.tell(stream, resp); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case r, ok := <-requests:
			if !ok {
				return nil
			}
			m.wait()
			if resp := m.handle(r, watches); resp != nil {
				if err := m.tell(stream, resp); err != nil {
					return err
				}
			}
		}
	}
}

// tell sends an answer, unless the member is mute.
func (m *fakeMember) tell(stream pb.Watch_WatchServer, resp *pb.WatchResponse) error {
	m.wait()
	m.mu.Lock()
	mute := m.mute
	m.mu.Unlock()
	if mute {
		return nil
	}
	return stream.Send(resp)
}

// handle carries out one request of a watch stream and returns the answer.
func (m *fakeMember) handle(r *pb.WatchRequest, watches map[int64]*fakeWatch) *pb.WatchResponse {
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	header := &pb.ResponseHeader{Revision: s.rev}
	switch r := r.RequestUnion.(type) {
	case *pb.WatchRequest_CreateRequest:
		c := r.CreateRequest
		m.mu.Lock()
		onCreate := m.onCreate
		m.mu.Unlock()
		if onCreate != nil {
			if resp := onCreate(c); resp != nil {
				return resp
			}
		}
		w := &fakeWatch{req: c, next: c.StartRevision}
		if w.next == 0 {
			w.next = s.rev + 1
		}
		watches[c.WatchId] = w
		return &pb.WatchResponse{Header: header, WatchId: c.WatchId, Created: true}
	case *pb.WatchRequest_CancelRequest:
		delete(watches, r.CancelRequest.WatchId)
		return &pb.WatchResponse{Header: header, WatchId: r.CancelRequest.WatchId, Canceled: true}
	}
	for _, w := range watches {
		if w.compacted || w.req.StartRevision > s.rev {
			return nil // as in etcd
		}
	}
	return &pb.WatchResponse{Header: header, WatchId: -1} // progress: due has sent everything
}

// due returns the answers for the watches, a revision in each.
func (s *fakeStore) due(watches map[int64]*fakeWatch) (out []*pb.WatchResponse) {
	for id, w := range watches {
		header := &pb.ResponseHeader{Revision: s.rev}
		if w.compacted {
			continue
		}
		if w.next < s.compacted {
			w.compacted = true
			out = append(out, &pb.WatchResponse{Header: header, WatchId: id, Canceled: true, CompactRevision: s.compacted})
			continue
		}
		for _, ev := range s.events {
			if ev.Kv.ModRevision < w.next || !fakeIn(w.req.Key, w.req.RangeEnd, ev.Kv.Key) {
				continue
			}
			n := len(out)
			if n == 0 || out[n-1].WatchId != id || out[n-1].Events[0].Kv.ModRevision != ev.Kv.ModRevision {
				out = append(out, &pb.WatchResponse{Header: header, WatchId: id})
				n++
			}
			out[n-1].Events = append(out[n-1].Events, proto.CloneOf(ev))
		}
		w.next = max(w.next, s.rev+1)
	}
	return out
}
