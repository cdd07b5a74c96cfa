package front

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// webIdleTimeout is how long a connection of HTTP/1 is kept between two requests.
	webIdleTimeout = 2 * time.Minute
	// webWriteBytes is what is written to a connection of HTTP/1 under one deadline: stallTimeout.
	webWriteBytes = 64 << 10
)

// webServer serves the connections that do not speak HTTP/2, by net/http. They stay among the server's connections.
type webServer struct {
	http  http.Server
	offer handoff
	conns sync.WaitGroup // connections that net/http has a goroutine for
	start sync.Once
}

// handoff is a listener whose connections were accepted by another one.
type handoff struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handoff) Addr() net.Addr { return &net.TCPAddr{} }

func newWebServer(s *Server) *webServer {
	w := &webServer{offer: handoff{conns: make(chan net.Conn), done: make(chan struct{})}}
	w.http = http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP1),
		ReadHeaderTimeout: s.cfg.GreetTimeout,
		IdleTimeout:       webIdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, webConnKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				c.(*webConn).served()
			}
		},
	}
	return w
}

// startWeb starts the server of HTTP/1 with the first listener. s.mu is held.
func (s *Server) startWeb() {
	if s.web == nil {
		return
	}
	s.web.start.Do(func() {
		s.wg.Go(func() { _ = s.web.http.Serve(&s.web.offer) }) // which fails when it is to stop
	})
}

// webConnKey is the key of a request's connection in its context.
type webConnKey struct{}

func (s *Server) serveHTTP1(w http.ResponseWriter, r *http.Request) {
	if c, ok := r.Context().Value(webConnKey{}).(*webConn); ok {
		r.TLS = tlsState(c.Conn)
	}
	s.cfg.Web.ServeHTTP(w, r)
}

// tlsState returns how c is secured, nil if it is not.
func tlsState(c net.Conn) *tls.ConnectionState {
	if t, ok := c.(interface{ ConnectionState() tls.ConnectionState }); ok {
		state := t.ConnectionState()
		return &state
	}
	return nil
}

// take has a connection served. It fails when the server is to stop.
func (w *webServer) take(c *webConn) bool {
	w.conns.Add(1) // while the connection's reader is still waited for
	select {
	case w.offer.conns <- c:
		return true
	case <-w.offer.done:
		w.conns.Done()
		return false
	}
}

// leave lets the requests under way be answered, and ends the connections then.
func (w *webServer) leave(ctx context.Context) {
	_ = w.offer.Close()
	_ = w.http.Shutdown(ctx)
}

// stop ends all, and returns when no request is served any more.
func (w *webServer) stop() {
	_ = w.offer.Close()
	_ = w.http.Close()
	w.conns.Wait()
}

// webConn is a connection that net/http serves. Reads begin with what was read to find that out.
type webConn struct {
	net.Conn
	c     *conn
	first []byte
	once  sync.Once
}

func (w *webConn) Read(p []byte) (int, error) {
	if len(w.first) > 0 {
		n := copy(p, w.first)
		if w.first = w.first[n:]; len(w.first) == 0 {
			w.first = nil
		}
		return n, nil
	}
	return w.Conn.Read(p)
}

// Write cuts the connection of a client that takes nothing for stallTimeout.
func (w *webConn) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		if err = w.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
			return n, err
		}
		var k int
		k, err = w.Conn.Write(p[:min(len(p), webWriteBytes)])
		n += k
		p = p[k:]
	}
	return n, err
}

// CloseWrite lets net/http say goodbye to a client that is still sending.
func (w *webConn) CloseWrite() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// served is called when net/http is done with the connection.
func (w *webConn) served() {
	w.once.Do(func() {
		w.c.close()
		w.c.s.remove(w.c)
		w.c.s.web.conns.Done()
	})
}

var _ io.ReadWriteCloser = (*webConn)(nil)
