package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Mode tells what comes on a listener.
type Mode int

// The modes of a listener.
const (
	Plain  Mode = iota // connections are used as they are
	Secure             // TLS
	Both               // TLS if that is what the client begins with
)

// Listen counts what l accepts, and has TLS done by conf where mode asks for it. Closing what it returns closes l, ends
// the handshakes that are under way, and waits for them.
func (g *Gate) Listen(l net.Listener, mode Mode, conf *tls.Config) net.Listener {
	if mode == Plain {
		return plainListener{l, g}
	}
	s := &listener{
		Listener: l, gate: g, mode: mode, conf: conf,
		ready: make(chan net.Conn), broken: make(chan error), done: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.run()
	return s
}

// plainListener is for connections that need no handshake.
type plainListener struct {
	net.Listener
	gate *Gate
}

func (l plainListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if s := l.gate.admit(c); s != nil {
			return s, nil
		}
	}
}

// listener is one whose connections have a handshake to do.
type listener struct {
	net.Listener
	gate *Gate
	mode Mode
	conf *tls.Config

	ctx    context.Context // ends with Close; the listener's own lifetime
	cancel context.CancelFunc
	ready  chan net.Conn
	broken chan error    // what Accept of the listener below says
	done   chan struct{} // closed when nothing of it runs any more
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case err := <-l.broken:
		return nil, err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.cancel()
	err := l.Listener.Close()
	<-l.done
	return err
}

// run accepts. A handshake never keeps it waiting.
func (l *listener) run() {
	defer close(l.done)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			// Whoever calls Accept knows which errors pass.
			select {
			case l.broken <- err:
				continue
			case <-l.ctx.Done():
				return
			}
		}
		s := l.gate.admit(c)
		if s == nil {
			continue
		}
		h := l.gate.begin(s)
		wg.Go(func() { l.shake(s, h) })
	}
}

// handshake is one that is under way.
type handshake struct {
	socket *Socket
	order  uint64
}

// begin counts a handshake. If there are too many, the oldest makes room.
func (g *Gate) begin(s *Socket) *handshake {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.handshakes) >= handshakesMax {
		var oldest *handshake
		for h := range g.handshakes {
			if oldest == nil || h.order < oldest.order {
				oldest = h
			}
		}
		delete(g.handshakes, oldest)
		_ = oldest.socket.Conn.SetDeadline(time.Unix(1, 0)) // its goroutine does the rest
		g.report("ended the oldest handshake of a client: too many are under way", hostOf(oldest.socket), handshakesMax)
	}
	h := &handshake{socket: s, order: g.order}
	g.order++
	g.handshakes[h] = struct{}{}
	return h
}

// finish tells how a handshake ended.
func (g *Gate) finish(h *handshake, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.handshakes, h)
	if err == nil {
		return
	}
	g.stats.Failed++
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return // a look whether the port is open
	}
	g.reportFailure(h, err)
}

// reportFailure is like report. mu is held.
func (g *Gate) reportFailure(h *handshake, err error) {
	now := time.Now()
	if now.Sub(g.failed) < failureInterval {
		g.unreported++
		return
	}
	g.failed = now
	g.log.Warn("a client's TLS handshake failed", "from", h.socket.RemoteAddr().String(), "err", err)
}

// shake does the handshake of one connection and hands it on.
func (l *listener) shake(s *Socket, h *handshake) {
	interrupt := context.AfterFunc(l.ctx, func() { _ = s.Conn.Close() })
	c, err := l.secure(s)
	l.gate.finish(h, err)
	if err != nil {
		_ = s.Close()
		interrupt()
		return
	}
	if !interrupt() {
		_ = s.Close()
		return
	}
	select {
	case l.ready <- c:
	case <-l.ctx.Done():
		_ = s.Close()
	}
}

// secure returns the connection when it can be used.
func (l *listener) secure(s *Socket) (net.Conn, error) {
	if err := s.Conn.SetDeadline(time.Now().Add(l.gate.bounds.HandshakeTimeout)); err != nil {
		return nil, err
	}
	var c net.Conn = s
	begins := true
	if l.mode == Both {
		first, err := s.peek()
		if err != nil {
			return nil, err
		}
		begins = first == handshakeRecord
	}
	if begins {
		t := tls.Server(s, l.conf)
		if err := t.HandshakeContext(l.ctx); err != nil {
			return nil, fmt.Errorf("handshake: %w", err)
		}
		c, s.beneath = t, true
	}
	return c, s.Conn.SetDeadline(time.Time{})
}

// handshakeRecord is the first byte of TLS.
const handshakeRecord = 22
