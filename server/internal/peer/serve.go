package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

const (
	// handshakesMax bounds the connections that have not said yet who they are; a further one ends the oldest, since a
	// member says it at once. Those that have are bounded by the members: one connection of each kind, a newer one ends the older.
	handshakesMax = 64

	acceptPauseMin = 5 * time.Millisecond // after the process ran out of what a connection needs
	acceptPauseMax = time.Second
)

// doors is what others come in by. Transport.mu protects it.
type doors struct {
	listeners map[*net.Listener]struct{}
	accepted  map[*inbound]struct{}
	strangers int // of accepted, those without a greeting that were not ousted
	order     uint64
	pulsing   bool // the goroutine runs
}

// inbound is a connection that another member opened.
type inbound struct {
	*connection
	from uint64         // immutable once greeted
	kind connectionKind // likewise; 0 before. Transport.mu protects both until then, and the next two

	order  uint64 // of its arrival
	ousted bool   // to make room

	writing sync.Mutex // one frame after the other; held while writing
	serving serving
}

// Serve accepts connections of other members until Close, which closes l, and then returns nil. Any other end of l is
// its error. Several listeners may be served.
func (t *Transport) Serve(l net.Listener) error {
	defer l.Close()
	if !t.listen(&l) {
		return nil
	}
	defer t.unlisten(&l)
	var pause time.Duration
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			t.accept(c)
		case t.ctx.Err() != nil:
			return nil
		case exhausted(err):
			pause = min(max(acceptPauseMin, 2*pause), acceptPauseMax)
			select {
			case <-time.After(pause):
			case <-t.ctx.Done():
			}
		default:
			return fmt.Errorf("accept connections of members: %w", err)
		}
	}
}

// exhausted tells errors of Accept that pass.
func exhausted(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// listen registers a listener with Close, and starts the pulse of the transport with the first.
func (t *Transport) listen(l *net.Listener) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	t.doors.listeners[l] = struct{}{}
	if !t.doors.pulsing {
		t.doors.pulsing = true
		t.wg.Go(t.pulse)
	}
	return true
}

func (t *Transport) unlisten(l *net.Listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.doors.listeners, l)
	t.wg.Done()
}

// accept starts the goroutine of a connection, unless there are too many.
func (t *Transport) accept(c net.Conn) {
	in := &inbound{connection: newConnection(c)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		t.counters.rejected.Add(1)
		_ = c.Close()
		return
	}
	if t.doors.strangers >= handshakesMax {
		t.doors.oust()
	}
	in.order = t.doors.order
	t.doors.order++
	t.doors.accepted[in] = struct{}{}
	t.doors.strangers++
	t.wg.Go(func() {
		defer t.leave(in)
		t.serve(in)
	})
}

// oust ends the stranger that came first. Transport.mu is held.
func (d *doors) oust() {
	var oldest *inbound
	for in := range d.accepted {
		if in.kind == 0 && !in.ousted && (oldest == nil || in.order < oldest.order) {
			oldest = in
		}
	}
	oldest.ousted = true
	d.strangers--
	_ = oldest.Close() // its goroutine does the rest
}

// greeted notes who it is. An older connection of the same kind has been given up by its member, which may be known
// here only much later; two members with one id would end each other's.
func (t *Transport) greeted(in *inbound, h hello) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.kind != kindSnapshot { // which are bounded elsewhere
		for old := range t.doors.accepted {
			if old.from == h.from && old.kind == h.kind {
				_ = old.Close()
			}
		}
	}
	in.from, in.kind = h.from, h.kind
	if !in.ousted {
		t.doors.strangers--
	}
	_ = in.setDirect(true) // nothing remains of the handshake
}

func (t *Transport) leave(in *inbound) {
	_ = in.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.doors.accepted, in)
	if in.kind == 0 && !in.ousted {
		t.doors.strangers--
	}
}

// serve is the life of an accepted connection.
func (t *Transport) serve(in *inbound) {
	setUserTimeout(in.Conn, t.timing.patience(kindBulk))
	if err := t.admit(t.ctx, in); err != nil {
		if !errors.Is(err, errAnswered) {
			t.counters.rejected.Add(1)
		}
		return
	}
	setUserTimeout(in.Conn, t.timing.patience(in.kind))
	if in.kind == kindSnapshot {
		t.serveSnapshot(in)
		return
	}
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	if err := t.receive(ctx, in); err != nil && t.ctx.Err() == nil {
		t.log.Warn("ended a peer's connection", "peer", formatID(in.from), "reason", err.Error())
		in.offer(refusal(err))
	}
}

// receive delivers what comes on a connection. It returns nil when the other side ended it, or it broke.
func (t *Transport) receive(ctx context.Context, in *inbound) error {
	var ms []*raftpb.Message
	for {
		kind, body, err := in.in.next()
		switch {
		case errors.Is(err, errChecksum), errors.Is(err, errFraming):
			return err
		case err != nil:
			return nil
		case kind == frameMessages:
			t.counters.framesReceived.Add(1)
			t.counters.bytesReceived.Add(uint64(headerBytes + len(body)))
			ms, err = decodeMessages(body, ms[:0])
			if err == nil {
				err = t.deliver(in.from, ms, in.in.more())
			}
			clear(ms)
		case kind == frameQuestion && in.kind == kindControl:
			err = in.question(ctx, t, body)
		case kind == frameCancel && in.kind == kindControl && len(body) == callIDBytes:
			in.serving.cancel(binary.LittleEndian.Uint64(body))
		default:
			err = errFraming
		}
		if err != nil {
			return err
		}
	}
}

// deliver gives the messages of a frame to the handler, without those that must not reach raft: after a change of members
// that is normal.
func (t *Transport) deliver(from uint64, ms []*raftpb.Message, more bool) error {
	if t.ctx.Err() != nil {
		return ErrClosed
	}
	if !t.known(from) {
		return errors.New("no longer a member")
	}
	good := ms[:0]
	for _, m := range ms {
		if err := t.checkMessage(from, m); err != nil {
			t.counters.rejected.Add(1)
			t.refuse(err)
			continue
		}
		good = append(good, m)
	}
	if len(good) > 0 {
		t.counters.messagesReceived.Add(uint64(len(good)))
		t.handler.Messages(from, good, more)
	}
	return nil
}

// say writes a frame, after those that others write. It may block; that the connection is broken, others find.
func (in *inbound) say(frame []byte) {
	in.writing.Lock()
	defer in.writing.Unlock()
	if in.setDirect(false) == nil {
		_, _ = in.top.Write(frame)
	}
	_ = in.setDirect(true)
}

// offer writes a small frame if that need not wait.
func (in *inbound) offer(frame []byte) {
	if !in.writing.TryLock() {
		return
	}
	defer in.writing.Unlock()
	if in.retry() {
		_, _ = in.top.Write(frame)
	}
}

// pulse shows all connected members that this one lives, whatever its handlers do. It never waits for one of them: to
// one that does not take its pulse, something else is under way.
func (t *Transport) pulse() {
	ticker := time.NewTicker(t.timing.pulse)
	defer ticker.Stop()
	frame := sealed(framePulse)
	var all []*inbound
	for {
		select {
		case <-ticker.C:
		case <-t.ctx.Done():
			return
		}
		all = t.greetedOnes(all[:0])
		for _, in := range all {
			in.offer(frame)
		}
		clear(all)
	}
}

// greetedOnes appends the connections that get pulses.
func (t *Transport) greetedOnes(all []*inbound) []*inbound {
	t.mu.Lock()
	defer t.mu.Unlock()
	for in := range t.doors.accepted {
		if in.kind == kindBulk || in.kind == kindControl {
			all = append(all, in)
		}
	}
	return all
}

// hangUp ends all that others opened. mu is held.
func (d *doors) hangUp() {
	for l := range d.listeners {
		_ = (*l).Close()
	}
	for in := range d.accepted {
		_ = in.Close()
	}
}
