package rpc

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// FuzzCheck: whatever a client sends is refused or can be carried out. The first
// byte chooses the request, the rest is its encoding, as on the wire.
func FuzzCheck(f *testing.F) {
	seed := func(kind byte, m proto.Message) {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(append([]byte{kind}, b...))
	}
	seed(0, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte{0}, Limit: 1, SortOrder: 2, SortTarget: 4, Revision: 2})
	seed(1, &pb.PutRequest{Key: []byte("a"), Value: []byte("v"), Lease: 1, PrevKv: true})
	seed(1, &pb.PutRequest{Key: []byte("a"), IgnoreValue: true, IgnoreLease: true})
	seed(2, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("c"), PrevKv: true})
	seed(3, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("a"), RangeEnd: []byte{0}, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 2}}},
		Success: []*pb.RequestOp{putOp("a"), rangeOp("a"), txnOp([]*pb.RequestOp{putOp("b")}, []*pb.RequestOp{deleteOp("c", "d")})},
		Failure: []*pb.RequestOp{deleteOp("a", "\x00")},
	})
	seed(3, &pb.TxnRequest{Success: []*pb.RequestOp{nil, {}, putOp("a"), putOp("a")}})
	seed(4, &pb.CompactionRequest{Revision: 2})
	seed(5, &pb.LeaseGrantRequest{ID: 1, TTL: 9_000_000_001})
	seed(6, &pb.AlarmRequest{Action: 1, MemberID: 1, Alarm: 2})
	seed(7, &pb.DowngradeRequest{Action: 1, Version: "3.6.0-rc.1+b"})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 0 {
			checkThenApply(t, data[0], data[1:])
		}
	})
}

func checkThenApply(t *testing.T, kind byte, data []byte) {
	limits := Limits{}.WithDefaults()
	accept := func(m proto.Message, check func() error) bool {
		return proto.Unmarshal(data, m) == nil && check() == nil
	}
	machine := state.New(state.Config{})
	apply := func(kind state.Kind, request any) {
		index, _ := machine.Applied()
		command := state.Command{Kind: kind, Request: request}
		encoded, err := command.AppendTo(nil)
		require.NoError(t, err)
		decoded, err := state.DecodeCommand(encoded)
		require.NoError(t, err)
		machine.Apply(index+1, 1, []state.Command{decoded})
		require.NoError(t, machine.Check())
	}
	apply(state.KindLeaseGrant, &pb.LeaseGrantRequest{ID: 1, TTL: 5})
	for _, key := range []string{"a", "b", "a"} {
		apply(state.KindPut, &pb.PutRequest{Key: []byte(key), Value: []byte("v")})
	}
	none := func() error { return nil }
	switch kind % 8 {
	case 0:
		r := new(pb.RangeRequest)
		if accept(r, func() error { return checkRange(r) }) {
			_, _ = machine.View().Range(r)
			_ = checkRangeStream(r)
		}
	case 1:
		if r := new(pb.PutRequest); accept(r, func() error { return checkPut(r) }) {
			apply(state.KindPut, r)
		}
	case 2:
		if r := new(pb.DeleteRangeRequest); accept(r, func() error { return checkDeleteRange(r) }) {
			apply(state.KindDeleteRange, r)
		}
	case 3:
		r := new(pb.TxnRequest)
		if accept(r, func() error { return checkTxn(r, limits.TxnOps) }) {
			_, _ = machine.View().Txn(proto.CloneOf(r))
			apply(state.KindTxn, r)
		}
	case 4:
		if r := new(pb.CompactionRequest); accept(r, none) {
			apply(state.KindCompact, r)
		}
	case 5:
		if r := new(pb.LeaseGrantRequest); accept(r, none) {
			apply(state.KindLeaseGrant, r)
		}
	case 6:
		if r := new(pb.AlarmRequest); accept(r, none) {
			apply(state.KindAlarm, r)
			apply(state.KindRaise, r)
			apply(state.KindPut, &pb.PutRequest{Key: []byte("after")})
		}
	case 7:
		if r := new(pb.DowngradeRequest); accept(r, none) {
			if v, ok := clusterVersion(r.Version); ok {
				again, ok := clusterVersion(v)
				require.True(t, ok)
				require.Equal(t, v, again)
			}
		}
	}
}
