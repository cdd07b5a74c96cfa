package contention

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/api/v3electionpb"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeMember only applies and is watched.
type fakeMember struct {
	t          *testing.T
	machine    *state.Machine
	index      uint64
	hub        *watch.Hub
	leaderless chan struct{}
	stopping   chan struct{}
}

func newFakeMember(t *testing.T) *fakeMember {
	m := &fakeMember{
		t: t, machine: state.New(state.Config{}), leaderless: make(chan struct{}), stopping: make(chan struct{}),
	}
	m.hub = watch.NewHub(watch.Config{}, m.machine.History(), m.machine.CompactRevision())
	t.Cleanup(func() {
		require.Equal(t, watch.Stats{}, m.hub.Stats(), "streams that are left")
		m.hub.Close()
	})
	return m
}

func (m *fakeMember) Hub() *watch.Hub               { return m.hub }
func (m *fakeMember) FillHeader(*pb.ResponseHeader) {}
func (m *fakeMember) HasLeader() bool               { return true }
func (m *fakeMember) Leaderless() <-chan struct{}   { return m.leaderless }
func (m *fakeMember) Stopping() <-chan struct{}     { return m.stopping }

func (m *fakeMember) apply(kind state.Kind, request any) {
	m.t.Helper()
	m.index++
	for _, r := range m.machine.Apply(m.index, 1, []state.Command{{Kind: kind, Request: request}}) {
		require.NoError(m.t, r.Err)
	}
	m.hub.Publish(m.machine.History(), m.machine.CompactRevision())
}

func (m *fakeMember) put(key string) {
	m.apply(state.KindPut, &pb.PutRequest{Key: []byte(key), Value: []byte("v")})
}

// A watch whose events are compacted away returns for its caller to look again.
func TestFollowReturnsWhenItsEventsAreCompacted(t *testing.T) {
	m := newFakeMember(t)
	for range 5 {
		m.put("k")
	}
	m.apply(state.KindCompact, &pb.CompactionRequest{Revision: 5})
	f := follower{config: Config{Member: m}, start: 2}
	err := f.follow(t.Context(), []watch.Range{{Start: "k"}}, func([]*mvccpb.Event, int64) (bool, error) {
		t.Error("an event that is not there any more")
		return false, nil
	})
	require.NoError(t, err)
}

func TestFollowHandsOnEventsInOrder(t *testing.T) {
	m := newFakeMember(t)
	for i := range 20 {
		m.put(fmt.Sprintf("k%d", i%2))
	}
	var seen []int64
	f := follower{config: Config{Member: m}, start: 2}
	err := f.follow(t.Context(), []watch.Range{{Start: "k1"}}, func(events []*mvccpb.Event, revision int64) (bool, error) {
		for _, ev := range events {
			require.Equal(t, "k1", string(ev.Kv.Key))
			require.LessOrEqual(t, ev.Kv.ModRevision, revision)
			seen = append(seen, ev.Kv.ModRevision)
		}
		return len(seen) == 10, nil
	})
	require.NoError(t, err)
	require.Equal(t, []int64{3, 5, 7, 9, 11, 13, 15, 17, 19, 21}, seen)
}

// Whatever ends a wait ends it at once and with an error that says so.
func TestWhatEndsAWait(t *testing.T) {
	withLeader := metadata.NewIncomingContext(t.Context(), metadata.Pairs(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader))
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	gone, leave := context.WithCancel(t.Context())
	leave()
	tests := []struct {
		name string
		ctx  context.Context
		end  func(*fakeMember)
		want error
	}{
		{"no leader", withLeader, func(m *fakeMember) { close(m.leaderless) }, rpctypes.ErrGRPCNoLeader},
		{"stop", t.Context(), func(m *fakeMember) { close(m.stopping) }, rpctypes.ErrGRPCStopped},
		{"deadline", late, func(*fakeMember) {}, rpctypes.ErrGRPCDeadlineExceeded},
		{"cancel", gone, func(*fakeMember) {}, rpctypes.ErrGRPCCanceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newFakeMember(t)
			tt.end(m)
			f := follower{config: Config{Member: m}}
			err := f.follow(tt.ctx, []watch.Range{{Start: "k"}}, nil)
			require.ErrorIs(t, err, tt.want)
		})
	}
	m := newFakeMember(t)
	close(m.leaderless) // which this caller does not mind
	go close(m.stopping)
	require.ErrorIs(t, follower{config: Config{Member: m}}.follow(t.Context(), []watch.Range{{Start: "k"}}, nil), rpctypes.ErrGRPCStopped)
}

// fakeStore answers with an error, and notes what it is asked to undo.
type fakeStore struct {
	undone []string
	leader []string // the metadata that asks for a leader
	alive  []error  // the contexts' errors
}

func (s *fakeStore) note(ctx context.Context, what string) {
	s.undone = append(s.undone, what)
	s.leader = append(s.leader, metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey)...)
	s.alive = append(s.alive, ctx.Err())
}

func (s *fakeStore) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	return nil, rpctypes.ErrGRPCPermissionDenied
}

func (s *fakeStore) DeleteRange(context.Context, *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	return nil, status.Error(codes.Internal, "unexpected")
}

func (s *fakeStore) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.note(ctx, string(r.Success[0].GetRequestDeleteRange().GetKey()))
	return nil, rpctypes.ErrGRPCTimeout
}

func (s *fakeStore) LeaseGrant(context.Context, *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	return nil, rpctypes.ErrGRPCNoSpace
}

func (s *fakeStore) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	s.note(ctx, fmt.Sprintf("lease %d", r.ID))
	return nil, rpctypes.ErrGRPCLeaseNotFound
}

// Who gives up takes away what it made, and nothing that others did, although its
// context is over, and with a leader or without one.
func TestLeave(t *testing.T) {
	for _, tt := range []struct {
		p    contender
		want []string
	}{
		{contender{key: []byte("k"), rev: 7, made: true, lease: 1}, []string{"k"}},
		{contender{key: []byte("k"), rev: 7, lease: 1}, nil},
		{contender{key: []byte("k"), lease: 1}, nil},
		{contender{key: []byte("k"), rev: 7, made: true, lease: 5, own: true}, []string{"lease 5"}},
		{contender{key: []byte("k"), lease: 5, own: true}, []string{"lease 5"}},
	} {
		s := &fakeStore{}
		ctx, cancel := context.WithCancel(metadata.NewIncomingContext(t.Context(),
			metadata.Pairs(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader, "token", "t")))
		cancel()
		Config{KV: s, Leases: s, Logger: slog.New(slog.DiscardHandler)}.leave(ctx, &tt.p)
		require.Equal(t, tt.want, s.undone)
		require.Empty(t, s.leader)
		for _, err := range s.alive {
			require.NoError(t, err)
		}
	}
}

// The store's errors come out as those of etcd's services do.
func TestErrorsHaveNoCode(t *testing.T) {
	require.EqualError(t, plain(rpctypes.ErrGRPCPermissionDenied), "rpc error: code = Unknown desc = etcdserver: permission denied")
	require.Equal(t, rpctypes.ErrGRPCCanceled, plain(rpctypes.ErrGRPCCanceled))
	require.NoError(t, plain(nil))
	s := &fakeStore{}
	_, err := Config{Leases: s}.contend(t.Context(), []byte("n"), 0)
	require.EqualError(t, err, "rpc error: code = Unknown desc = etcdserver: mvcc: database space exceeded")
	_, err = NewElection(Config{KV: s}).Leader(t.Context(), &v3electionpb.LeaderRequest{})
	require.EqualError(t, err, "rpc error: code = Unknown desc = etcdserver: permission denied")
}
