package front

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// webCall is a stream of HTTP/2 that Config.Web serves: what its handler writes to, and the request's body. One
// goroutine writes, and one may read meanwhile.
type webCall struct {
	h      *handler
	header http.Header
	bare   bool        // the answer has no body
	sent   http.Header // header as of WriteHeader; written with conn.mu held, as the rest
	code   int         // 0 before WriteHeader
	timer  *time.Timer // of SetReadDeadline; nil without
}

// launchWeb starts the goroutine of a request that is none of gRPC. mu is held.
func (c *conn) launchWeb(st *stream) {
	h := &handler{st: st, stop: func() {}, arrived: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	h.ctx, h.cancel = context.WithCancelCause(c.ctx)
	if st.head.timed {
		h.ctx, h.stop = context.WithTimeout(h.ctx, st.head.timeout)
	}
	h.web = &webCall{h: h, header: make(http.Header)}
	st.handler, st.busy = h, true
	c.s.wg.Go(h.serveWeb)
}

func (h *handler) serveWeb() {
	w := h.web
	if r, err := w.request(); err == nil {
		h.st.c.s.cfg.Web.ServeHTTP(w, r)
	} else {
		http.Error(w, "malformed request target", http.StatusBadRequest)
	}
	w.WriteHeader(http.StatusOK) // unless the handler has said something else
	_ = w.SetReadDeadline(time.Time{})
	h.finish(nil)
}

func (w *webCall) request() (*http.Request, error) {
	st := w.h.st
	head, c := st.head, st.c
	u, err := url.ParseRequestURI(head.path)
	if err != nil {
		return nil, err
	}
	r := &http.Request{
		Method: head.httpMethod, URL: u, RequestURI: head.path, Host: head.authority,
		Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: make(http.Header), Body: webBody{w.h}, ContentLength: head.length,
		RemoteAddr: c.net.RemoteAddr().String(), TLS: tlsState(c.net),
	}
	for _, f := range head.fields {
		r.Header.Add(f.Name, f.Value)
	}
	if head.contentType != "" {
		r.Header.Set("Content-Type", head.contentType)
	}
	if head.length >= 0 {
		r.Header.Set("Content-Length", strconv.FormatInt(head.length, 10))
	}
	return r.WithContext(w.h.ctx), nil
}

// webBody is a request's body.
type webBody struct{ h *handler }

func (b webBody) Close() error { return nil }

func (b webBody) Read(p []byte) (int, error) {
	for {
		n, granted, expired, err := b.h.takeBytes(p)
		if granted {
			b.h.st.c.flush()
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		select {
		case <-b.h.arrived:
		case <-b.h.ctx.Done():
			return 0, context.Cause(b.h.ctx)
		case <-expired:
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// takeBytes takes what came of the body, and reports whether the client was allowed to send more. expired tells when the
// wait for more is over.
func (h *handler) takeBytes(p []byte) (n int, granted bool, expired <-chan time.Time, err error) {
	st, c := h.st, h.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case st.gone.Load() || st.out.status != nil:
		return 0, false, nil, errReset
	case len(st.in.data) == 0 && st.in.ended:
		return 0, false, nil, io.EOF
	}
	n = copy(p, st.in.data)
	st.consume(n)
	if more := st.in.grant(-1); more > 0 {
		c.out = appendWindowUpdate(c.out, st.id, more)
		granted = true
	}
	if h.web.timer != nil {
		expired = h.web.timer.C
	}
	return n, granted, expired, nil
}

// Header implements http.ResponseWriter.
func (w *webCall) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. The head is sent with the first bytes, by Flush, or at the end.
func (w *webCall) WriteHeader(code int) {
	c := w.h.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.code != 0 || code < http.StatusOK || code > 999 {
		return
	}
	w.code, w.sent = code, maps.Clone(w.header)
	w.bare = w.h.st.head.httpMethod == http.MethodHead || code == http.StatusNoContent || code == http.StatusNotModified
}

// Write implements http.ResponseWriter. It waits while too much of the stream waits already.
func (w *webCall) Write(p []byte) (int, error) {
	if w.code == 0 {
		if w.header.Get("Content-Type") == "" {
			w.header.Set("Content-Type", http.DetectContentType(p))
		}
		w.WriteHeader(http.StatusOK)
	}
	if w.bare || len(p) == 0 {
		return len(p), nil
	}
	for n := 0; n < len(p); {
		k := min(len(p)-n, streamBacklogBytes)
		if err := w.h.sendBytes(p[n : n+k]); err != nil {
			return n, err
		}
		n += k
	}
	return len(p), nil
}

// sendBytes puts bytes where the next flush writes them.
func (h *handler) sendBytes(p []byte) error {
	c := h.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := h.awaitRoom(); err != nil {
		return err
	}
	h.st.put(p)
	return nil
}

// awaitRoom waits until less of the stream waits to be sent. conn.mu is held, but not while it waits.
func (h *handler) awaitRoom() error {
	st, c := h.st, h.st.c
	for len(st.out.pending) > streamBacklogBytes && !st.gone.Load() {
		c.mu.Unlock()
		c.flush()
		select {
		case <-h.room:
		case <-h.ctx.Done():
			c.mu.Lock()
			return status.FromContextError(h.ctx.Err()).Err()
		}
		c.mu.Lock()
	}
	if st.gone.Load() || st.out.status != nil {
		return status.Error(codes.Canceled, errClientGone.Error())
	}
	return nil
}

// Flush implements http.Flusher.
func (w *webCall) Flush() {
	st, c := w.h.st, w.h.st.c
	w.WriteHeader(http.StatusOK)
	c.mu.Lock()
	if !st.gone.Load() && st.out.status == nil {
		st.writeHead(nil)
	}
	c.mu.Unlock()
	c.flush()
}

// SetReadDeadline bounds reads of the body, for [http.ResponseController].
func (w *webCall) SetReadDeadline(t time.Time) error {
	c := w.h.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer = nil
	if !t.IsZero() {
		w.timer = time.NewTimer(time.Until(t))
	}
	signal(w.h.arrived) // who reads looks again
	return nil
}

// EnableFullDuplex is what a stream of HTTP/2 does anyway.
func (w *webCall) EnableFullDuplex() error { return nil }

// webHead returns the header block of a web stream's answer. mu is held.
func (c *conn) webHead(st *stream) []byte {
	w, code := st.handler.web, http.StatusServiceUnavailable // for a request that was refused
	if w.code != 0 {
		code = w.code
	}
	b := c.scratch[:0]
	if c.answers.sizeUpdate {
		b = append(b, hpackSizeUpdate)
		c.answers.sizeUpdate = false
	}
	b = appendField(b, ":status", strconv.Itoa(code))
	if _, ok := w.sent["Date"]; !ok {
		b = appendField(b, "date", time.Now().UTC().Format(http.TimeFormat))
	}
	for name, values := range w.sent {
		name = strings.ToLower(name)
		for _, v := range values {
			if !webReserved(name) && validField(hpack.HeaderField{Name: name, Value: v}) {
				b = appendField(b, name, v)
			}
		}
	}
	c.scratch = b
	return b
}

// webReserved names belong to connections of HTTP/1.
func webReserved(name string) bool {
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "trailer":
		return true
	}
	return false
}
