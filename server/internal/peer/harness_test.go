package peer

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testCluster = 0xc1

// patience bounds every wait of a test; no test is meant to reach it.
const patience = 20 * time.Second

// recorder turns what a Handler is told into channels. The channels are large enough for every test, so that
// it never blocks unless a hook does.
type recorder struct {
	messages  chan *raftpb.Message
	lost      chan uint64
	connected chan uint64
	sent      chan bool

	onMessage  func(*raftpb.Message)
	onSnapshot func(from uint64, m *raftpb.Message, r io.Reader) error
	onCall     func(ctx context.Context, from uint64, method byte, body []byte) ([]byte, error)
}

// recording is the Handler of a recorder; a type of its own so that a node can have the fields without the methods.
type recording struct{ *recorder }

func newRecorder() *recorder {
	return &recorder{
		messages:  make(chan *raftpb.Message, 1<<17),
		lost:      make(chan uint64, 1<<12),
		connected: make(chan uint64, 1<<12),
		sent:      make(chan bool, 16),
	}
}

func (r recording) Messages(_ uint64, ms []*raftpb.Message, _ bool) {
	for _, m := range ms {
		if r.onMessage != nil {
			r.onMessage(m)
		}
		r.messages <- m
	}
}

func (r recording) Snapshot(from uint64, m *raftpb.Message, rd io.Reader) error {
	if r.onSnapshot == nil {
		return errors.New("unexpected snapshot")
	}
	return r.onSnapshot(from, m, rd)
}

func (r recording) Call(ctx context.Context, from uint64, method byte, body []byte) ([]byte, error) {
	return r.onCall(ctx, from, method, body)
}

func (r recording) Unreachable(id uint64)          { offer(r.lost, id) }
func (r recording) Connected(id uint64)            { offer(r.connected, id) }
func (r recording) SnapshotSent(_ uint64, ok bool) { r.sent <- ok }

func offer[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

// node is a transport with a real listener.
type node struct {
	*Transport
	*recorder
	addr   string
	url    []string
	served chan error // what Serve returned
}

// setup is what options of a node may change before it serves.
type setup struct {
	recorder *recorder
	config   Config
	listener net.Listener
	timing   func(*timing)
}

type nodeOption func(*setup)

// start runs member id on addr ("" for any port) until the test ends or stop.
func start(t testing.TB, id uint64, addr string, options ...nodeOption) *node {
	t.Helper()
	l, err := net.Listen("tcp", cmp.Or(addr, "127.0.0.1:0"))
	require.NoError(t, err)
	recorder := newRecorder()
	s := &setup{recorder, Config{ID: id, ClusterID: testCluster, Handler: recording{recorder}}, l, func(*timing) {}}
	for _, o := range options {
		o(s)
	}
	n := &node{recorder: recorder, addr: l.Addr().String(), served: make(chan error, 1)}
	n.url = []string{"http://" + n.addr}
	n.Transport = New(s.config)
	s.timing(&n.timing)
	go func() {
		n.served <- n.Serve(s.listener)
		close(n.served)
	}()
	t.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	n.Close()
	<-n.served
}

func withHandler(f func(*recorder)) nodeOption { return func(s *setup) { f(s.recorder) } }

func withConfig(f func(*Config)) nodeOption { return func(s *setup) { f(&s.config) } }

func withTiming(f func(*timing)) nodeOption { return func(s *setup) { s.timing = f } }

func withListener(f func(net.Listener) net.Listener) nodeOption {
	return func(s *setup) { s.listener = f(s.listener) }
}

// gate is a listener that calls before each Accept.
type gate struct {
	net.Listener
	before func()
}

func (g gate) Accept() (net.Conn, error) {
	g.before()
	return g.Listener.Accept()
}

// pair is two connected members, 1 and 2.
func pair(t *testing.T, optionsOfTwo ...nodeOption) (a, b *node) {
	t.Helper()
	a, b = start(t, 1, ""), start(t, 2, "", optionsOfTwo...)
	join(t, a, b)
	return a, b
}

func join(t *testing.T, a, b *node) {
	t.Helper()
	peers := map[uint64][]string{a.id: a.url, b.id: b.url}
	a.SetPeers(peers)
	b.SetPeers(peers)
	require.Equal(t, b.id, wait(t, a.connected))
	require.Equal(t, a.id, wait(t, b.connected))
}

func wait[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}

func message(kind raftpb.MessageType, from, to, index uint64, data ...[]byte) *raftpb.Message {
	m := &raftpb.Message{Type: kind.Enum(), From: &from, To: &to, Term: proto.Uint64(7), Index: &index}
	for i, d := range data {
		m.Entries = append(m.Entries, &raftpb.Entry{Term: proto.Uint64(7), Index: proto.Uint64(index + 1 + uint64(i)), Data: d})
	}
	return m
}

func snapshotMessage(from, to, index uint64) *raftpb.Message {
	m := message(raftpb.MsgSnap, from, to, 0)
	m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: &index, Term: proto.Uint64(7), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}},
	}}
	return m
}

// logs collects the messages of a logger.
type logs struct {
	slog.Handler
	records chan slog.Record
}

func newLogs() *logs {
	return &logs{Handler: slog.DiscardHandler, records: make(chan slog.Record, 1024)}
}

func (l *logs) Enabled(context.Context, slog.Level) bool { return true }
func (l *logs) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logs) Handle(_ context.Context, r slog.Record) error {
	offer(l.records, r)
	return nil
}

// reasons returns the reason of all records so far that have one.
func (l *logs) reasons() (reasons []string) {
	for {
		select {
		case r := <-l.records:
			r.Attrs(func(a slog.Attr) bool {
				if a.Key == "reason" {
					reasons = append(reasons, a.Value.String())
				}
				return true
			})
		default:
			return reasons
		}
	}
}

// spoiler is called for each piece that a proxy forwards in one direction, with its offset in the connection. It may
// change the bytes, block, or return false to cut the connection.
type spoiler func(offset int64, b []byte) bool

// proxy forwards TCP connections to a target and lets a test spoil the bytes that go there and back.
type proxy struct {
	listener net.Listener
	target   string
	spoil    [2]spoiler // there, back; nil leaves them alone
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
	closed   bool
}

func startProxy(t *testing.T, target string, there, back spoiler) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l, target: target, spoil: [2]spoiler{there, back}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) url() []string { return []string{"http://" + p.listener.Addr().String()} }

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil || !p.keep(in, out) {
			_ = in.Close()
			continue
		}
		p.wg.Go(func() { p.forward(out, in, p.spoil[0]) })
		p.wg.Go(func() { p.forward(in, out, p.spoil[1]) })
	}
}

func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, conns...)
	return !p.closed
}

func (p *proxy) forward(to, from net.Conn, spoil spoiler) {
	defer to.Close()
	defer from.Close()
	var offset int64
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if spoil != nil && n > 0 && !spoil(offset, b[:n]) {
			return
		}
		offset += int64(n)
		if _, werr := to.Write(b[:n]); werr != nil || err != nil {
			return
		}
	}
}

func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	conns := p.conns
	p.mu.Unlock()
	_ = p.listener.Close()
	for _, c := range conns {
		_ = c.Close()
	}
	p.wg.Wait()
}
