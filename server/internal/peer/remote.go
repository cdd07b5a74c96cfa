package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/proto"
)

const (
	backoffBase = 20 * time.Millisecond
	backoffMax  = 250 * time.Millisecond
	stableAfter = time.Second

	connectTimeout = time.Second
)

var (
	errSilent      = errors.New("peer is silent")
	errOpenTimeout = errors.New("peer does not answer the handshake")
	errNoURL       = errors.New("peer has no usable URL")
)

// remote is another member: its queues, and the session that carries them. run owns the session.
type remote struct {
	t             *Transport
	id            uint64
	urls          []string
	md            metadata.MD
	bulk, control *queue
	conns         [2]*grpc.ClientConn // bulk (and snapshots), control (and calls); nil when no URL is usable
	err           error               // why not

	ctx     context.Context // ends when the member goes or the transport closes
	cancel  context.CancelFunc
	done    chan struct{} // closed when run has returned
	sending atomic.Bool   // a snapshot is under way

	mu    sync.Mutex // protects since and up
	since time.Time
	up    bool
}

func (t *Transport) newRemote(id uint64, urls []string) *remote {
	r := &remote{
		t:       t,
		id:      id,
		urls:    slices.Clone(urls),
		md:      hello{cluster: t.cluster, from: t.id, to: id}.metadata(),
		bulk:    newQueue(),
		control: newQueue(),
		done:    make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(t.ctx)
	for i := range r.conns {
		if r.conns[i], r.err = t.dial(urls); r.err != nil {
			break
		}
	}
	return r
}

// dial makes a lazy connection that tries the URLs in turn. gRPC's own DNS resolver is avoided: it looks a name up again
// only after 30 s, while the dialer does so with every attempt.
func (t *Transport) dial(urls []string) (*grpc.ClientConn, error) {
	var addresses []resolver.Address
	var bad error
	for _, s := range urls {
		u, err := url.Parse(s)
		if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Port() == "") {
			err = fmt.Errorf("peer URL %q is not of the form http://host:port", s)
		}
		if err != nil {
			bad = err
			continue
		}
		addresses = append(addresses, resolver.Address{Addr: u.Host, ServerName: u.Hostname()})
	}
	if len(addresses) == 0 {
		return nil, errors.Join(errNoURL, bad)
	}
	static := manual.NewBuilderWithScheme("latchkey")
	static.InitialState(resolver.State{Addresses: addresses})
	options := []grpc.DialOption{
		grpc.WithResolvers(static),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(frameMaxBytes), grpc.MaxCallSendMsgSize(frameMaxBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: backoffBase, Multiplier: 2, Jitter: 0.2, MaxDelay: backoffMax},
			MinConnectTimeout: connectTimeout,
		}),
		// gRPC pings no more often than every 10 s, so pulses find a silent peer; but with these parameters the kernel
		// too gives up a connection whose bytes stay unacknowledged for Timeout (TCP_USER_TIMEOUT).
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * time.Second, PermitWithoutStream: true}),
		grpc.WithIdleTimeout(0),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	}
	return grpc.NewClient("latchkey:///peer", append(options, t.dialOptions...)...)
}

func (r *remote) serves(urls []string) bool { return slices.Equal(r.urls, urls) }

// queue returns false when a message was dropped.
func (r *remote) queue(m *raftpb.Message) bool {
	if isBulk(m.GetType()) {
		return r.bulk.put(m)
	}
	return r.control.put(m)
}

func (r *remote) active() (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.since, r.up
}

func (r *remote) setActive(up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up, r.since = up, time.Time{}
	if up {
		r.since = time.Now()
	}
}

// run keeps a session until the member goes. It begins when the member's former remote is over, so that the handler
// never hears of the old session's end after the new one's begin.
func (r *remote) run(after <-chan struct{}) {
	defer close(r.done)
	defer r.cancel()
	if after != nil {
		<-after
	}
	if r.err != nil {
		r.t.log.Error("can not connect to a peer", "peer", formatID(r.id), "reason", r.err.Error())
		<-r.ctx.Done()
	}
	defer func() {
		for _, c := range r.conns {
			if c != nil {
				_ = c.Close() // it only tells that it was closed before
			}
		}
	}()
	var delay time.Duration
	var reason string
	for r.ctx.Err() == nil {
		began := time.Now()
		connected, err := r.session()
		if r.ctx.Err() != nil {
			return
		}
		if connected {
			reason = ""
			r.t.log.Warn("lost a peer", "peer", formatID(r.id), "reason", err.Error())
		} else if err.Error() != reason {
			reason = err.Error()
			r.t.log.Warn("can not connect to a peer", "peer", formatID(r.id), "reason", reason)
		}
		// A session that lasted, or an attempt that took its time, needs no delay: gRPC delays its own connections.
		// What ends early is a refusal, or a session that the other side ends again and again.
		if time.Since(began) >= stableAfter {
			delay = 0
		}
		r.pause(delay)
		delay = min(max(backoffBase, 2*delay), backoffMax)
	}
}

// pause waits for about d, so that restarted members do not come back in step.
func (r *remote) pause(d time.Duration) {
	if d == 0 {
		return
	}
	timer := time.NewTimer(d*4/5 + rand.N(d*2/5))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ctx.Done():
	}
}

// session opens both streams and serves them until one breaks, which it tells with the reason. Nothing of the session
// runs when it returns.
func (r *remote) session() (connected bool, _ error) {
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(r.t.timing.open, func() { cancel(errOpenTimeout) })
	defer timeout.Stop()
	r.conns[1].Connect() // while the first one connects
	var control grpc.ClientStream
	bulk, err := r.open(ctx, r.conns[0], methodBulk, bulkDesc)
	if err == nil {
		control, err = r.open(ctx, r.conns[1], methodControl, controlDesc)
	}
	if !timeout.Stop() {
		return false, errors.Join(errOpenTimeout, err)
	}
	if err != nil {
		return false, err
	}

	r.bulk.open()
	r.control.open()
	r.setActive(true)
	r.t.log.Info("connected to a peer", "peer", formatID(r.id))
	r.t.handler.Connected(r.id)

	var wg sync.WaitGroup
	wg.Go(func() { cancel(r.send(ctx, bulk, r.bulk)) })
	wg.Go(func() { cancel(r.send(ctx, control, r.control)) })
	wg.Go(func() { cancel(r.listen(bulk, cancel)) })
	wg.Go(func() { cancel(r.listen(control, cancel)) })
	<-ctx.Done()
	wg.Wait()

	// The order matters: what Send queues from now on belongs to the next session, and the call below covers all
	// that was queued before it.
	r.setActive(false)
	dropped := r.bulk.reset(false) + r.control.reset(false)
	r.t.counters.dropped.Add(uint64(dropped))
	r.t.handler.Unreachable(r.id)
	return true, context.Cause(ctx)
}

// open starts a stream and waits until the member has answered its handshake.
func (r *remote) open(ctx context.Context, conn *grpc.ClientConn, method string, desc *grpc.StreamDesc) (grpc.ClientStream, error) {
	stream, err := conn.NewStream(metadata.NewOutgoingContext(ctx, r.md), desc, method, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	md, err := stream.Header()
	if err != nil {
		return nil, err
	}
	if len(md) == 0 { // ended without an answer; the reason comes last
		if err := stream.RecvMsg(&frame{}); err != nil && err != io.EOF {
			return nil, err
		}
		return nil, errors.New("peer ended the stream")
	}
	h, err := parseHello(md)
	if err != nil {
		return nil, err
	}
	if err := h.check(r.t.cluster, r.t.id, r.id); err != nil {
		return nil, err
	}
	return stream, nil
}

// send carries the queue until the stream breaks.
func (r *remote) send(ctx context.Context, stream grpc.ClientStream, q *queue) error {
	var batch []*raftpb.Message
	var sizes []int
	for {
		batch = q.take(batch[:0], frameSoftBytes)
		if len(batch) == 0 {
			select {
			case <-q.ready:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if batch = r.dropLarge(batch); len(batch) == 0 {
			continue
		}
		var f *frame
		var err error
		if f, sizes, err = encodeMessages(batch, sizes); err != nil {
			return err
		}
		bytes := f.buf.Len()
		if err := stream.SendMsg(f); err != nil {
			if err == io.EOF { // the stream is over; listen learns why and ends the session
				<-ctx.Done()
			}
			r.t.counters.dropped.Add(uint64(len(batch)))
			return err
		}
		r.t.counters.framesSent.Add(1)
		r.t.counters.messagesSent.Add(uint64(len(batch)))
		r.t.counters.bytesSent.Add(uint64(bytes))
		clear(batch)
	}
}

// dropLarge removes a message that the other side would refuse. Only the first of a batch can be one: take adds others
// only below frameSoftBytes, and its estimate is not wrong by the factor between the two limits.
func (r *remote) dropLarge(batch []*raftpb.Message) []*raftpb.Message {
	m := batch[0]
	if queueBytes(m) < frameSoftBytes {
		return batch
	}
	size := proto.Size(m)
	if size <= MaxMessageBytes {
		return batch
	}
	r.t.log.Error("dropped a message that is too large", "peer", formatID(r.id), "type", m.GetType().String(), "bytes", size)
	r.t.counters.dropped.Add(1)
	r.t.handler.Unreachable(r.id)
	return batch[1:]
}

// listen waits for the stream's end, and ends the session when its pulse stops. All that comes back is pulses.
func (r *remote) listen(stream grpc.ClientStream, cancel context.CancelCauseFunc) error {
	watchdog := time.AfterFunc(r.t.timing.silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	var f frame
	for {
		if err := stream.RecvMsg(&f); err != nil {
			return err
		}
		f.free()
		watchdog.Reset(r.t.timing.silence)
	}
}

func (r *remote) call(ctx context.Context, method byte, body []byte) ([]byte, error) {
	if _, up := r.active(); !up {
		return nil, ErrNotConnected
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.ctx, func() { cancel(ErrClosed) })()
	var answer frame
	question := sealBytes([]byte{method}, body)
	err := r.conns[1].Invoke(metadata.NewOutgoingContext(ctx, r.md), methodCall, question, &answer, grpc.MaxCallRecvMsgSize(maxCallBytes+checksumBytes))
	if err != nil {
		return nil, err
	}
	defer answer.free()
	return slices.Clone(answer.body()), nil
}
