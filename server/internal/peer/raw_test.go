package peer

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// stranger is a connection to a member by somebody who speaks as a test tells him.
func stranger(t testing.TB, addr string) *connection {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = raw.Close() })
	require.NoError(t, raw.SetDeadline(time.Now().Add(patience)))
	return newConnection(raw)
}

// ended waits for the end of a connection and returns the frames that came before.
func ended(t *testing.T, c *connection) (kinds []frameKind, last string) {
	t.Helper()
	for {
		kind, body, err := c.in.next()
		if err != nil {
			require.NotErrorIs(t, err, errSilent, "it was not ended")
			return kinds, last
		}
		if kind != framePulse {
			kinds, last = append(kinds, kind), string(body)
		}
	}
}

var good = hello{testCluster, 1, 2, kindBulk}

// What a stranger sends in place of the protocol ends his connection, and the member goes on.
func TestGarbage(t *testing.T) {
	theirs := newLogs()
	b := start(t, 2, "", withConfig(func(c *Config) { c.Logger = newLogger(theirs) }))
	b.SetPeers(map[uint64][]string{1: nil})
	altered := func(f func(*hello)) []byte {
		h := good
		f(&h)
		return h.encode()
	}
	line := []byte(greeting + "\n")
	for _, c := range []struct {
		name   string
		send   []byte
		reason string // of the refusal; empty: cut off without a word
	}{
		{"another protocol", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ""},
		{"random bytes", bytes.Repeat([]byte{0xa5}, 100_000), ""},
		{"another version", []byte(protocol + "1\n"), `the other side speaks "1", this member "2"`},
		{"bad cluster", altered(func(h *hello) { h.cluster++ }), "cluster id mismatch"},
		{"bad member", altered(func(h *hello) { h.to++ }), "member id mismatch"},
		{"unknown member", altered(func(h *hello) { h.from = 77 }), "does not know member 4d"},
		{"bad kind", altered(func(h *hello) { h.kind = 9 }), "unknown kind 9"},
		{"not a hello", append(bytes.Clone(line), sealed(framePulse)...), errFraming.Error()},
		{"large first frame", append(bytes.Clone(line), sealed(frameMessages, make([]byte, 2000))...), errFraming.Error()},
		{"bad checksum", append(bytes.Clone(line), make([]byte, headerBytes)...), errChecksum.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := stranger(t, b.addr)
			_, _ = conn.Write(c.send)
			_, err := conn.readHello()
			require.Error(t, err)
			if c.reason != "" && c.name != "large first frame" { // whose unread bytes may take the reason back
				require.ErrorContains(t, err, c.reason)
			}
		})
	}
	for range 10 * refusalsMax { // does not fill the log
		conn := stranger(t, b.addr)
		_, _ = conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
		_, _ = io.Copy(io.Discard, conn)
	}
	require.LessOrEqual(t, len(theirs.reasons()), 12)
	conn := stranger(t, b.addr)
	require.NoError(t, conn.greet(good))
	frame, _, err := encodeMessages(nil, []*raftpb.Message{message(raftpb.MsgApp, 1, 2, 5)}, nil)
	require.NoError(t, err)
	_, err = conn.Write(frame)
	require.NoError(t, err)
	require.Equal(t, uint64(5), wait(t, b.messages).GetIndex())
}

// A greeted connection that sends what it must not is ended, and only that one.
func TestBadFrames(t *testing.T) {
	b := start(t, 2, "")
	b.SetPeers(map[uint64][]string{1: nil, 3: nil})
	other := stranger(t, b.addr)
	require.NoError(t, other.greet(hello{testCluster, 3, 2, kindControl}))
	whole, _, err := encodeMessages(nil, []*raftpb.Message{message(raftpb.MsgApp, 1, 2, 3, []byte("abc"))}, nil)
	require.NoError(t, err)
	bad := map[string][]byte{
		"bad framing":        sealed(frameMessages, []byte{200, 1, 1}),
		"no message":         sealed(frameMessages, []byte{2, 0xff, 0xff}),
		"call on bulk":       sealed(frameQuestion, make([]byte, 20)),
		"pulse from dialler": sealed(framePulse),
		"second hello":       good.encode()[len(greeting)+1:],
	}
	for name, send := range bad {
		t.Run(name, func(t *testing.T) {
			conn := stranger(t, b.addr)
			require.NoError(t, conn.greet(good))
			_, err := conn.Write(send)
			require.NoError(t, err)
			kinds, _ := ended(t, conn)
			require.Equal(t, []frameKind{frameRefusal}, kinds)
		})
	}
	spoiled := func(send []byte) {
		conn := stranger(t, b.addr)
		require.NoError(t, conn.greet(good))
		_, err := conn.Write(send)
		require.NoError(t, err)
		require.NoError(t, conn.Conn.(*net.TCPConn).CloseWrite())
		ended(t, conn)
	}
	for n := 1; n < len(whole); n++ {
		spoiled(whole[:n])
	}
	for bit := range 8 * len(whole) {
		flipped := bytes.Clone(whole)
		flipped[bit/8] ^= 1 << (bit % 8)
		spoiled(flipped)
	}
	require.Empty(t, b.messages)

	heartbeat, _, err := encodeMessages(nil, []*raftpb.Message{message(raftpb.MsgHeartbeat, 3, 2, 4)}, nil)
	require.NoError(t, err)
	_, err = other.Write(heartbeat)
	require.NoError(t, err)
	require.Equal(t, uint64(4), wait(t, b.messages).GetIndex(), "the other connection is as it was")
}

// Connections that say nothing are bounded in number and time, and cost those that are there nothing.
func TestHalfOpenHandshakes(t *testing.T) {
	b := start(t, 2, "", withTiming(func(d *timing) { d.open = 500 * time.Millisecond }))
	b.SetPeers(map[uint64][]string{1: nil})
	first := stranger(t, b.addr)
	require.NoError(t, first.greet(good))
	var silent []*connection
	for range 2 * handshakesMax {
		conn := stranger(t, b.addr)
		_, _ = conn.Write([]byte(greeting)) // without the newline; the surplus ones may be closed already
		silent = append(silent, conn)
	}
	// They keep nobody out: one that says who it is comes in while they wait.
	require.NoError(t, stranger(t, b.addr).greet(hello{good.cluster, good.from, good.to, kindControl}))
	for _, conn := range silent {
		_, err := conn.in.line(greetingMax)
		require.Error(t, err)
		require.NotErrorIs(t, err, errSilent)
	}
	require.GreaterOrEqual(t, b.Stats().Rejected, uint64(2*handshakesMax))
	frame, _, err := encodeMessages(nil, []*raftpb.Message{message(raftpb.MsgApp, 1, 2, 5)}, nil)
	require.NoError(t, err)
	_, err = first.Write(frame)
	require.NoError(t, err)
	require.Equal(t, uint64(5), wait(t, b.messages).GetIndex())

	// A newer connection of one kind ends the older one.
	require.NoError(t, stranger(t, b.addr).greet(good))
	ended(t, first)
}
