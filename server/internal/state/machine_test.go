package state

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

type txnRequest = pb.TxnRequest

func TestApply(t *testing.T) {
	m := New(Config{})
	index, term := m.Applied()
	require.Zero(t, index+term)
	require.Empty(t, m.Apply(4, 2, nil), "an entry without commands counts as applied")
	index, term = m.Applied()
	require.Equal(t, [2]uint64{4, 2}, [2]uint64{index, term})
	results := m.Apply(5, 2, []Command{
		{Kind: KindPut, Request: &pb.PutRequest{Key: []byte("a")}},
		{Kind: KindPut, Request: &pb.PutRequest{Key: []byte("b"), Lease: 1}},
		{Kind: KindPut, Request: &pb.PutRequest{Key: []byte("c")}},
		{Kind: KindPut, Request: "no request"},
		{Kind: KindPut, Request: nil},
	})
	require.EqualValues(t, 2, results[0].Response.(*pb.PutResponse).Header.Revision)
	require.ErrorIs(t, results[1].Err, ErrLeaseNotFound)
	require.EqualValues(t, 3, results[2].Response.(*pb.PutResponse).Header.Revision, "one revision a command")
	require.ErrorIs(t, results[3].Err, ErrCommand)
	require.ErrorIs(t, results[4].Err, ErrCommand)
	require.Panics(t, func() { m.Apply(5, 2, nil) }, "an entry is applied once")
}

// Requests without content, which no decoder makes, must not panic either.
func TestApplyNilRequests(t *testing.T) {
	f := newFixture(t)
	for kind, request := range map[Kind]any{
		KindPut: (*pb.PutRequest)(nil), KindDeleteRange: (*pb.DeleteRangeRequest)(nil), KindTxn: (*pb.TxnRequest)(nil),
		KindCompact: (*pb.CompactionRequest)(nil), KindLeaseGrant: (*pb.LeaseGrantRequest)(nil),
		KindLeaseRevoke: (*pb.LeaseRevokeRequest)(nil), KindExpireLeases: (*ExpireLeases)(nil), KindMember: (*Member)(nil),
		KindAlarm: (*pb.AlarmRequest)(nil), KindFingerprint: (*pb.HashKVRequest)(nil), KindDowngrade: (*pb.DowngradeRequest)(nil),
		KindDivergence: (*Divergence)(nil),
	} {
		f.try(kind, request)
	}
	f.try(KindTxn, &pb.TxnRequest{Compare: []*pb.Compare{nil}, Success: []*pb.RequestOp{nil, {},
		{Request: &pb.RequestOp_RequestPut{}}, {Request: &pb.RequestOp_RequestRange{}},
		{Request: &pb.RequestOp_RequestDeleteRange{}}, {Request: &pb.RequestOp_RequestTxn{}}}})
	_, err := f.m.View().Range(nil)
	require.NoError(t, err)
}

// The same log gives the same bytes: every response, the digest and the dump.
func TestDeterminism(t *testing.T) {
	run := func() (responses []byte, m *Machine) {
		m = New(Config{})
		for i := uint64(1); i <= 50; i++ {
			batch := []Command{
				{Kind: KindLeaseGrant, Request: &pb.LeaseGrantRequest{ID: int64(i % 5), TTL: 10}},
				{Kind: KindPut, Request: &pb.PutRequest{Key: []byte{byte(i % 7)}, Value: []byte{byte(i)}, Lease: int64(i % 5), PrevKv: true}},
				{Kind: KindPut, Request: &pb.PutRequest{Key: []byte{byte(i % 3), 1}, Value: []byte{byte(i)}, Lease: int64(i % 4)}},
				{Kind: KindTxn, Request: &pb.TxnRequest{Compare: []*pb.Compare{ifMod("\x01", greater, int64(i))}, Success: ops(opDelete("\x02", "\x00")), Failure: ops(opGet("\x01", 0))}},
				{Kind: KindExpireLeases, Request: &ExpireLeases{IDs: []int64{int64(i % 3), int64(i % 11)}}},
				{Kind: KindCompact, Request: &pb.CompactionRequest{Revision: int64(i)}},
			}
			for _, r := range m.Apply(i, i/10, batch) {
				if r.Err != nil {
					responses = append(responses, r.Err.Error()...)
					continue
				}
				b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Response)
				require.NoError(t, err)
				responses = append(responses, b...)
			}
		}
		return responses, m
	}
	a, m := run()
	b, n := run()
	require.Equal(t, a, b)
	require.Equal(t, m.Digest(), n.Digest())
	require.Equal(t, m.Dump(), n.Dump())
	require.Equal(t, m.TakeChanges(), n.TakeChanges())
	require.Greater(t, m.Revision(), int64(50), "much has happened")

	n.Apply(51, 9, []Command{putOf([]byte("x"), nil)})
	m.Apply(51, 9, []Command{putOf([]byte("x"), []byte{0})})
	require.NotEqual(t, m.Digest(), n.Digest(), "one byte differs")
}

// The sizes that the accounts are kept in are those of the structures.
func TestStructureSizes(t *testing.T) {
	require.EqualValues(t, versionBytes, unsafe.Sizeof(Version{}))
	require.EqualValues(t, eventSlotBytes, unsafe.Sizeof(Event{}))
	require.EqualValues(t, pastBytes, unsafe.Sizeof(past{}))
}

func TestMembers(t *testing.T) {
	f := newFixture(t)
	f.m = New(Config{Members: []Member{{ID: 9, Name: "z"}, {ID: 3, PeerURLs: []string{"p"}, Learner: true}}})
	require.Equal(t, []Member{{ID: 3, PeerURLs: []string{"p"}, Learner: true}, {ID: 9, Name: "z"}}, f.m.Members())
	empty := f.m.TakeChanges()
	require.True(t, empty.Empty(), "the members of the Config are known to the checkpoint")

	before := f.m.Members()
	r := do[*pb.MemberUpdateResponse](f, KindMember, &Member{ID: 3, Name: "three", ClientURLs: []string{"c"}, PeerURLs: []string{"x"}})
	require.EqualValues(t, 1, r.Header.Revision, "members have no part in the revision")
	want := Member{ID: 3, Name: "three", PeerURLs: []string{"p"}, ClientURLs: []string{"c"}, Learner: true}
	require.Equal(t, []Member{want, {ID: 9, Name: "z"}}, f.m.Members())
	require.Empty(t, before[0].Name)
	require.Equal(t, []Member{want}, f.m.TakeChanges().Members)
	require.ErrorIs(t, f.try(KindMember, &Member{ID: 4}).Err, ErrMemberNotFound)
	require.Empty(t, f.m.TakeChanges().Members)

	var c Changes
	do[*pb.MemberUpdateResponse](f, KindMember, &Member{ID: 9, Name: "one"})
	do[*pb.MemberUpdateResponse](f, KindMember, &Member{ID: 3, Name: "two"})
	c.Merge(f.m.TakeChanges())
	do[*pb.MemberUpdateResponse](f, KindMember, &Member{ID: 3, Name: "three"})
	c.Merge(f.m.TakeChanges())
	require.Equal(t, []string{"three", "one"}, []string{c.Members[0].Name, c.Members[1].Name})
}

// The digest covers each part of the state by itself.
func TestDigestCovers(t *testing.T) {
	base := func() *fixture {
		f := newFixture(t)
		f.m = New(Config{ClusterID: 1, Members: []Member{{ID: 1}}})
		f.grant(1)
		f.put("a=1", "a=2")
		return f
	}
	want := base().m.Digest()
	require.Equal(t, want, base().m.Digest())
	for name, change := range map[string]func(m *Machine){
		"cluster":  func(m *Machine) { m.clusterID++ },
		"index":    func(m *Machine) { m.index++ },
		"term":     func(m *Machine) { m.term++ },
		"revision": func(m *Machine) { m.revision++ },
		"compact":  func(m *Machine) { m.compact++ },
		"lease":    func(m *Machine) { delete(m.leases, 1) },
		"ttl":      func(m *Machine) { m.leases[1].ttl++ },
		"member":   func(m *Machine) { m.members[0].ClientURLs = []string{""} },
		"learner":  func(m *Machine) { m.members[0].Learner = true },
		"value":    func(m *Machine) { newest(m, "a").Value = []byte("3") },
		"version":  func(m *Machine) { newest(m, "a").Count++ },
		"create":   func(m *Machine) { newest(m, "a").Create++ },
		"mod":      func(m *Machine) { newest(m, "a").Mod++ },
		"sub":      func(m *Machine) { newest(m, "a").Sub++ },
		"attached": func(m *Machine) { newest(m, "a").Lease = 1 },
		"history":  func(m *Machine) { newest(m, "a").older[0].sum++ },
		"older":    func(m *Machine) { newest(m, "a").older = nil },
	} {
		f := base()
		change(f.m)
		require.NotEqual(t, want, f.m.Digest(), name)
	}
}

func newest(m *Machine, key string) *Version {
	v, ok := m.live.Get(key)
	if !ok {
		v, _ = m.dead.Get(key)
	}
	return v
}
