package peer

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Messages of a stream arrive complete, in order and unchanged, in both directions at once.
func TestOrderInBothDirections(t *testing.T) {
	const count = 3000
	a, b := pair(t)
	body := bytes.Repeat([]byte("x"), 300)
	send := func(from *node, to uint64) {
		for i := uint64(1); i <= count; i++ {
			from.Send([]*raftpb.Message{
				message(raftpb.MsgApp, from.id, to, i, body, body),
				message(raftpb.MsgHeartbeat, from.id, to, i),
			})
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { send(a, 2) })
	wg.Go(func() { send(b, 1) })
	for _, n := range []*node{a, b} {
		next := map[raftpb.MessageType]uint64{raftpb.MsgApp: 1, raftpb.MsgHeartbeat: 1}
		for range 2 * count {
			got := wait(t, n.messages)
			kind := got.GetType()
			want := message(kind, 3-n.id, n.id, next[kind])
			if kind == raftpb.MsgApp {
				want = message(kind, 3-n.id, n.id, next[kind], body, body)
			}
			if !proto.Equal(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
			next[kind]++
		}
	}
	wg.Wait()
	require.Zero(t, a.Stats().Dropped)
	require.Equal(t, uint64(2*count), a.Stats().MessagesReceived)
}

// What waits for the session is sent as one frame; while there is no session the newest messages are kept.
func TestBatching(t *testing.T) {
	const over = 6
	a := start(t, 1, "")
	held := make(chan struct{})
	b := start(t, 2, "", withListener(func(l net.Listener) net.Listener { return gate{l, func() { <-held }} }))
	b.SetPeers(map[uint64][]string{1: nil})
	a.SetPeers(map[uint64][]string{2: b.url})
	var msgs []*raftpb.Message
	for i := range uint64(queueDownMessagesMax + over) {
		msgs = append(msgs, message(raftpb.MsgHeartbeat, 1, 2, i))
	}
	a.Send(msgs)
	require.Equal(t, uint64(2), wait(t, a.lost), "the dropped ones are reported")
	close(held)
	for i := range uint64(queueDownMessagesMax) {
		require.Equal(t, i+over, wait(t, b.messages).GetIndex())
	}
	require.Equal(t, uint64(1), a.Stats().FramesSent)
	require.Equal(t, uint64(queueDownMessagesMax), a.Stats().MessagesSent)
	require.Equal(t, uint64(over), a.Stats().Dropped)
}

// A receiver that does not read appends delays no heartbeat, and the overflow of its queue is reported.
func TestFullBulkStreamDoesNotDelayControl(t *testing.T) {
	release := make(chan struct{})
	a, b := pair(t, withHandler(func(r *recorder) {
		r.onMessage = func(m *raftpb.Message) {
			if m.GetType() == raftpb.MsgApp {
				<-release
			}
		}
	}))
	defer close(release)
	body := bytes.Repeat([]byte("x"), 256<<10)
	app := []*raftpb.Message{message(raftpb.MsgApp, 1, 2, 1, body)}
	for i := 0; len(a.lost) == 0; i++ {
		require.Less(t, i, 10000, "the queue has no bound")
		a.Send(app)
	}
	require.Equal(t, uint64(2), wait(t, a.lost))
	_, up := a.Active(2)
	require.True(t, up, "an overflow does not break the session")
	for i := range uint64(100) {
		a.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 1, 2, i)})
		got := wait(t, b.messages)
		require.Equal(t, raftpb.MsgHeartbeat, got.GetType())
		require.Equal(t, i, got.GetIndex())
	}
}

// Members of different clusters, and members that are not who they were taken for, never connect. Both sides say why,
// once, however often it is tried.
func TestHandshakeRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		id     uint64 // who answers where member 2 is expected
		urls   map[uint64][]string
		alter  func(*Config)
		reason string
		theirs bool // the answering side logs it too
	}{
		{"cluster", 2, map[uint64][]string{1: nil}, func(c *Config) { c.ClusterID = 0xbad }, "cluster id mismatch: the other side is of cluster c1, this member of bad", true},
		{"member", 3, map[uint64][]string{1: nil}, func(*Config) {}, "member id mismatch: the other side looks for member 2, this is 3", true},
		{"stranger", 2, nil, func(*Config) {}, "member 2 does not know member 1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			attempts := make(chan struct{}, 1024)
			ours, theirs := newLogs(), newLogs()
			a := start(t, 1, "", withConfig(func(c *Config) { c.Logger = newLogger(ours) }))
			b := start(t, c.id, "", withConfig(c.alter), withConfig(func(c *Config) { c.Logger = newLogger(theirs) }),
				withListener(func(l net.Listener) net.Listener { return gate{l, func() { offer(attempts, struct{}{}) }} }))
			b.SetPeers(c.urls)
			a.SetPeers(map[uint64][]string{2: b.url})
			for range 2*4 + 1 { // two connections an attempt
				wait(t, attempts)
			}
			require.Empty(t, a.connected)
			reasons := ours.reasons()
			require.Len(t, reasons, 1)
			require.Contains(t, reasons[0], c.reason)
			if c.theirs {
				said := slices.DeleteFunc(theirs.reasons(), func(s string) bool { return s == errNoURL.Error() })
				require.Equal(t, []string{c.reason}, said)
			}
			_, up := a.Active(2)
			require.False(t, up)
		})
	}
}

// A member that goes is noticed at once, messages of that time are reported lost, and it is found again when it is back.
func TestRestartOfPeer(t *testing.T) {
	a, b := pair(t)
	since, up := a.Active(2)
	require.True(t, up)
	require.WithinDuration(t, time.Now(), since, patience)
	for range 3 {
		b.stop()
		require.Equal(t, uint64(2), wait(t, a.lost))
		_, up = a.Active(2)
		require.False(t, up)
		drain(a.lost)
		b = start(t, 2, b.addr)
		b.SetPeers(map[uint64][]string{1: a.url})
		require.Equal(t, uint64(2), wait(t, a.connected))
		require.Equal(t, uint64(1), wait(t, b.connected))
		a.Send([]*raftpb.Message{message(raftpb.MsgApp, 1, 2, 5, []byte("hello"))})
		require.Equal(t, uint64(5), wait(t, b.messages).GetIndex())
	}
	require.Empty(t, a.connected, "one edge a session")
}

// A member that falls silent without closing anything is given up; one that shows life is not.
func TestSilentPeer(t *testing.T) {
	a := start(t, 1, "", withTiming(func(d *timing) { d.silence = 300 * time.Millisecond }))
	b := start(t, 2, "", withTiming(func(d *timing) { d.pulse = 20 * time.Millisecond }))
	defer a.Close() // lets the proxy go
	frozen, pieces := make(chan struct{}), make(chan struct{}, 1<<10)
	hold := func(int64, []byte) bool {
		select {
		case <-frozen:
			<-a.ctx.Done() // the bytes never arrive, and no end of the connection does
		default:
			offer(pieces, struct{}{})
		}
		return true
	}
	p := startProxy(t, b.addr, hold, hold)
	b.SetPeers(map[uint64][]string{1: a.url})
	a.SetPeers(map[uint64][]string{2: p.url()})
	wait(t, a.connected)
	drain(a.lost)
	since, _ := a.Active(2)
	for time.Since(since) < 2*a.timing.silence {
		wait(t, pieces)
	}
	require.Empty(t, a.lost, "pulses keep the session")
	close(frozen)
	require.Equal(t, uint64(2), wait(t, a.lost))
}

// The peers change: a removed one is left and no longer heard, a moved one is found at its new address.
func TestSetPeers(t *testing.T) {
	a, b := pair(t)
	a.SetPeers(map[uint64][]string{1: a.url, 2: b.url})
	require.Empty(t, a.lost, "nothing changed")
	a.SetPeers(map[uint64][]string{1: a.url})
	require.Equal(t, uint64(2), wait(t, a.lost))
	a.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 1, 2, 1)})
	require.Equal(t, uint64(2), wait(t, a.lost), "no such peer")
	drain(b.lost)
	b.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 2, 1, 1)})
	require.Equal(t, uint64(1), wait(t, b.lost), "the other side ends the stream")
	require.Empty(t, a.messages)

	p := startProxy(t, b.addr, nil, nil)
	a.SetPeers(map[uint64][]string{2: {"http://127.0.0.1:1", p.url()[0]}})
	require.Equal(t, uint64(2), wait(t, a.connected), "the second URL serves when the first does not")
	require.Equal(t, uint64(1), wait(t, b.connected))
	drain(a.lost)
	a.SetPeers(map[uint64][]string{2: b.url})
	require.Equal(t, uint64(2), wait(t, a.lost))
	require.Equal(t, uint64(2), wait(t, a.connected))
	a.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 1, 2, 9)})
	require.Equal(t, uint64(9), wait(t, b.messages).GetIndex())
}

func TestBadURL(t *testing.T) {
	l := newLogs()
	a := start(t, 1, "", withConfig(func(c *Config) { c.Logger = newLogger(l) }))
	a.SetPeers(map[uint64][]string{2: {"tcp:/nowhere"}, 3: nil})
	for range 2 {
		require.Equal(t, "can not connect to a peer", wait(t, l.records).Message)
	}
	a.Send([]*raftpb.Message{snapshotMessage(1, 2, 4)})
	require.False(t, wait(t, a.sent))
	_, err := a.Call(t.Context(), 2, 1, nil)
	require.ErrorIs(t, err, ErrNotConnected)
}

// Messages that are too large are dropped by the sender, and the stream goes on.
func TestOversizedMessage(t *testing.T) {
	a, b := pair(t)
	a.Send([]*raftpb.Message{
		message(raftpb.MsgApp, 1, 2, 1, make([]byte, MaxMessageBytes)),
		message(raftpb.MsgApp, 1, 2, 2, make([]byte, MaxMessageBytes-100)),
		message(raftpb.MsgApp, 1, 2, 3, []byte("small")),
	})
	require.Equal(t, uint64(2), wait(t, a.lost))
	require.Equal(t, uint64(2), wait(t, b.messages).GetIndex())
	require.Equal(t, uint64(3), wait(t, b.messages).GetIndex())
	require.Equal(t, uint64(1), a.Stats().Dropped)
}

// Messages that must not reach raft are dropped; the ones beside them are delivered.
func TestRejectedMessages(t *testing.T) {
	a, b := pair(t)
	peers := map[uint64][]string{1: a.url, 2: b.url, 3: nil}
	b.SetPeers(peers)
	bad := []*raftpb.Message{
		message(raftpb.MsgHeartbeat, 3, 2, 0),     // not the sender of this stream
		message(raftpb.MsgProp, 4, 2, 0),          // forwarded for a stranger
		message(raftpb.MsgHup, 1, 2, 0),           // a member's talk with itself
		message(raftpb.MsgStorageAppend, 1, 2, 0), // likewise
		message(raftpb.MsgUnreachable, 1, 2, 0),   // likewise
	}
	good := []*raftpb.Message{
		message(raftpb.MsgProp, 3, 2, 1, []byte("forwarded")),
		message(raftpb.MsgApp, 1, 2, 2),
	}
	a.Send(append(slices.Clone(bad), good...))
	for range good {
		got := wait(t, b.messages)
		require.True(t, slices.ContainsFunc(good, func(m *raftpb.Message) bool { return proto.Equal(m, got) }), "%v", got)
	}
	// The control stream is its own; one more message on it tells that the bad ones on it were seen.
	a.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 1, 2, 3)})
	require.Equal(t, uint64(3), wait(t, b.messages).GetIndex())
	require.Equal(t, uint64(len(bad)), b.Stats().Rejected)

	misdirected := message(raftpb.MsgHeartbeat, 1, 3, 0)
	require.ErrorContains(t, b.checkMessage(1, misdirected), "addressed to member 3")
}

func TestCall(t *testing.T) {
	block := make(chan struct{})
	a, b := pair(t, withHandler(func(r *recorder) {
		r.onCall = func(ctx context.Context, from uint64, method byte, body []byte) ([]byte, error) {
			switch method {
			case 1:
				return append(body, byte(from)), nil
			case 2:
				<-ctx.Done()
				close(block)
				return nil, ctx.Err()
			case 3:
				return make([]byte, maxCallBytes+1), nil
			}
			return nil, errors.New("no such method")
		}
	}))
	answer, err := a.Call(t.Context(), 2, 1, []byte("ping"))
	require.NoError(t, err)
	require.Equal(t, "ping\x01", string(answer))
	answer, err = a.Call(t.Context(), 2, 1, nil)
	require.NoError(t, err)
	require.Equal(t, "\x01", string(answer))

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = a.Call(ctx, 2, 2, nil)
	require.ErrorContains(t, err, "deadline")
	wait(t, block) // the other side was told

	_, err = a.Call(t.Context(), 2, 3, nil)
	require.Error(t, err, "too large an answer")
	_, err = a.Call(t.Context(), 2, 1, make([]byte, maxCallBytes+1))
	require.Error(t, err, "too large a question")
	_, err = a.Call(t.Context(), 2, 9, nil)
	require.ErrorContains(t, err, "no such method")
	_, err = a.Call(t.Context(), 9, 1, nil)
	require.ErrorIs(t, err, ErrUnknownPeer)
	b.stop()
	wait(t, a.lost)
	_, err = a.Call(t.Context(), 2, 1, nil)
	require.ErrorIs(t, err, ErrNotConnected)
	a.Close()
	_, err = a.Call(t.Context(), 2, 1, nil)
	require.ErrorIs(t, err, ErrClosed)
}

// Close ends what is under way on both sides, and the handler hears nothing afterwards.
func TestClose(t *testing.T) {
	entered := make(chan struct{})
	a, b := pair(t, withHandler(func(r *recorder) {
		r.onCall = func(ctx context.Context, _ uint64, _ byte, _ []byte) ([]byte, error) {
			close(entered)
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
	}))
	failed := make(chan error, 1)
	go func() {
		_, err := a.Call(t.Context(), 2, 1, nil)
		failed <- err
	}()
	wait(t, entered)
	b.Close()
	b.Close()
	require.Error(t, wait(t, failed))
	b.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 2, 1, 1), snapshotMessage(2, 1, 1)})
	b.SetPeers(map[uint64][]string{1: a.url})
	drain(b.lost)
	drain(b.connected)
	require.Equal(t, uint64(2), wait(t, a.lost))
	a.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 1, 2, 1)})
	a.Close()
	require.Empty(t, b.messages)
	require.Empty(t, b.sent)
	require.Empty(t, b.connected)
	require.Empty(t, b.lost)
	New(Config{ID: 1, Handler: recording{newRecorder()}}).Close() // without ever being used
}

func drain[T any](c chan T) {
	for len(c) > 0 {
		<-c
	}
}
