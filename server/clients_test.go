package server_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// These tests hold what clients in other languages rely on, point by point of docs/clients.md.

// What clients read of a status before they trust a member: Kubernetes the version, RabbitMQ and Cilium the leader.
func TestStatusAsClientsReadIt(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	lead := c.Member(c.Leader()).ID()
	_, err := dial(t, c.Endpoints()[0]).Put(ctx, put("a", "1"))
	require.NoError(t, err)
	for i, endpoint := range c.Endpoints() {
		m := dial(t, endpoint)
		_, err := m.Range(ctx, get("a"))
		require.NoError(t, err)
		st, err := m.Status(ctx, &pb.StatusRequest{})
		require.NoError(t, err)
		require.Regexp(t, `^[0-9]+\.[0-9]+\.[0-9]+$`, st.Version, "clients take it apart")
		require.Regexp(t, `^3\.[0-9]+\.0$`, st.StorageVersion)
		require.Equal(t, lead, st.Leader)
		require.Equal(t, c.Member(i).ID(), st.Header.MemberId)
		require.Equal(t, st.Header.RaftTerm, st.RaftTerm)
		for name, n := range map[string]uint64{
			"raft term": st.RaftTerm, "raft index": st.RaftIndex, "applied": st.RaftAppliedIndex,
			"size": uint64(st.DbSize), "in use": uint64(st.DbSizeInUse), "quota": uint64(st.DbSizeQuota),
		} {
			require.NotZero(t, n, name)
		}
		require.False(t, st.IsLearner)
	}
}

// Clients that keep the list of members (Patroni, JuiceFS, go-zero, eetcd) go on with the addresses that they find there.
func TestMembersAreWhereTheySay(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	for _, endpoint := range c.Endpoints() {
		list, err := dial(t, endpoint).MemberList(ctx, &pb.MemberListRequest{})
		require.NoError(t, err)
		require.Len(t, list.Members, 3)
		for _, m := range list.Members {
			for _, url := range m.ClientURLs {
				addr, ok := strings.CutPrefix(url, "http://")
				require.True(t, ok, url)
				st, err := dial(t, addr).Status(ctx, &pb.StatusRequest{})
				require.NoError(t, err)
				require.Equal(t, m.ID, st.Header.MemberId, "%s is another member's", url)
			}
		}
	}
	advertised := []string{"http://etcd.example:2379", "https://10.0.0.1:4001"}
	c = servertest.One(t, servertest.WithConfig(func(c *server.Config) { c.AdvertiseClientURLs = advertised }))
	list, err := dial(t, c.Endpoints()[0]).MemberList(ctx, &pb.MemberListRequest{})
	require.NoError(t, err)
	require.Equal(t, advertised, list.Members[0].ClientURLs)
}

// tell is a response without identities, on one line.
func tell(m proto.Message, err error) string {
	if err != nil {
		return status.Code(err).String() + " " + status.Convert(err).Message()
	}
	m = proto.Clone(m)
	if h, ok := m.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		h.GetHeader().ClusterId, h.GetHeader().MemberId, h.GetHeader().RaftTerm = 0, 0, 0
	}
	text := prototext.MarshalOptions{}.Format(m)
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), `"`, "")
}

// TestTransactionsAsClientsReadThem: stolon reads the header of a put's answer, JuiceFS and confd send 128 operations.
func TestTransactionsAsClientsReadThem(t *testing.T) {
	ctx, m := testContext(t), dial(t, servertest.One(t).Endpoints()[0])
	r, err := m.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("a"), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{}}},
		Success: []*pb.RequestOp{
			putOp("a", "1"), {Request: &pb.RequestOp_RequestRange{RequestRange: get("a")}},
			{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("z")}}},
			{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{putOp("b", "")}}}},
		},
	})
	require.NoError(t, err)
	require.True(t, r.Succeeded)
	require.EqualValues(t, 2, r.Header.Revision)
	for i, got := range []*pb.ResponseHeader{
		r.Responses[0].GetResponsePut().Header, r.Responses[1].GetResponseRange().Header, r.Responses[2].GetResponseDeleteRange().Header,
		r.Responses[3].GetResponseTxn().Responses[0].GetResponsePut().Header,
	} {
		require.EqualValues(t, 2, got.GetRevision(), "the header of answer %d", i)
	}
	branch := manyPuts(128)
	r, err = m.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("a"), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 1}}},
		Success: branch, Failure: branch,
	})
	require.NoError(t, err)
	require.Len(t, r.Responses, 128)
	for _, request := range []*pb.TxnRequest{{Success: manyPuts(129)}, {Failure: manyPuts(129)}} {
		_, err = m.Txn(ctx, request)
		require.Equal(t, "InvalidArgument etcdserver: too many operations in txn request", tell(nil, err))
	}
}

// Every way in which clients narrow and sort a range.
func TestRangesAsClientsAsk(t *testing.T) {
	ctx, m := testContext(t), dial(t, servertest.One(t).Endpoints()[0])
	for _, kv := range []string{"c1", "a3", "b2", "a1", "b3", "a2"} { // a: version 3, created at 3, changed at 7
		_, err := m.Put(ctx, put("k/"+kv[:1], kv[1:]))
		require.NoError(t, err)
	}
	keys := func(r *pb.RangeRequest) string {
		t.Helper()
		r.Key, r.RangeEnd = []byte("k/"), []byte("k0")
		got, err := m.Range(ctx, r)
		require.NoError(t, err)
		out := ""
		for _, kv := range got.Kvs {
			out += strings.TrimPrefix(string(kv.Key), "k/")
		}
		require.EqualValues(t, 7, got.Header.Revision)
		require.Equal(t, r.Limit > 0 && int64(len(got.Kvs)) < got.Count, got.More, "more")
		if r.MinModRevision+r.MaxModRevision+r.MinCreateRevision+r.MaxCreateRevision+r.Revision == 0 {
			require.EqualValues(t, 3, got.Count, "count is of the range, whatever the limit")
		}
		return out
	}
	for target, want := range map[pb.RangeRequest_SortTarget]string{
		pb.RangeRequest_KEY: "abc", pb.RangeRequest_VERSION: "cba", pb.RangeRequest_CREATE: "cab", pb.RangeRequest_MOD: "cba", pb.RangeRequest_VALUE: "cab",
	} {
		backward := []byte(want)
		slices.Reverse(backward)
		require.Equal(t, want, keys(&pb.RangeRequest{SortTarget: target, SortOrder: pb.RangeRequest_ASCEND}), target)
		require.Equal(t, string(backward), keys(&pb.RangeRequest{SortTarget: target, SortOrder: pb.RangeRequest_DESCEND}), target)
		require.Equal(t, string(backward[:2]), keys(&pb.RangeRequest{SortTarget: target, SortOrder: pb.RangeRequest_DESCEND, Limit: 2}), target)
	}
	for want, r := range map[string]*pb.RangeRequest{
		"a": {Limit: 1}, "abc": {Limit: 3}, "ac": {Revision: 3}, "bc": {MaxModRevision: 6}, "ab": {MinModRevision: 6},
		"c": {MaxCreateRevision: 2}, "b": {MinCreateRevision: 4}, "": {CountOnly: true},
	} {
		for _, serializable := range []bool{false, true} {
			r.Serializable = serializable
			require.Equal(t, want, keys(r), "%v", r)
		}
	}
	got, err := m.Range(ctx, &pb.RangeRequest{Key: []byte("k/a"), KeysOnly: true})
	require.NoError(t, err)
	require.Equal(t, "header:{revision:7} kvs:{key:k/a create_revision:3 mod_revision:7 version:3} count:1", tell(got, nil))
}
