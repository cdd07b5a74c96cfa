package peer

import (
	"bytes"
	"io"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func newLogger(l *logs) *slog.Logger { return slog.New(l) }

// A frame survives the codec unchanged, and every single-bit flip of it is found.
func TestFrameChecksum(t *testing.T) {
	sent := []*raftpb.Message{
		message(raftpb.MsgApp, 1, 2, 3, []byte("a"), nil, bytes.Repeat([]byte("b"), 2000)),
		message(raftpb.MsgVoteResp, 1, 2, 4),
	}
	f, _, err := encodeMessages(sent, nil)
	require.NoError(t, err)
	wire := bytes.Clone(f.buf.ReadOnlyData())
	out, err := codec{}.Marshal(f)
	require.NoError(t, err)
	require.Equal(t, wire, out.Materialize())

	var in frame
	require.NoError(t, codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire[:10]), mem.SliceBuffer(wire[10:])}, &in))
	var got []*raftpb.Message
	require.NoError(t, decodeMessages(in.body(), func(m *raftpb.Message) error { got = append(got, m); return nil }))
	require.Len(t, got, len(sent))
	for i := range sent {
		require.True(t, proto.Equal(sent[i], got[i]))
	}
	for bit := range 8 * len(wire) {
		flipped := bytes.Clone(wire)
		flipped[bit/8] ^= 1 << (bit % 8)
		require.ErrorIs(t, codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(flipped)}, &frame{}), errChecksum)
	}
	require.ErrorIs(t, codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire[:3])}, &frame{}), errFraming)
}

// What a stranger sends in place of the protocol is refused with a code, and the member goes on.
func TestRawStreams(t *testing.T) {
	b := start(t, 2, "")
	b.SetPeers(map[uint64][]string{1: nil})
	conn, err := b.dial(b.url)
	require.NoError(t, err)
	defer conn.Close()
	good := hello{testCluster, 1, 2}
	for _, c := range []struct {
		name string
		send *frame
		code codes.Code
	}{
		{"oversized frame", sealBytes(make([]byte, frameMaxBytes)), codes.ResourceExhausted},
		{"bad checksum", &frame{buf: mem.SliceBuffer("0123456789")}, codes.Internal},
		{"bad framing", sealBytes([]byte{200, 1, 1}), codes.InvalidArgument},
		{"no message", sealBytes([]byte{2, 0xff, 0xff}), codes.InvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			stream := rawStream(t, conn, good, methodBulk, bulkDesc)
			// The client's own limit on sending must not be what refuses.
			if err := stream.SendMsg(c.send); err != nil {
				require.Equal(t, "oversized frame", c.name)
				require.Equal(t, codes.ResourceExhausted, status.Code(err))
				return
			}
			for err = nil; err == nil; {
				err = stream.RecvMsg(&frame{})
			}
			require.Equal(t, c.code, status.Code(err), "%v", err)
		})
	}
	for name, md := range map[string]metadata.MD{
		"nothing":      {},
		"old protocol": metadata.Join(metadata.Pairs(keyProtocol, "0"), good.metadata()),
		"bad id":       metadata.Join(metadata.Pairs(keyFrom, "x"), good.metadata()),
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := conn.NewStream(metadata.NewOutgoingContext(t.Context(), md), bulkDesc, methodBulk)
			require.NoError(t, err)
			require.Equal(t, codes.FailedPrecondition, status.Code(stream.RecvMsg(&frame{})))
		})
	}
	stream := rawStream(t, conn, good, methodBulk, bulkDesc)
	require.NoError(t, stream.SendMsg(sealBytes()))
	require.NoError(t, stream.CloseSend())
	require.ErrorIs(t, stream.RecvMsg(&frame{}), io.EOF)
}

func TestQueueBounds(t *testing.T) {
	q := newQueue()
	q.open()
	for i := range uint64(queueMessagesMax) {
		require.True(t, q.put(message(raftpb.MsgHeartbeat, 1, 2, i)))
	}
	require.False(t, q.put(message(raftpb.MsgHeartbeat, 1, 2, 0)))
	next := uint64(0)
	for range 10 * queueMessagesMax { // the slice is used again and again
		got := q.take(nil, 1)
		require.Len(t, got, 1)
		require.Equal(t, next%queueMessagesMax, got[0].GetIndex())
		require.True(t, q.put(got[0]))
		next++
	}
	require.LessOrEqual(t, cap(q.waiting), 3*queueMessagesMax)
	require.Equal(t, queueMessagesMax, q.reset(true))
	require.Zero(t, q.bytes)

	require.True(t, q.put(message(raftpb.MsgApp, 1, 2, 1, make([]byte, 2*queueBytesMax))), "one of any size fits")
	require.False(t, q.put(message(raftpb.MsgApp, 1, 2, 2)))
	q.take(nil, 0)
	require.Zero(t, q.bytes)
	require.Empty(t, q.take(nil, 1))
}

func FuzzDecodeMessages(f *testing.F) {
	seed, _, _ := encodeMessages([]*raftpb.Message{message(raftpb.MsgApp, 1, 2, 3, []byte("a"))}, nil)
	f.Add(seed.body())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []*raftpb.Message
		if decodeMessages(b, func(m *raftpb.Message) error { got = append(got, m); return nil }) != nil {
			return
		}
		again, _, err := encodeMessages(got, nil)
		require.NoError(t, err)
		var twice []*raftpb.Message
		require.NoError(t, decodeMessages(again.body(), func(m *raftpb.Message) error { twice = append(twice, m); return nil }))
		require.Len(t, twice, len(got))
	})
}
