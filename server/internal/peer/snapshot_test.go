package peer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// blob is a Snapshot of bytes.
type blob struct {
	data   []byte
	size   int64 // what it claims
	before func(written int)
	closed *atomic.Bool
}

func newBlob(n int) *blob {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(data) // it never fails
	return &blob{data: data, size: int64(n), closed: new(atomic.Bool)}
}

func (b *blob) Size() int64 { return b.size }

func (b *blob) WriteTo(w io.Writer) (int64, error) {
	const piece = 10_000 // not a divisor of a chunk
	for n := 0; n < len(b.data); n += piece {
		if b.before != nil {
			b.before(n)
		}
		if _, err := w.Write(b.data[n:min(n+piece, len(b.data))]); err != nil {
			return int64(n), err
		}
	}
	return int64(len(b.data)), nil
}

func (b *blob) Close() error {
	b.closed.Store(true)
	return nil
}

// snapshotPair is two members where 1 sends b. What 2 read, and with what error, comes on the channel.
func snapshotPair(t *testing.T, b *blob) (sender, receiver *node, read chan result) {
	read = make(chan result, 4)
	sender = start(t, 1, "", withConfig(func(c *Config) {
		c.OpenSnapshot = func(m *raftpb.Message) (Snapshot, error) {
			m.Snapshot.Metadata.Index = proto.Uint64(99)
			return b, nil
		}
	}))
	receiver = start(t, 2, "", withHandler(func(r *recorder) {
		r.onSnapshot = func(from uint64, m *raftpb.Message, rd io.Reader) error {
			data, err := io.ReadAll(rd)
			read <- result{from, m, data, err}
			return err
		}
	}))
	return sender, receiver, read
}

type result struct {
	from uint64
	m    *raftpb.Message
	data []byte
	err  error
}

func TestSnapshot(t *testing.T) {
	for _, size := range []int{0, 1, chunkBytes - 1, chunkBytes, chunkBytes + 1, 5<<20 + 17} {
		b := newBlob(size)
		sender, receiver, read := snapshotPair(t, b)
		join(t, sender, receiver)
		m := snapshotMessage(1, 2, 42)
		m.Snapshot.Data = []byte("not sent")
		sender.Send([]*raftpb.Message{m})
		got := wait(t, read)
		require.NoError(t, got.err)
		require.True(t, bytes.Equal(b.data, got.data), "size %d", size)
		require.Equal(t, uint64(1), got.from)
		require.True(t, proto.Equal(snapshotMessage(1, 2, 99), got.m), "%v", got.m)
		require.True(t, wait(t, sender.sent))
		require.True(t, b.closed.Load())
		require.Equal(t, uint64(42), m.GetSnapshot().GetMetadata().GetIndex(), "raft's message is read-only")
		sender.stop()
		receiver.stop()
	}
}

// A transfer that is cut, or has one byte flipped anywhere, fails on both sides: the reader never ends with io.EOF.
func TestSnapshotSpoiled(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(b []byte) bool
	}{
		{"cut", func([]byte) bool { return false }},
		{"flipped byte", func(b []byte) bool { b[len(b)/2] ^= 0x10; return true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			sender, receiver, read := snapshotPair(t, newBlob(4<<20))
			var spoiled atomic.Int32
			p := startProxy(t, receiver.addr, func(offset int64, b []byte) bool {
				// Deep inside the data, in a piece that is large enough to be mostly payload, once.
				if offset < 1<<20 || len(b) < 8<<10 || !spoiled.CompareAndSwap(0, 1) {
					return true
				}
				return c.spoil(b)
			}, nil)
			receiver.SetPeers(map[uint64][]string{1: nil})
			sender.SetPeers(map[uint64][]string{2: p.url()})
			wait(t, sender.connected)
			sender.Send([]*raftpb.Message{snapshotMessage(1, 2, 42)})
			require.False(t, wait(t, sender.sent))
			require.Error(t, wait(t, read).err)
			require.Equal(t, int32(1), spoiled.Load())

			// It is not the end: an attempt goes through once the session is back and the receiver is done with the
			// first one, whose end it may see later than the sender.
			for again := true; again; {
				for {
					if _, up := sender.Active(2); up {
						break
					}
					wait(t, sender.connected)
				}
				sender.Send([]*raftpb.Message{snapshotMessage(1, 2, 42)})
				again = !wait(t, sender.sent)
			}
			require.NoError(t, wait(t, read).err)
		})
	}
}

// Frames that pass their own checksum but do not add up to the whole checkpoint are refused.
func TestSnapshotDigest(t *testing.T) {
	receiver := start(t, 2, "")
	read := make(chan error, 1)
	receiver.onSnapshot = func(_ uint64, _ *raftpb.Message, rd io.Reader) error {
		_, err := io.ReadAll(rd)
		read <- err
		return err
	}
	receiver.SetPeers(map[uint64][]string{1: nil})
	head, err := proto.Marshal(snapshotMessage(1, 2, 42))
	require.NoError(t, err)
	data := []byte("four score and seven years ago")
	sum := sha256.Sum256(data)
	size := func(n int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }
	begins := sealed(frameHead, size(len(data)), head)
	ends := sealed(frameEnd, size(len(data)), sum[:])
	for _, c := range []struct {
		name   string
		want   error
		frames [][]byte
	}{
		{"good", nil, [][]byte{begins, sealed(frameData, data), ends}},
		{"other bytes", errSnapshotDigest, [][]byte{begins, sealed(frameData, bytes.ToUpper(data)), ends}},
		{"too short", errSnapshotDigest, [][]byte{begins, sealed(frameData, data[:3]), ends}},
		{"too long", errSnapshotDigest, [][]byte{sealed(frameHead, size(3), head), sealed(frameData, data)}},
		{"no end", io.ErrUnexpectedEOF, [][]byte{begins, sealed(frameData, data)}},
		{"nonsense", errFraming, [][]byte{begins, sealed(framePulse)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := stranger(t, receiver.addr)
			require.NoError(t, conn.greet(hello{testCluster, 1, 2, kindSnapshot}))
			_, err := conn.Write(bytes.Join(c.frames, nil))
			require.NoError(t, err)
			require.NoError(t, conn.Conn.(*net.TCPConn).CloseWrite())
			err = conn.verdict()
			got := wait(t, read)
			if c.want == nil {
				require.NoError(t, err)
				require.NoError(t, got)
				return
			}
			require.ErrorContains(t, err, c.want.Error())
			require.ErrorIs(t, got, c.want)
		})
	}
}

// Every MsgSnap ends in one SnapshotSent, also when the transfer never begins or the handler refuses it.
func TestSnapshotFailures(t *testing.T) {
	t.Run("no peer", func(t *testing.T) {
		a := start(t, 1, "")
		a.Send([]*raftpb.Message{snapshotMessage(1, 9, 1)})
		require.False(t, wait(t, a.sent))
	})
	t.Run("no snapshotter", func(t *testing.T) {
		a, _ := pair(t)
		a.Send([]*raftpb.Message{snapshotMessage(1, 2, 1)})
		require.False(t, wait(t, a.sent))
	})
	t.Run("wrong size", func(t *testing.T) {
		b := newBlob(1000)
		b.size = 1001
		sender, receiver, read := snapshotPair(t, b)
		join(t, sender, receiver)
		sender.Send([]*raftpb.Message{snapshotMessage(1, 2, 1)})
		require.False(t, wait(t, sender.sent))
		require.Error(t, wait(t, read).err)
		require.True(t, b.closed.Load())
	})
	t.Run("handler refuses", func(t *testing.T) {
		sender, receiver, _ := snapshotPair(t, newBlob(8<<20))
		receiver.onSnapshot = func(uint64, *raftpb.Message, io.Reader) error { return errors.New("disk is full") }
		join(t, sender, receiver)
		sender.Send([]*raftpb.Message{snapshotMessage(1, 2, 1)})
		require.False(t, wait(t, sender.sent))
	})
	t.Run("handler does not read to the end", func(t *testing.T) {
		sender, receiver, _ := snapshotPair(t, newBlob(1000))
		receiver.onSnapshot = func(_ uint64, _ *raftpb.Message, r io.Reader) error {
			_, err := io.ReadFull(r, make([]byte, 1000))
			return err
		}
		join(t, sender, receiver)
		sender.Send([]*raftpb.Message{snapshotMessage(1, 2, 1)})
		require.False(t, wait(t, sender.sent))
	})
	t.Run("peer is down", func(t *testing.T) {
		sender, receiver, _ := snapshotPair(t, newBlob(1000))
		join(t, sender, receiver)
		receiver.stop()
		sender.Send([]*raftpb.Message{snapshotMessage(1, 2, 1)})
		require.False(t, wait(t, sender.sent))
	})
}

// While one is under way a second one to the same member fails at once, and Close on either side ends it.
func TestSnapshotOneAtATimeAndClose(t *testing.T) {
	for _, closer := range []string{"sender", "receiver"} {
		t.Run(closer, func(t *testing.T) {
			b := newBlob(16 << 20) // more than the windows hold
			sender, receiver, _ := snapshotPair(t, b)
			started, left, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			receiver.onSnapshot = func(_ uint64, _ *raftpb.Message, r io.Reader) error {
				_, err := io.ReadFull(r, make([]byte, 1))
				close(started)
				if err == nil {
					_, err = io.Copy(slowly{receiver.ctx.Done(), left}, r)
				}
				ended <- err
				return err
			}
			join(t, sender, receiver)
			sender.Send([]*raftpb.Message{snapshotMessage(1, 2, 1)})
			wait(t, started)
			sender.Send([]*raftpb.Message{snapshotMessage(1, 2, 1)})
			require.False(t, wait(t, sender.sent))
			if closer == "sender" {
				sender.Close()
				close(left) // not before: a receiver that is quick might get it all
			} else {
				receiver.Close()
			}
			require.False(t, wait(t, sender.sent))
			require.Error(t, wait(t, ended))
			require.True(t, b.closed.Load())
		})
	}
}

// slowly is a writer that takes nothing until one of the channels is closed.
type slowly [2]<-chan struct{}

func (s slowly) Write(p []byte) (int, error) {
	select {
	case <-s[0]:
	case <-s[1]:
	}
	return len(p), nil
}
