package codecgrpc

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Both codecs give the same, for small messages and for those that have a buffer of the pool, hot or not, and what is no
// message gets the same refusal.
func TestSameAsGRPC(t *testing.T) {
	theirs, ours := encoding.GetCodecV2(grpcproto.Name), New()
	require.Equal(t, theirs.Name(), ours.Name())
	for _, v := range []any{
		&pb.PutRequest{Key: []byte("key"), Value: []byte("value")},
		&pb.PutRequest{Key: []byte("key"), Value: make([]byte, 100_000)},
		&pb.PutRequest{},
		&pb.MemberListResponse{Members: []*pb.Member{{Name: "name"}}},
		&pb.MemberListResponse{Members: []*pb.Member{{Name: string(make([]byte, 10_000))}}},
		&pb.WatchResponse{CancelReason: "\xff"},
		&pb.WatchResponse{CancelReason: "\xff" + string(make([]byte, 10_000))},
		"no message",
	} {
		want, wantErr := theirs.Marshal(v)
		got, err := ours.Marshal(v)
		if wantErr != nil {
			require.EqualError(t, err, wantErr.Error())
			continue
		}
		require.NoError(t, err)
		encoded := got.Materialize()
		require.Equal(t, string(want.Materialize()), string(encoded))

		// In pieces, as it comes from the network.
		cut := len(encoded) / 2
		back := v.(proto.Message).ProtoReflect().New().Interface()
		require.NoError(t, ours.Unmarshal(mem.BufferSlice{mem.SliceBuffer(encoded[:cut]), mem.SliceBuffer(encoded[cut:])}, back))
		got.Free()
		require.True(t, proto.Equal(v.(proto.Message), back))
	}
	nonsense := mem.BufferSlice{mem.SliceBuffer("\x0a\x05a")}
	require.EqualError(t, ours.Unmarshal(nonsense, &pb.PutRequest{}), theirs.Unmarshal(nonsense, &pb.PutRequest{}).Error())
	require.EqualError(t, ours.Unmarshal(nonsense, "no message"), theirs.Unmarshal(nonsense, "no message").Error())
}
