package state

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestLeaseGrant(t *testing.T) {
	f := newFixture(t)
	f.grant(7)
	f.put("a=1")
	for name, c := range map[string]struct {
		id, ttl int64
		err     error
		granted int64
	}{
		"a lease":                            {1, 60, nil, 60},
		"the longest TTL":                    {2, 9_000_000_000, nil, 9_000_000_000},
		"a longer one":                       {3, 9_000_000_001, ErrLeaseTTLTooLarge, 0},
		"an id that exists":                  {7, 60, ErrLeaseExists, 0},
		"TTL is looked at before the id is":  {7, 9_000_000_001, ErrLeaseTTLTooLarge, 0},
		"no id":                              {0, 60, ErrLeaseNotFound, 0},
		"a negative id is one":               {-5, 60, nil, 60},
		"a TTL that is no time is a second":  {4, 0, nil, 1},
		"a negative TTL is a second as well": {5, -9, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := f.try(KindLeaseGrant, &pb.LeaseGrantRequest{ID: c.id, TTL: c.ttl})
			require.ErrorIs(t, r.Err, c.err)
			if c.err == nil {
				response := r.Response.(*pb.LeaseGrantResponse)
				require.Equal(t, [3]int64{c.id, c.granted, 2}, [3]int64{response.ID, response.TTL, response.Header.Revision})
				info, ok := f.m.Lease(c.id)
				require.True(t, ok)
				require.Equal(t, []LeaseInfo{{ID: c.id, TTL: c.granted}}, unindexed([]LeaseInfo{info}))
			}
			require.EqualValues(t, 2, f.m.Revision())
		})
	}
}

// Revoking deletes the attached keys, sorted, in one revision.
func TestLeaseRevoke(t *testing.T) {
	f := newFixture(t)
	f.grant(7, 8, 9)
	for _, key := range []string{"c", "a", "b"} {
		f.putLease(key, 7)
	}
	f.putLease("d", 8)
	f.putLease("a", 8) // moves
	f.putLease("b", 0) // detaches
	require.Equal(t, []string{"c"}, f.m.LeaseKeys(7))
	require.Equal(t, []string{"a", "d"}, f.m.LeaseKeys(8))
	require.Equal(t, []LeaseInfo{{ID: 7, TTL: 10, Keys: 1}, {ID: 8, TTL: 10, Keys: 2}, {ID: 9, TTL: 10}}, unindexed(f.m.Leases()))

	r := do[*pb.LeaseRevokeResponse](f, KindLeaseRevoke, &pb.LeaseRevokeRequest{ID: 8})
	require.EqualValues(t, 8, r.Header.Revision)
	require.Equal(t, "-a@8.0/ -d@8.1/", f.events(8))
	require.ErrorIs(t, f.try(KindLeaseRevoke, &pb.LeaseRevokeRequest{ID: 8}).Err, ErrLeaseNotFound)
	r = do[*pb.LeaseRevokeResponse](f, KindLeaseRevoke, &pb.LeaseRevokeRequest{ID: 9})
	require.EqualValues(t, 8, r.Header.Revision, "a lease without keys makes no revision")
	f.delete("c")
	require.Empty(t, f.m.LeaseKeys(7), "a deleted key is detached")
	require.Nil(t, f.m.LeaseKeys(8))
	_, ok := f.m.Lease(8)
	require.False(t, ok)
	require.ErrorIs(t, f.try(KindPut, &pb.PutRequest{Key: []byte("x"), Lease: 8}).Err, ErrLeaseNotFound)
}

// Expiry: each lease a revision in the order named, unknown and repeated ids ignored, none for a lease without keys.
func TestExpireLeases(t *testing.T) {
	f := newFixture(t)
	f.grant(1, 2, 3)
	f.putLease("z", 1)
	f.putLease("y", 2)
	f.putLease("x", 2) // 4
	f.m.TakeLeaseEvents()
	r := do[*pb.LeaseRevokeResponse](f, KindExpireLeases, &ExpireLeases{IDs: []int64{2, 99, 3, 2, 1}})
	require.EqualValues(t, 6, r.Header.Revision)
	require.Equal(t, "-x@5.0/ -y@5.1/ -z@6.0/", f.events(5))
	require.Empty(t, f.m.Leases())
	require.Equal(t, []LeaseEvent{{2, 10, true}, {3, 10, true}, {1, 10, true}}, f.m.TakeLeaseEvents())
	require.Empty(t, f.m.TakeLeaseEvents())
	r = do[*pb.LeaseRevokeResponse](f, KindExpireLeases, &ExpireLeases{IDs: []int64{1}})
	require.EqualValues(t, 6, r.Header.Revision)
}

// A checkpoint is told of a lease once, as it is in the end, whatever happened to it between.
func TestLeaseChanges(t *testing.T) {
	f := newFixture(t)
	f.grant(1, 2, 3)
	for _, id := range []int64{2, 3} {
		do[*pb.LeaseRevokeResponse](f, KindLeaseRevoke, &pb.LeaseRevokeRequest{ID: id})
	}
	f.grant(3)
	first := f.m.TakeChanges()
	require.Equal(t, []LeaseInfo{{ID: 1, TTL: 10}, {ID: 3, TTL: 10}}, unindexed(first.Leases))
	require.Equal(t, []int64{2}, first.RevokedLeases)

	f.grant(2, 4)
	do[*pb.LeaseRevokeResponse](f, KindLeaseRevoke, &pb.LeaseRevokeRequest{ID: 1})
	first.Merge(f.m.TakeChanges())
	require.Equal(t, []LeaseInfo{{ID: 2, TTL: 10}, {ID: 3, TTL: 10}, {ID: 4, TTL: 10}}, unindexed(first.Leases))
	require.Equal(t, []int64{1}, first.RevokedLeases)
}

// unindexed leaves out which entries granted the leases.
func unindexed(infos []LeaseInfo) []LeaseInfo {
	out := slices.Clone(infos)
	for i := range out {
		out[i].Index = 0
	}
	return out
}
