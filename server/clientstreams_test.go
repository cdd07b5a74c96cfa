package server_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/api/v3electionpb"
	"github.com/latchkey-go/latchkey/api/v3lockpb"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// watcher is one Watch stream.
type watcher struct {
	t *testing.T
	pb.Watch_WatchClient
}

func (w watcher) create(r *pb.WatchCreateRequest) {
	require.NoError(w.t, w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}))
}

func (w watcher) progress() {
	require.NoError(w.t, w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}))
}

func (w watcher) recv() string {
	w.t.Helper()
	return tell(w.Recv())
}

// One stream as clients use it, to the field: what is created says so first, with the store's revision; a deletion has a
// key and a revision; progress that was asked for is of watcher -1; what starts too early is created, and then canceled
// with the revision to go on from; and nothing else comes, above all no answer without an event.
func TestWatchAsClientsReadIt(t *testing.T) {
	ctx := testContext(t)
	m := dial(t, servertest.One(t).Endpoints()[0])
	for range 3 { // revisions 2 to 4
		_, err := m.Put(ctx, put("a", "0"))
		require.NoError(t, err)
	}
	stream, err := m.Watch(ctx)
	require.NoError(t, err)
	w := watcher{t, stream}
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), PrevKv: true})
	require.Equal(t, "header:{revision:4} created:true", w.recv())
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 100, WatchId: 7})
	require.Equal(t, "header:{revision:4} watch_id:7 created:true", w.recv())
	_, err = m.Put(ctx, put("a", "1"))
	require.NoError(t, err)
	require.Equal(t, "header:{revision:5} events:{kv:{key:a create_revision:2 mod_revision:5 version:4 value:1} "+
		"prev_kv:{key:a create_revision:2 mod_revision:4 version:3 value:0}}", w.recv())
	_, err = m.Put(ctx, put("other", ""))
	require.NoError(t, err)
	_, err = m.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("a")})
	require.NoError(t, err)
	require.Equal(t, "header:{revision:7} events:{type:DELETE kv:{key:a mod_revision:7} "+
		"prev_kv:{key:a create_revision:2 mod_revision:5 version:4 value:1}}", w.recv())
	_, err = m.Put(ctx, put("other", ""))
	require.NoError(t, err)
	_, err = m.Compact(ctx, &pb.CompactionRequest{Revision: 6})
	require.NoError(t, err)
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3})
	require.Equal(t, "header:{revision:8} watch_id:1 created:true", w.recv())
	require.Equal(t, "header:{} watch_id:1 canceled:true compact_revision:6", w.recv())
	w.create(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
	require.Equal(t, "header:{revision:8} watch_id:-1 created:true canceled:true cancel_reason:mvcc: watcher range is empty", w.recv())

	quiet, err := m.Watch(ctx) // whose watchers all begin now: progress waits for those that do not
	require.NoError(t, err)
	w = watcher{t, quiet}
	w.create(&pb.WatchCreateRequest{Key: []byte("a")})
	require.Equal(t, "header:{revision:8} created:true", w.recv())
	w.progress()
	require.Equal(t, "header:{revision:8} watch_id:-1", w.recv())
	require.NoError(t, w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{}}}))
	require.Equal(t, "header:{revision:8} canceled:true", w.recv())
}

// A report of progress promises that all events up to its revision were sent before it, on every member, while others
// write; and a watcher that did not ask for reports gets no answer without an event.
func TestProgressIsBehindTheEvents(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	writer := dial(t, c.Endpoints()[c.Leader()])
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if _, err := writer.Put(ctx, put("a", "")); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for _, endpoint := range c.Endpoints() {
		stream, err := dial(t, endpoint).Watch(ctx)
		require.NoError(t, err)
		w := watcher{t, stream}
		w.create(&pb.WatchCreateRequest{Key: []byte("a")})
		created, err := w.Recv()
		require.NoError(t, err)
		seen := created.Header.Revision
		w.progress()
		for reports := 0; reports < 20; {
			r, err := w.Recv()
			require.NoError(t, err)
			if len(r.Events) == 0 {
				require.EqualValues(t, -1, r.WatchId, "nobody asked: %v", r)
				require.Equal(t, seen, r.Header.Revision, "each revision has an event")
				reports++
				w.progress()
			}
			for _, e := range r.Events {
				require.Equal(t, seen+1, e.Kv.ModRevision)
				seen = e.Kv.ModRevision
			}
		}
	}
	close(stop)
	require.NoError(t, <-stopped)
}

// Python's client sends one renewal, says that there is no other, and reads to the end. A lease that has ended is
// answered with no TTL, not with an error.
func TestKeepAliveIsDrained(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	for i, endpoint := range c.Endpoints() {
		m := dial(t, endpoint)
		id := int64(70 + i)
		granted, err := m.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 9_000_000_000})
		require.NoError(t, err)
		require.EqualValues(t, 9_000_000_000, granted.TTL)
		for lease, want := range map[int64]int64{id: 9_000_000_000, 4242: 0} {
			stream, err := m.LeaseKeepAlive(ctx)
			require.NoError(t, err)
			require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: lease}))
			require.NoError(t, stream.CloseSend())
			r, err := stream.Recv()
			require.NoError(t, err)
			require.Equal(t, []int64{lease, want}, []int64{r.ID, r.TTL})
			_, err = stream.Recv()
			require.ErrorIs(t, err, io.EOF, "the stream ends with OK")
		}
		left, err := m.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 4242, Keys: true})
		require.Equal(t, "header:{revision:1} ID:4242 TTL:-1", tell(left, err))
		_, err = m.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 9_000_000_001})
		require.Equal(t, "OutOfRange etcdserver: too large lease TTL", tell(nil, err))
	}
}

// Streams whose client asked for a leader end when there is none for long, and new ones are refused; others stay.
func TestStreamsThatWantALeader(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	left := c.Leader()
	m := dial(t, c.Endpoints()[left])
	wants := metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
	begun, err := m.Watch(wants)
	require.NoError(t, err)
	renewed, err := m.LeaseKeepAlive(wants)
	require.NoError(t, err)
	stays, err := m.Watch(ctx)
	require.NoError(t, err)
	for _, w := range []pb.Watch_WatchClient{begun, stays} {
		watcher{t, w}.create(&pb.WatchCreateRequest{Key: []byte("a")})
		require.Equal(t, "header:{revision:1} created:true", watcher{t, w}.recv())
	}
	for i := range 3 {
		if i != left {
			c.Kill(i)
		}
	}
	const noLeader = "Unavailable etcdserver: no leader"
	require.Equal(t, noLeader, watcher{t, begun}.recv())
	_, err = renewed.Recv()
	require.Equal(t, noLeader, tell(nil, err))
	late, err := m.Watch(wants)
	require.NoError(t, err)
	require.Equal(t, noLeader, watcher{t, late}.recv())
	later, err := m.LeaseKeepAlive(wants)
	require.NoError(t, err)
	_, err = later.Recv()
	require.Equal(t, noLeader, tell(nil, err))
	_, err = m.Range(wants, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
	require.Equal(t, noLeader, tell(nil, err))
	chunks, err := m.RangeStream(wants, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
	require.NoError(t, err)
	_, err = chunks.Recv()
	require.Equal(t, noLeader, tell(nil, err))
	backup, err := m.Snapshot(wants, &pb.SnapshotRequest{})
	require.NoError(t, err)
	_, err = backup.Recv()
	require.Equal(t, noLeader, tell(nil, err))
	_, err = m.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
	require.NoError(t, err)
	watcher{t, stays}.create(&pb.WatchCreateRequest{Key: []byte("b")})
	require.Equal(t, "header:{revision:1} watch_id:1 created:true", watcher{t, stays}.recv())
}

// A range in chunks, merged, is the range; a client that probes for the method (Kubernetes) finds it.
func TestRangeStreamMerges(t *testing.T) {
	ctx, m := testContext(t), dial(t, servertest.One(t).Endpoints()[0])
	_, err := m.Txn(ctx, &pb.TxnRequest{Success: manyPuts(100)})
	require.NoError(t, err)
	for _, r := range []*pb.RangeRequest{
		{Key: []byte{0}, RangeEnd: []byte{0}}, {Key: []byte{0}, RangeEnd: []byte{0}, Limit: 30}, {Key: []byte("none")},
		{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true}, {Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true, Serializable: true},
	} {
		want, err := m.Range(ctx, r)
		require.NoError(t, err)
		stream, err := m.RangeStream(ctx, r)
		require.NoError(t, err)
		got := &pb.RangeResponse{}
		for {
			chunk, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			proto.Merge(got, chunk.RangeResponse)
		}
		require.Equal(t, tell(want, nil), tell(got, nil))
	}
}

// calls are one of every unary kind that answers with a header.
func calls(conn *grpc.ClientConn) map[string]func(context.Context) (interface{ GetHeader() *pb.ResponseHeader }, error) {
	type headed = interface{ GetHeader() *pb.ResponseHeader }
	kv, lease, cluster, maint := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewClusterClient(conn), pb.NewMaintenanceClient(conn)
	auth, locks, elections := pb.NewAuthClient(conn), v3lockpb.NewLockClient(conn), v3electionpb.NewElectionClient(conn)
	return map[string]func(context.Context) (headed, error){
		"Range": func(ctx context.Context) (headed, error) { return kv.Range(ctx, get("a")) },
		"serializable": func(ctx context.Context) (headed, error) {
			return kv.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
		},
		"Put": func(ctx context.Context) (headed, error) { return kv.Put(ctx, put("a", "")) },
		"DeleteRange": func(ctx context.Context) (headed, error) {
			return kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("x")})
		},
		"Txn": func(ctx context.Context) (headed, error) {
			return kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{putOp("a", "")}})
		},
		"Txn that reads": func(ctx context.Context) (headed, error) { return kv.Txn(ctx, &pb.TxnRequest{}) },
		"LeaseGrant": func(ctx context.Context) (headed, error) {
			return lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 600})
		},
		"LeaseTimeToLive": func(ctx context.Context) (headed, error) {
			return lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 1})
		},
		"LeaseLeases": func(ctx context.Context) (headed, error) { return lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{}) },
		"LeaseKeepAlive": func(ctx context.Context) (headed, error) {
			s, err := lease.LeaseKeepAlive(ctx)
			if err != nil {
				return nil, err
			}
			if err := errors.Join(s.Send(&pb.LeaseKeepAliveRequest{ID: 1}), s.CloseSend()); err != nil {
				return nil, err
			}
			return s.Recv()
		},
		"Watch": func(ctx context.Context) (headed, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			s, err := pb.NewWatchClient(conn).Watch(ctx)
			if err != nil {
				return nil, err
			}
			if err := s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}}); err != nil {
				return nil, err
			}
			return s.Recv()
		},
		"MemberList": func(ctx context.Context) (headed, error) { return cluster.MemberList(ctx, &pb.MemberListRequest{}) },
		"Status":     func(ctx context.Context) (headed, error) { return maint.Status(ctx, &pb.StatusRequest{}) },
		"Hash":       func(ctx context.Context) (headed, error) { return maint.Hash(ctx, &pb.HashRequest{}) },
		"HashKV":     func(ctx context.Context) (headed, error) { return maint.HashKV(ctx, &pb.HashKVRequest{}) },
		"Alarm":      func(ctx context.Context) (headed, error) { return maint.Alarm(ctx, &pb.AlarmRequest{}) },
		"AuthStatus": func(ctx context.Context) (headed, error) { return auth.AuthStatus(ctx, &pb.AuthStatusRequest{}) },
		"UserList":   func(ctx context.Context) (headed, error) { return auth.UserList(ctx, &pb.AuthUserListRequest{}) },
		"Lock": func(ctx context.Context) (headed, error) {
			l, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 600})
			if err != nil {
				return nil, err
			}
			r, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: l.ID})
			if err != nil {
				return nil, err
			}
			return locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: r.Key})
		},
		"Campaign": func(ctx context.Context) (headed, error) {
			l, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 600})
			if err != nil {
				return nil, err
			}
			r, err := elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: l.ID})
			if err != nil {
				return nil, err
			}
			return elections.Resign(ctx, &v3electionpb.ResignRequest{Leader: r.Leader})
		},
	}
}

// Patroni refuses a member whose term goes back: every answer has one, of every member, and it only rises.
func TestTermIsInEveryHeader(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	terms, first := make([]uint64, 3), uint64(0)
	all := func() {
		for i, endpoint := range c.Endpoints() {
			if c.Member(i) == nil {
				continue
			}
			conn, err := grpc.NewClient("passthrough:///"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
			require.NoError(t, err)
			for name, call := range calls(conn) {
				r, err := call(ctx)
				require.NoError(t, err, name)
				h := r.GetHeader()
				require.NotZero(t, h.GetClusterId(), name)
				require.Equal(t, c.Member(i).ID(), h.MemberId, name)
				require.GreaterOrEqual(t, h.RaftTerm, max(terms[i], 1), "%s of member %d", name, i)
				terms[i] = h.RaftTerm
			}
			require.NoError(t, conn.Close())
		}
	}
	all()
	first = terms[0]
	c.Stop(c.Leader())
	c.Leader()
	all()
	require.Greater(t, max(terms[0], terms[1], terms[2]), first, "no other leader was elected")
}
