package client

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// fakeStore is the state that the members of a fake cluster share: one list of events, from which everything is read
// anew each time. Slow, and simple enough to be believed.
type fakeStore struct {
	mu        sync.Mutex // protects everything
	changed   chan struct{}
	rev       int64
	compacted int64
	events    []*mvccpb.Event
	leases    map[int64]*fakeLease
}

type fakeLease struct {
	ttl   int64
	timer *time.Timer
}

func newFakeStore() *fakeStore {
	return &fakeStore{rev: 1, changed: make(chan struct{}), leases: make(map[int64]*fakeLease)}
}

func fakeIn(key, end, k []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(key, k)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(k, key) >= 0
	}
	return bytes.Compare(k, key) >= 0 && bytes.Compare(k, end) < 0
}

// at returns the keys of a range at a revision, in order.
func (s *fakeStore) at(rev int64, key, end []byte) []*mvccpb.KeyValue {
	live := make(map[string]*mvccpb.KeyValue)
	for _, ev := range s.events {
		if ev.Kv.ModRevision > rev || !fakeIn(key, end, ev.Kv.Key) {
			continue
		}
		delete(live, string(ev.Kv.Key))
		if ev.Type == mvccpb.Event_PUT {
			live[string(ev.Kv.Key)] = ev.Kv
		}
	}
	var out []*mvccpb.KeyValue
	for _, k := range slices.Sorted(maps.Keys(live)) {
		out = append(out, live[k])
	}
	return out
}

// write is a transaction in the making: the revision that its writes get.
type fakeWrite struct {
	s   *fakeStore
	rev int64
}

func (s *fakeStore) begin() *fakeWrite { return &fakeWrite{s: s, rev: s.rev + 1} }

// end makes what was written visible.
func (w *fakeWrite) end() {
	if n := len(w.s.events); n > 0 && w.s.events[n-1].Kv.ModRevision == w.rev {
		w.s.rev = w.rev
		close(w.s.changed)
		w.s.changed = make(chan struct{})
	}
}

func (w *fakeWrite) put(r *pb.PutRequest) (*pb.PutResponse, error) {
	s := w.s
	if r.Lease != 0 && s.leases[r.Lease] == nil {
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, Lease: r.Lease, CreateRevision: w.rev, ModRevision: w.rev, Version: 1}
	if old := s.at(w.rev, r.Key, nil); len(old) > 0 {
		kv.CreateRevision, kv.Version = old[0].CreateRevision, old[0].Version+1
		if r.IgnoreLease {
			kv.Lease = old[0].Lease
		}
	}
	s.events = append(s.events, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv})
	return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: w.rev}}, nil
}

func (w *fakeWrite) delete(key, end []byte) *pb.DeleteRangeResponse {
	kvs := w.s.at(w.rev, key, end)
	for _, kv := range kvs {
		gone := &mvccpb.KeyValue{Key: kv.Key, ModRevision: w.rev}
		w.s.events = append(w.s.events, &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: gone})
	}
	return &pb.DeleteRangeResponse{Header: &pb.ResponseHeader{Revision: w.rev}, Deleted: int64(len(kvs))}
}

func (w *fakeWrite) get(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	s, rev := w.s, r.Revision
	switch {
	case rev > s.rev:
		return nil, rpctypes.ErrGRPCFutureRev
	case rev > 0 && rev < s.compacted:
		return nil, rpctypes.ErrGRPCCompacted
	case rev == 0:
		rev = w.rev // what the transaction itself has written, and everything before
	}
	kvs := s.at(rev, r.Key, r.RangeEnd)
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: s.rev}, Count: int64(len(kvs))}
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		kvs, resp.More = kvs[:r.Limit], true
	}
	if !r.CountOnly {
		resp.Kvs = kvs
	}
	return resp, nil
}

func (w *fakeWrite) txn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp := &pb.TxnResponse{Succeeded: true}
	for _, c := range r.Compare {
		resp.Succeeded = resp.Succeeded && w.s.holds(c)
	}
	ops := r.Success
	if !resp.Succeeded {
		ops = r.Failure
	}
	for _, op := range ops {
		var out pb.ResponseOp
		switch op := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			r, err := w.get(op.RequestRange)
			if err != nil {
				return nil, err
			}
			out.Response = &pb.ResponseOp_ResponseRange{ResponseRange: r}
		case *pb.RequestOp_RequestPut:
			r, err := w.put(op.RequestPut)
			if err != nil {
				return nil, err
			}
			out.Response = &pb.ResponseOp_ResponsePut{ResponsePut: r}
		case *pb.RequestOp_RequestDeleteRange:
			r := w.delete(op.RequestDeleteRange.Key, op.RequestDeleteRange.RangeEnd)
			out.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: r}
		case *pb.RequestOp_RequestTxn:
			r, err := w.txn(op.RequestTxn)
			if err != nil {
				return nil, err
			}
			out.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: r}
		}
		resp.Responses = append(resp.Responses, &out)
	}
	return resp, nil
}

// holds judges a condition on the state before the transaction. Only what the tests use: ModRevision, CreateRevision.
func (s *fakeStore) holds(c *pb.Compare) bool {
	kvs := s.at(s.rev, c.Key, c.RangeEnd)
	if len(kvs) == 0 {
		kvs = []*mvccpb.KeyValue{{}}
	}
	for _, kv := range kvs {
		have, want := kv.ModRevision, c.GetModRevision()
		if c.Target == pb.Compare_CREATE {
			have, want = kv.CreateRevision, c.GetCreateRevision()
		}
		switch c.Result {
		case pb.Compare_EQUAL:
			if have != want {
				return false
			}
		case pb.Compare_LESS:
			if have >= want {
				return false
			}
		case pb.Compare_GREATER:
			if have <= want {
				return false
			}
		default:
			panic(fmt.Sprint("not faked: ", c))
		}
	}
	return true
}

func (s *fakeStore) grant(r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if s.leases[r.ID] != nil {
		return nil, rpctypes.ErrGRPCLeaseExist
	}
	l := &fakeLease{ttl: r.TTL}
	l.timer = time.AfterFunc(seconds(r.TTL), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.revoke(r.ID)
	})
	s.leases[r.ID] = l
	return &pb.LeaseGrantResponse{ID: r.ID, TTL: r.TTL}, nil
}

func (s *fakeStore) revoke(id int64) bool {
	l := s.leases[id]
	if l == nil {
		return false
	}
	l.timer.Stop()
	delete(s.leases, id)
	w := s.begin()
	for _, kv := range s.at(s.rev, []byte{0}, []byte{0}) {
		if kv.Lease == id {
			w.delete(kv.Key, nil)
		}
	}
	w.end()
	return true
}

// renew returns the TTL; zero when there is no such lease.
func (s *fakeStore) renew(id int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[id]
	if l == nil {
		return 0
	}
	l.timer.Reset(seconds(l.ttl))
	return l.ttl
}

// ---- members

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
	broken   chan struct{} // closed and replaced to end all streams
	calls    map[string]int // by the RPC's short name
	// slow is how long a request of a kind waits before it is executed.
	slow func(method string) time.Duration
	// drop decides what becomes of the nth request of a kind: fail it before it is executed, or drop its answer.
	drop func(method string, n int) (before, after error)
	// onCreate, if set, answers a watch's creation instead of the store.
	onCreate func(*pb.WatchCreateRequest) *pb.WatchResponse
}

// start brings the member up.
func (m *fakeMember) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listener = bufconn.Listen(1 << 20)
	m.server = grpc.NewServer(grpc.ChainUnaryInterceptor(m.unary), grpc.ChainStreamInterceptor(m.stream), grpc.MaxRecvMsgSize(64<<20))
	pb.RegisterKVServer(m.server, m)
	pb.RegisterWatchServer(m.server, m)
	pb.RegisterLeaseServer(m.server, m)
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

// wait blocks while the member hangs.
func (m *fakeMember) wait(ctx context.Context) {
	m.mu.Lock()
	hang := m.hang
	m.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
		}
	}
}

// enter counts a call and refuses it when the member has no leader.
func (m *fakeMember) enter(ctx context.Context, full string) (before, after error) {
	m.wait(ctx)
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
	return resp, err
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
		m.wait(stream.Context())
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// fakeWatch is one watch of a stream.
type fakeWatch struct {
	req  *pb.WatchCreateRequest
	next int64
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
			m.wait(stream.Context())
			if err := stream.Send(resp); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case r, ok := <-requests:
			if !ok {
				return nil
			}
			m.wait(stream.Context())
			if resp := m.handle(r, watches); resp != nil {
				if err := stream.Send(resp); err != nil {
					return err
				}
			}
		}
	}
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
	return &pb.WatchResponse{Header: header, WatchId: -1} // progress: due has sent everything
}

// due returns the answers for the watches, a revision in each.
func (s *fakeStore) due(watches map[int64]*fakeWatch) (out []*pb.WatchResponse) {
	for id, w := range watches {
		header := &pb.ResponseHeader{Revision: s.rev}
		if w.next < s.compacted {
			delete(watches, id)
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

// ---- the cluster

// fakeCluster is a cluster of members that all share one store.
type fakeCluster struct {
	store   *fakeStore
	members map[string]*fakeMember
}

// newFakeCluster starts members named a, b, c, ...
func newFakeCluster(n int) *fakeCluster {
	f := &fakeCluster{store: newFakeStore(), members: make(map[string]*fakeMember)}
	for i := range n {
		m := &fakeMember{name: string(rune('a' + i)), store: f.store, calls: make(map[string]int), broken: make(chan struct{})}
		m.start()
		f.members[m.name] = m
	}
	return f
}

// stop ends everything.
func (f *fakeCluster) stop() {
	for _, m := range f.members {
		m.stop()
	}
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	for id := range f.store.leases {
		f.store.leases[id].timer.Stop()
	}
}

// dial is a Config.Dialer.
func (f *fakeCluster) dial(ctx context.Context, endpoint string) (net.Conn, error) {
	m := f.members[endpoint]
	m.mu.Lock()
	listener := m.listener
	m.mu.Unlock()
	if listener == nil {
		return nil, fmt.Errorf("connection to %s refused", endpoint)
	}
	return listener.DialContext(ctx)
}

// config returns the configuration of a client of the cluster.
func (f *fakeCluster) config() Config {
	return Config{Endpoints: slices.Sorted(maps.Keys(f.members)), Dialer: f.dial}
}

// put writes a key behind the clients' backs.
func (f *fakeCluster) put(key, value string) int64 {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	w := f.store.begin()
	defer w.end()
	if _, err := w.put(&pb.PutRequest{Key: []byte(key), Value: []byte(value)}); err != nil {
		panic(err)
	}
	return w.rev
}

// value reads a key behind the clients' backs.
func (f *fakeCluster) value(key string) string {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if kvs := f.store.at(math.MaxInt64, []byte(key), nil); len(kvs) > 0 {
		return string(kvs[0].Value)
	}
	return ""
}

func (f *fakeCluster) compact(rev int64) {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.store.compacted = rev
	close(f.store.changed)
	f.store.changed = make(chan struct{})
}

// using returns the member that the client uses now.
func (f *fakeCluster) using(c *Client) *fakeMember {
	p := c.core.pool
	return f.members[p.endpoints[p.current.Load()].name]
}

// total counts the calls of an RPC on all members.
func (f *fakeCluster) total(method string) int {
	n := 0
	for _, m := range f.members {
		n += m.called(method)
	}
	return n
}
