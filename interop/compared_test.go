package interop_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// compared are the methods that each test calls on etcd and on Latchkey alike,
// and whose answers it compares. requireCompared holds the tests to it.
var compared = map[string][]string{
	"TestDifferential": append(slices.Collect(maps.Values(unaryMethods)),
		pb.KV_RangeStream_FullMethodName, pb.Lease_LeaseKeepAlive_FullMethodName, pb.Watch_Watch_FullMethodName),
	"TestMaintenanceDifferential": {
		pb.Maintenance_Alarm_FullMethodName, pb.Maintenance_Status_FullMethodName, pb.Maintenance_Downgrade_FullMethodName,
		pb.Maintenance_Defragment_FullMethodName, pb.Maintenance_Hash_FullMethodName,
	},
	"TestMembershipMatches": {
		pb.Cluster_MemberAdd_FullMethodName, pb.Cluster_MemberRemove_FullMethodName, pb.Cluster_MemberUpdate_FullMethodName,
		pb.Cluster_MemberPromote_FullMethodName, pb.Cluster_MemberList_FullMethodName, pb.Maintenance_MoveLeader_FullMethodName,
	},
	"TestContentionDifferential": {
		"/v3lockpb.Lock/Lock", "/v3lockpb.Lock/Unlock", "/v3electionpb.Election/Campaign", "/v3electionpb.Election/Proclaim",
		"/v3electionpb.Election/Leader", "/v3electionpb.Election/Observe", "/v3electionpb.Election/Resign",
	},
}

// incomparable are the methods whose answers are not, with the reason.
var incomparable = map[string]string{
	pb.Maintenance_Snapshot_FullMethodName: "each server's file is its own; etcdutl reads ours in TestEtcdutlReadsSnapshot, and the tests of migration both",
}

// TestEveryMethodIsCompared: each method of each service that etcd has is in
// one of the lists, and no list has another.
func TestEveryMethodIsCompared(t *testing.T) {
	known := make(map[string]bool)
	for _, file := range []protoreflect.FileDescriptor{pb.File_rpc_proto, v3lockpb.File_v3lock_proto, v3electionpb.File_v3election_proto} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				known[fmt.Sprintf("/%s/%s", service.FullName(), service.Methods().Get(j).Name())] = true
			}
		}
	}
	require.Greater(t, len(known), 40)
	listed := maps.Clone(incomparable)
	for test, methods := range compared {
		for _, m := range methods {
			require.NotContains(t, incomparable, m)
			listed[m] = test
		}
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(known)), slices.Collect(maps.Keys(listed)))
}

// calledMethods are the methods that were called on a connection.
type calledMethods struct {
	mu      sync.Mutex
	methods map[string]bool // protected by mu
}

func (c *calledMethods) add(method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.methods[method] = true
}

func (c *calledMethods) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	c.add(method)
	return next(ctx, method, req, reply, conn, opts...)
}

func (c *calledMethods) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c.add(method)
	return next(ctx, desc, conn, method, opts...)
}

// requireCompared fails a test that did not call what it is said to compare.
func requireCompared(t *testing.T, called *calledMethods) {
	t.Helper()
	require.NotEmpty(t, compared[t.Name()])
	called.mu.Lock()
	defer called.mu.Unlock()
	for _, m := range compared[t.Name()] {
		require.True(t, called.methods[m], "%s was not called", m)
	}
}
