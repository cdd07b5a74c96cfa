package state

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A lease that was granted after the leader had decided is another one than the
// one it decided on, also when it has the same id.
func TestExpiryLeavesLaterGrantsAlone(t *testing.T) {
	m := New(Config{})
	grant := Command{Kind: KindLeaseGrant, Request: &pb.LeaseGrantRequest{ID: 7, TTL: 5}}
	revoke := Command{Kind: KindLeaseRevoke, Request: &pb.LeaseRevokeRequest{ID: 7}}
	expire := func(seen uint64) Command {
		return Command{Kind: KindExpireLeases, Request: &ExpireLeases{IDs: []int64{7}, Seen: seen}}
	}
	exists := func() bool {
		_, ok := m.Lease(7)
		return ok
	}
	m.Apply(1, 1, []Command{grant})
	m.Apply(2, 1, []Command{revoke, grant})
	m.Apply(3, 1, []Command{expire(1)})
	require.True(t, exists(), "decided before the grant")
	m.Apply(4, 1, []Command{expire(2)})
	require.False(t, exists(), "decided after it")
}

func TestExpireLeasesEncoding(t *testing.T) {
	want := &ExpireLeases{IDs: []int64{1, -2, 1 << 40}, Seen: 1 << 50}
	data, err := Command{Kind: KindExpireLeases, Request: want}.AppendTo(nil)
	require.NoError(t, err)
	got, err := DecodeCommand(data)
	require.NoError(t, err)
	require.Equal(t, want, got.Request)
}
