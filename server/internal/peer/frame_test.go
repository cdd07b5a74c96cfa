package peer

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func newLogger(l *logs) *slog.Logger { return slog.New(l) }

// fed is a reader of bytes that arrive in pieces of at most size.
func fed(b []byte, size int) *reader {
	return &reader{conn: &feed{b: b, size: size}, limit: frameMaxBytes}
}

type feed struct {
	net.Conn
	b    []byte
	size int
}

func (f *feed) Read(p []byte) (int, error) {
	if len(f.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), f.size)], f.b)
	f.b = f.b[n:]
	return n, nil
}

// A frame arrives unchanged in whatever pieces, and every truncation and every single-bit flip of it is found.
func TestFrameChecksum(t *testing.T) {
	sent := []*raftpb.Message{
		message(raftpb.MsgApp, 1, 2, 3, []byte("a"), nil, bytes.Repeat([]byte("b"), 2000)),
		message(raftpb.MsgVoteResp, 1, 2, 4),
	}
	wire, _, err := encodeMessages(nil, sent, nil)
	require.NoError(t, err)
	for _, piece := range []int{1, 15, 17, len(wire), 2 * len(wire)} {
		r := fed(bytes.Repeat(wire, 3), piece)
		for range 3 {
			kind, body, err := r.next()
			require.NoError(t, err)
			require.Equal(t, frameMessages, kind)
			got, err := decodeMessages(body, nil)
			require.NoError(t, err)
			require.Len(t, got, len(sent))
			for i := range sent {
				require.True(t, proto.Equal(sent[i], got[i]))
			}
		}
		_, _, err = r.next()
		require.Equal(t, io.EOF, err)
	}
	for bit := range 8 * len(wire) {
		flipped := bytes.Clone(wire)
		flipped[bit/8] ^= 1 << (bit % 8)
		_, _, err := fed(flipped, len(wire)).next()
		require.ErrorIs(t, err, errChecksum)
	}
	for n := 1; n < len(wire); n++ {
		_, _, err := fed(wire[:n], len(wire)).next()
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
}

// Lengths that no honest member sends are refused before anything is read or allocated for them.
func TestFrameBounds(t *testing.T) {
	for kind := range 256 {
		limit := -1
		if kind > 0 && kind < len(bodyMax) {
			limit = bodyMax[kind]
		}
		header := seal(begin(nil), frameKind(kind))
		withLength := func(n int) []byte {
			h := bytes.Clone(header)
			putHeader(h, n, frameKind(kind), 0)
			return h
		}
		_, _, err := fed(withLength(limit+1), 100).next()
		require.ErrorIs(t, err, errFraming)
		if limit > reasonMaxBytes {
			r := fed(withLength(limit), 100)
			r.limit = reasonMaxBytes
			_, _, err = r.next()
			require.ErrorIs(t, err, errFraming, "before the handshake")
		}
	}
}

// The buffer grows to what a frame needs and shrinks again.
func TestReaderBuffer(t *testing.T) {
	big, small := sealed(frameMessages, make([]byte, frameMaxBytes)), sealed(framePulse)
	middle := sealed(frameMessages, make([]byte, frameSoftBytes))
	r := fed(bytes.Join([][]byte{small, big, small, middle, middle, bytes.Repeat(small, 10*readBytes/len(small))}, nil), 1<<30)
	sizes := []int{0, frameMaxBytes, 0, frameSoftBytes, frameSoftBytes}
	for _, n := range sizes {
		_, body, err := r.next()
		require.NoError(t, err)
		require.Equal(t, n, len(body))
	}
	for range 10 * readBytes / len(small) {
		_, _, err := r.next()
		require.NoError(t, err)
	}
	_, _, err := r.next()
	require.Equal(t, io.EOF, err)
	require.Equal(t, readBytes, len(r.buf))
}

func TestQueueBounds(t *testing.T) {
	q := &queue{}
	for i := range uint64(queueMessagesMax) {
		require.True(t, q.put(item{m: message(raftpb.MsgHeartbeat, 1, 2, i)}, true))
	}
	require.False(t, q.put(item{m: message(raftpb.MsgHeartbeat, 1, 2, 0)}, true))
	next := uint64(0)
	for range 10 * queueMessagesMax { // the slice is used again and again
		got, _ := q.take(nil, 1)
		require.Len(t, got, 1)
		require.Equal(t, next%queueMessagesMax, got[0].GetIndex())
		require.True(t, q.put(item{m: got[0]}, true))
		next++
	}
	require.LessOrEqual(t, cap(q.waiting), 3*queueMessagesMax)
	require.Equal(t, queueMessagesMax, q.reset())
	require.Zero(t, q.bytes)

	require.True(t, q.put(item{m: message(raftpb.MsgApp, 1, 2, 1, make([]byte, 2*queueBytesMax))}, true), "one of any size fits")
	require.False(t, q.put(item{m: message(raftpb.MsgApp, 1, 2, 2)}, true))
	q.take(nil, 0)
	require.Zero(t, q.bytes)
	got, frame := q.take(nil, 1)
	require.Empty(t, got)
	require.Nil(t, frame)

	// A frame that is ready keeps its place among the messages.
	q.put(item{m: message(raftpb.MsgHeartbeat, 1, 2, 1)}, true)
	q.put(item{frame: []byte("frame")}, true)
	q.put(item{m: message(raftpb.MsgHeartbeat, 1, 2, 2)}, true)
	got, frame = q.take(nil, frameSoftBytes)
	require.Len(t, got, 1)
	require.Nil(t, frame)
	got, frame = q.take(nil, frameSoftBytes)
	require.Empty(t, got)
	require.Equal(t, "frame", string(frame))
	got, _ = q.take(nil, frameSoftBytes)
	require.Len(t, got, 1)
	require.Zero(t, q.bytes)
}

func FuzzDecodeMessages(f *testing.F) {
	seed, _, _ := encodeMessages(nil, []*raftpb.Message{message(raftpb.MsgApp, 1, 2, 3, []byte("a"))}, nil)
	f.Add(seed[headerBytes:])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeMessages(b, nil)
		if err != nil {
			return
		}
		again, _, err := encodeMessages(nil, got, nil)
		require.NoError(t, err)
		twice, err := decodeMessages(again[headerBytes:], nil)
		require.NoError(t, err)
		require.Len(t, twice, len(got))
	})
}

// Whatever comes, a reader ends with an error and never hands out more than has arrived.
func FuzzReader(f *testing.F) {
	seed, _, _ := encodeMessages(nil, []*raftpb.Message{message(raftpb.MsgApp, 1, 2, 3, []byte("a"))}, nil)
	f.Add(append(sealed(framePulse), seed...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, total := fed(b, 7), 0
		for {
			_, body, err := r.next()
			if err != nil {
				break
			}
			total += headerBytes + len(body)
		}
		require.LessOrEqual(t, total, len(b))
	})
}
