package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

var (
	// ErrClosed answers calls on a closed Transport.
	ErrClosed = errors.New("peer transport is closed")
	// ErrUnknownPeer answers a Call to a member that SetPeers did not name.
	ErrUnknownPeer = errors.New("unknown peer")
	// ErrNotConnected answers a Call to a member without a session. The question was not sent.
	ErrNotConnected = errors.New("peer is not connected")
)

const refusalsMax = 64 // distinct refusals that are logged; see refuse

// Handler is what a Transport tells. Its methods are called from many goroutines at once, and never after Close.
type Handler interface {
	// Messages delivers the checked messages of one frame, in order, at least one. The handler owns them, but not the
	// slice. more tells that others have arrived behind them. The connection waits meanwhile: what the other member sends
	// stays in the socket's buffers, and if they are full for seconds, the session breaks.
	Messages(from uint64, ms []*raftpb.Message, more bool)
	// Snapshot delivers a checkpoint that member from streams; m is the MsgSnap, which the handler steps itself. It
	// returns when the checkpoint is durable. r returns io.EOF only after size and SHA-256 were verified; returning
	// nil before that is a failure. At most one runs at a time.
	Snapshot(from uint64, m *raftpb.Message, r io.Reader) error
	// Call answers a small question. The answer may have up to 1 MiB. An error reaches the caller as its text.
	Call(ctx context.Context, from uint64, method byte, body []byte) ([]byte, error)
	// Unreachable tells that messages to the member may have been lost: a queue overflowed, or the session broke, in
	// which case Active already says so. It must not block, and may be called from within Send.
	Unreachable(id uint64)
	// Connected tells that a session with the member is up. It must not block. For one member, Connected and the
	// Unreachable of a broken session alternate.
	Connected(id uint64)
	// SnapshotSent ends every MsgSnap given to Send: ok when the member has it durably. It may be called from within
	// Send, and must not block.
	SnapshotSent(id uint64, ok bool)
}

// Snapshot is a checkpoint to be sent. WriteTo writes exactly Size bytes.
type Snapshot interface {
	io.WriterTo
	Size() int64
	Close() error
}

// Snapshotter opens the checkpoint that goes with a MsgSnap. It is given a copy and may rewrite the metadata of its
// snapshot to those of the checkpoint; Data is not sent. It is called on the goroutine that sends the checkpoint.
type Snapshotter func(m *raftpb.Message) (Snapshot, error)

// Config configures a Transport. ID, ClusterID and Handler are required.
type Config struct {
	ID, ClusterID uint64
	Handler       Handler
	OpenSnapshot  Snapshotter  // nil: every snapshot fails
	Logger        *slog.Logger // nil: discarded
	Secure        Secure       // zero: connections are not encrypted
	Standing      Standing
}

// Secure puts TLS over connections. Both functions do the whole handshake before they return, and end with ctx. What they
// return reads from and writes to the connection that they were given, and nothing else: see link.
type Secure struct {
	// Client is for connections to https URLs; name is the host of the URL.
	Client func(ctx context.Context, c net.Conn, name string) (net.Conn, error)
	// Server is for all connections that Serve accepts.
	Server func(ctx context.Context, c net.Conn) (net.Conn, error)
}

// Stats counts since New.
type Stats struct {
	FramesSent, MessagesSent, BytesSent             uint64 // bytes of frames with messages
	FramesReceived, MessagesReceived, BytesReceived uint64
	Dropped                                         uint64 // given to Send and not sent: no peer, full queue, too large, broken session
	Rejected                                        uint64 // received and refused: see Handler.Messages; connections, too
}

// Transport exchanges messages with the other members. All methods are safe for concurrent use.
type Transport struct {
	id, cluster  uint64 // immutable, as is all up to mu
	handler      Handler
	openSnapshot Snapshotter
	log          *slog.Logger
	secure       Secure
	standing     standing
	timing       timing

	ctx    context.Context // ends at Close; the transport's own lifetime, not a caller's
	cancel context.CancelFunc
	wg     sync.WaitGroup // sessions, snapshots, incoming streams and calls; grows only while !closed, under mu

	peers    atomic.Pointer[map[uint64]*remote] // immutable map, replaced under mu
	counters counters
	incoming sync.Mutex // held while a snapshot is received
	scratch  sync.Pool  // of *groups

	mu      sync.Mutex // protects closed, the replacement of peers, doors, and refused
	closed  bool
	doors   doors
	refused map[string]struct{}
}

// counters are Stats in the making.
type counters struct {
	framesSent, messagesSent, bytesSent             atomic.Uint64
	framesReceived, messagesReceived, bytesReceived atomic.Uint64
	dropped, rejected                               atomic.Uint64
}

// timing is what tests shorten.
type timing struct {
	pulse   time.Duration // the receiving side of a stream shows life this often
	silence time.Duration // a session without a pulse for so long is broken
	open    time.Duration // for one attempt to open a session
	stall   time.Duration // a snapshot that makes no progress for so long has failed
}

// patience is how long bytes may stay unacknowledged, or a full receiver may read nothing, before the kernel gives a
// connection up: the receiver of a snapshot waits for its disk.
func (t timing) patience(kind connectionKind) time.Duration {
	if kind == kindSnapshot {
		return t.stall
	}
	return t.silence
}

// New makes a Transport without peers.
func New(c Config) *Transport {
	log := c.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &Transport{
		id:           c.ID,
		cluster:      c.ClusterID,
		handler:      c.Handler,
		openSnapshot: c.OpenSnapshot,
		log:          log.With("component", "peer", "node", formatID(c.ID)),
		secure:       c.Secure,
		standing:     standing{Standing: c.Standing},
		timing: timing{
			pulse:   500 * time.Millisecond,
			silence: 2 * time.Second,
			open:    2 * time.Second,
			stall:   time.Minute,
		},
		doors:   doors{listeners: make(map[*net.Listener]struct{}), accepted: make(map[*inbound]struct{})},
		refused: make(map[string]struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.peers.Store(&map[uint64]*remote{})
	return t
}

// SetPeers tells the other members and their URLs ("http://host:port"; https where the DialOptions bring credentials).
// New ones are connected, missing ones disconnected, changed ones reconnected. This member's own row is ignored. A
// member without a usable URL is known, but only its own connections reach it. It does not wait for connections.
func (t *Transport) SetPeers(urls map[uint64][]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	old := *t.peers.Load()
	next := make(map[uint64]*remote, len(urls))
	for id, u := range urls {
		if id == t.id {
			continue
		}
		if r, ok := old[id]; ok && r.serves(u) {
			next[id] = r
			continue
		}
		next[id] = t.newRemote(id, u)
	}
	t.peers.Store(&next)
	for id, r := range old {
		if next[id] != r {
			r.cancel()
		}
	}
	for id, r := range next {
		if old[id] == r {
			continue
		}
		var after <-chan struct{}
		if old[id] != nil {
			after = old[id].done
		}
		t.wg.Go(func() { r.run(after) })
	}
}

// Send sends messages to their members and never blocks: what can not be written at once is queued. What does not fit, has
// no peer or is too large is dropped and reported to Handler.Unreachable. MsgSnap starts a transfer of its own. The
// messages must not change afterwards.
func (t *Transport) Send(msgs []*raftpb.Message) {
	peers := *t.peers.Load()
	g, ok := t.scratch.Get().(*groups)
	if !ok {
		g = &groups{}
	}
	for _, m := range msgs {
		to := m.GetTo()
		r := peers[to]
		switch {
		case m.GetType() == raftpb.MsgSnap:
			t.startSnapshot(r, m)
		case r != nil && isBulk(m.GetType()):
			g.add(to, r.bulk, m)
		case r != nil:
			g.add(to, r.control, m)
		default:
			g.add(to, nil, m)
		}
	}
	for i := range g.used {
		group := &g.all[i]
		dropped := len(group.ms)
		if group.stream != nil {
			dropped = group.stream.send(&t.counters, group.ms)
		}
		if dropped > 0 {
			t.counters.dropped.Add(uint64(dropped))
			t.unreachable(group.to)
		}
		clear(group.ms)
		group.stream = nil
	}
	g.used = 0
	t.scratch.Put(g)
}

// groups are the messages of one Send by stream, in memory that is used again.
type groups struct {
	all  []group
	used int
}

type group struct {
	to     uint64
	stream *stream // nil: there is no such peer
	ms     []*raftpb.Message
}

func (g *groups) add(to uint64, s *stream, m *raftpb.Message) {
	for i := range g.used {
		if of := &g.all[i]; of.to == to && of.stream == s {
			of.ms = append(of.ms, m)
			return
		}
	}
	if g.used == len(g.all) {
		g.all = append(g.all, group{})
	}
	next := &g.all[g.used]
	next.to, next.stream, next.ms = to, s, append(next.ms[:0], m)
	g.used++
}

// Call asks member id and waits for its answer. It fails at once with ErrUnknownPeer, ErrNotConnected or ErrClosed; after
// any other error the question may or may not have been handled. Without a deadline in ctx it takes at most 5 s.
func (t *Transport) Call(ctx context.Context, id uint64, method byte, body []byte) ([]byte, error) {
	r := (*t.peers.Load())[id]
	if r == nil {
		return nil, fmt.Errorf("call to member %x: %w", id, ErrUnknownPeer)
	}
	if !t.enter() {
		return nil, ErrClosed
	}
	defer t.wg.Done()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultCallTimeout)
		defer cancel()
	}
	answer, err := r.call(ctx, method, body)
	if err != nil {
		return nil, fmt.Errorf("call to member %x: %w", id, err)
	}
	return answer, nil
}

// Active tells whether a session with the member is up, and since when.
func (t *Transport) Active(id uint64) (since time.Time, ok bool) {
	r := (*t.peers.Load())[id]
	if r == nil {
		return time.Time{}, false
	}
	since, ok = r.active()
	return since, ok
}

// Stats returns the counters.
func (t *Transport) Stats() Stats {
	c := &t.counters
	return Stats{
		FramesSent: c.framesSent.Load(), MessagesSent: c.messagesSent.Load(), BytesSent: c.bytesSent.Load(),
		FramesReceived: c.framesReceived.Load(), MessagesReceived: c.messagesReceived.Load(), BytesReceived: c.bytesReceived.Load(),
		Dropped: c.dropped.Load(), Rejected: c.rejected.Load(),
	}
}

// Close ends all listeners, sessions, transfers and accepted connections and waits until no Handler method runs; it must
// not be called from one. Closing twice is fine.
func (t *Transport) Close() {
	t.mu.Lock()
	t.closed = true
	t.cancel()
	t.doors.hangUp()
	t.mu.Unlock()
	t.wg.Wait()
}

// enter registers work that Close waits for. The caller ends it with wg.Done.
func (t *Transport) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	return true
}

func (t *Transport) known(id uint64) bool { return (*t.peers.Load())[id] != nil }

func (t *Transport) unreachable(id uint64) {
	if !t.enter() {
		return
	}
	defer t.wg.Done()
	t.handler.Unreachable(id)
}

// refuse logs why a stream or a message was refused, once a reason: the sender will be back within 250 ms. Reasons hold
// ids that a stranger chose, so their number is bounded.
func (t *Transport) refuse(reason error) {
	t.mu.Lock()
	_, seen := t.refused[reason.Error()]
	fresh := !seen && len(t.refused) < refusalsMax
	if fresh {
		t.refused[reason.Error()] = struct{}{}
	}
	t.mu.Unlock()
	if fresh {
		t.log.Warn("refused what a peer sent", "reason", reason.Error())
	}
}
