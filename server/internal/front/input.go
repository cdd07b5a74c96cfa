package front

import (
	"encoding/binary"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// frames handles the whole frames that were read. more tells that there are others, and that what was answered is to be
// written first.
func (c *conn) frames() (more bool, err error) {
	for c.end-c.start >= frameHeaderBytes {
		h := parseFrameHeader(c.in[c.start:])
		if h.length > maxFrameBytes {
			return false, &connError{codeFrameSize, "a frame is too large"}
		}
		if c.end-c.start < frameHeaderBytes+h.length {
			break
		}
		body := c.in[c.start+frameHeaderBytes : c.start+frameHeaderBytes+h.length]
		c.start += frameHeaderBytes + h.length
		if err := c.frame(h, body); err != nil {
			return false, err
		}
		if c.full {
			c.full = false
			return true, nil
		}
	}
	if c.start == c.end {
		c.start, c.end = 0, 0
	}
	return false, nil
}

func (c *conn) frame(h frameHeader, b []byte) error {
	if !c.greeted {
		if h.kind != frameSettings || h.flags&flagAck != 0 {
			return protocolError("the first frame is not SETTINGS")
		}
		if err := c.greet(); err != nil {
			return err
		}
	}
	if c.open.stream != 0 && (h.kind != frameContinuation || h.stream != c.open.stream) {
		return protocolError("a header block is interrupted")
	}
	switch h.kind {
	case frameData:
		return c.data(h, b)
	case frameHeaders:
		return c.headersFrame(h, b)
	case frameContinuation:
		return c.continuation(h, b)
	case framePriority:
		return c.priority(h, b)
	case frameReset:
		return c.reset(h, b)
	case frameSettings:
		return c.settings(h, b)
	case framePush:
		return protocolError("a client can not push")
	case framePing:
		return c.ping(h, b)
	case frameGoAway:
		switch {
		case h.stream != 0:
			return protocolError("GOAWAY on a stream")
		case len(b) < 8:
			return &connError{codeFrameSize, "GOAWAY of a wrong size"}
		}
	case frameWindowUpdate:
		return c.windowUpdate(h, b)
	}
	return nil
}

// greet ends the wait for a client's first frames.
func (c *conn) greet() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeted = true
	if c.aborted || c.departed {
		return nil // with a deadline of its own
	}
	return c.net.SetReadDeadline(time.Time{})
}

func (c *conn) headersFrame(h frameHeader, b []byte) error {
	if h.stream%2 == 0 {
		return protocolError("HEADERS on a stream that is not a client's")
	}
	b, err := unpad(h.flags, b)
	if err != nil {
		return err
	}
	if h.flags&flagPriority != 0 {
		if len(b) < 5 {
			return &connError{codeFrameSize, "HEADERS without a whole priority"}
		}
		if binary.BigEndian.Uint32(b)&maxStreamID == h.stream {
			return protocolError("a stream depends on itself")
		}
		b = b[5:]
	}
	if h.flags&flagEndHeaders == 0 {
		c.open, c.pieces, c.reader.block = h, 0, append(c.reader.block[:0], b...)
		return nil
	}
	return c.request(h, b)
}

func (c *conn) continuation(h frameHeader, b []byte) error {
	if c.open.stream == 0 {
		return protocolError("CONTINUATION without HEADERS")
	}
	if c.pieces++; c.pieces > continuationsMax || len(c.reader.block)+len(b) > maxHeaderBytes {
		return &connError{codeCalm, "a header block is too large"}
	}
	c.reader.block = append(c.reader.block, b...)
	if h.flags&flagEndHeaders == 0 {
		return nil
	}
	first := c.open
	c.open = frameHeader{}
	err := c.request(first, c.reader.block)
	c.reader.block = nil
	return err
}

// request begins a call, or ends one that the client ends with trailers.
func (c *conn) request(h frameHeader, block []byte) error {
	head, err := c.headers.decode(block)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil
	case h.stream <= c.lastID:
		return c.trailers(h, head)
	}
	c.lastID = h.stream
	switch {
	case c.left: // the client has been told that it is not served
	case head.fault != "" || head.missing:
		c.out = appendReset(c.out, h.stream, codeProtocol)
	case len(c.streams)+c.orphans >= c.s.cfg.MaxStreams:
		c.out = appendReset(c.out, h.stream, codeRefused)
	case head.refused != nil:
		c.out = c.answers.appendRefusal(c.out, h.stream, head.refused)
		if h.flags&flagEndStream == 0 {
			c.out = appendReset(c.out, h.stream, codeNone)
		}
	default:
		c.begin(h, head)
	}
	c.full = len(c.out) > backlogMax
	return nil
}

// begin begins a call. mu is held.
func (c *conn) begin(h frameHeader, head *header) {
	st := &stream{c: c, id: h.stream, head: head}
	st.out.window, st.in.granted = c.initial, streamWindowBytes
	st.in.ended = h.flags&flagEndStream != 0
	c.streams[st.id] = st
	st.begun()
	switch {
	case head.web:
		c.launchWeb(st)
	case head.status != nil:
		st.end(head.status, nil)
		return
	case head.method.piped != nil:
		c.openPipe(st)
	case head.method.stream != nil:
		c.launch(st)
	}
	if st.in.ended {
		c.endOfRequest(st, nil)
	}
}

// trailers end a request; that is all they do. mu is held.
func (c *conn) trailers(h frameHeader, head *header) error {
	st := c.streams[h.stream]
	switch {
	case st == nil:
		return &connError{codeStreamClosed, "HEADERS on a closed stream"}
	case st.in.ended:
		c.resetStream(st, codeStreamClosed)
	case h.flags&flagEndStream == 0 || head.fault != "" || head.pseudo:
		c.resetStream(st, codeProtocol)
	default:
		c.endOfRequest(st, nil)
	}
	return nil
}

// idle reports whether no stream of that number was ever opened.
func (c *conn) idle(stream uint32) bool { return stream > c.lastID || stream%2 == 0 }

func (c *conn) data(h frameHeader, b []byte) error {
	if c.idle(h.stream) { // 0 is no stream at all
		return protocolError("DATA on an idle stream")
	}
	whole := int64(len(b))
	b, err := unpad(h.flags, b)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// The connection's window is given back at once: what a stream may hold is bounded by its own.
	if c.uncount += whole; c.uncount > connWindowBytes {
		return &connError{codeFlowControl, "DATA beyond the connection's window"}
	}
	if c.uncount >= connWindowBytes/4 {
		c.out = appendWindowUpdate(c.out, 0, c.uncount)
		c.uncount = 0
	}
	st := c.streams[h.stream]
	if st == nil {
		if !c.left || h.stream <= c.leftID {
			c.out = appendReset(c.out, h.stream, codeStreamClosed)
			c.full = len(c.out) > backlogMax
		}
		return nil
	}
	in := &st.in
	in.received += whole
	in.body += int64(len(b))
	switch {
	case in.ended:
		c.resetStream(st, codeStreamClosed)
		return nil
	case in.received > in.granted:
		c.resetStream(st, codeFlowControl)
		return nil
	case st.head.length >= 0 && in.body > st.head.length:
		c.resetStream(st, codeProtocol)
		return nil
	}
	in.consumed += whole - int64(len(b)) // the padding
	switch ended := h.flags&flagEndStream != 0; {
	case ended:
		c.endOfRequest(st, b)
	case st.out.status != nil: // nobody wants it any more
	case st.pipe != nil:
		c.pipeData(st, b)
	default:
		st.keep(b)
		c.received(st)
	}
	return nil
}

// received lets a stream's handler see what came, and raises its window for a long message. mu is held.
func (c *conn) received(st *stream) {
	size := -1
	if !st.head.web {
		_, _, _, size = st.in.message()
	}
	switch {
	case c.held > heldMaxBytes:
		c.refuse(st, status.New(codes.ResourceExhausted, heldText))
		return
	case size <= c.s.cfg.MaxRequestBytes:
		if more := st.in.grant(size); more > 0 {
			c.out = appendWindowUpdate(c.out, st.id, more)
		}
	case st.handler == nil:
		c.refuse(st, c.tooLarge(size))
		return
	}
	if st.handler != nil {
		signal(st.handler.arrived)
	}
}

// refuse ends a call whose request is not taken. mu is held.
func (c *conn) refuse(st *stream, s *status.Status) {
	c.held -= len(st.in.data)
	st.in.data = nil
	if st.end(s, nil); st.handler != nil {
		st.handler.cancel(errRefused)
	}
}

func (c *conn) tooLarge(size int) *status.Status {
	return status.Newf(codes.ResourceExhausted, tooLargeText, size, c.s.cfg.MaxRequestBytes)
}

const (
	tooLargeText = "grpc: received message larger than max (%d vs. %d)"
	heldText     = "too much was sent for calls that are under way"
)

// endOfRequest takes the last of a request; last is only borrowed. mu is held.
func (c *conn) endOfRequest(st *stream, last []byte) {
	st.in.ended = true
	switch {
	case st.out.status != nil:
		return
	case st.head.length >= 0 && st.in.body != st.head.length:
		c.resetStream(st, codeProtocol)
		return
	case st.pipe != nil:
		c.pipeData(st, last)
		return
	case len(st.in.data) > 0 || st.handler != nil:
		st.keep(last)
		last = nil
	}
	switch {
	case st.handler != nil:
		c.received(st)
	case st.head.method.direct == nil || !c.direct(st, last):
		st.keep(last)
		c.launch(st)
	}
}

// direct hands a whole request to its Direct method, unless it is odd or the method does not take it: then nothing has
// happened. The request is b, or what the stream has received. mu is held, and let go of meanwhile: the method may
// answer at once.
func (c *conn) direct(st *stream, b []byte) bool {
	in := inbound{data: b}
	if len(st.in.data) > 0 {
		in.data = st.in.data
	}
	body, format, ok, size := in.message()
	if !ok || format != 0 || size > c.s.cfg.MaxRequestBytes || len(in.data) != prefixBytes+size {
		return false
	}
	c.directed = true
	st.busy = true
	c.mu.Unlock()
	taken := st.head.method.direct((*streamCall)(st), body, &c.calls)
	c.mu.Lock()
	switch {
	case !taken:
		st.busy = false
	case len(st.in.data) > 0: // a call that ended took it along
		st.consume(len(st.in.data))
	}
	return taken
}

func (c *conn) priority(h frameHeader, b []byte) error {
	switch {
	case h.stream == 0:
		return protocolError("PRIORITY on no stream")
	case len(b) != 5:
		return c.resetOrFail(h.stream, codeFrameSize)
	case binary.BigEndian.Uint32(b)&maxStreamID == h.stream:
		return c.resetOrFail(h.stream, codeProtocol)
	}
	return nil
}

// resetOrFail ends a stream by an error of the client's.
func (c *conn) resetOrFail(stream uint32, code errorCode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[stream]
	switch {
	case st != nil:
		c.resetStream(st, code)
	case c.idle(stream): // such a stream can not be reset
		return &connError{code, "PRIORITY is wrong"}
	default:
		c.out = appendReset(c.out, stream, code)
	}
	return nil
}

// resetStream forgets a stream and tells the client. mu is held.
func (c *conn) resetStream(st *stream, code errorCode) {
	c.out = appendReset(c.out, st.id, code)
	c.forget(st)
}

// forget drops a stream whose answer nobody wants. mu is held.
func (c *conn) forget(st *stream) {
	st.gone.Store(true)
	c.drop(st)
	if st.out.queued {
		if i := slices.Index(c.waiting, st); i >= 0 {
			c.waiting = slices.Delete(c.waiting, i, i+1)
		}
	}
	if st.handler != nil {
		st.handler.cancel(errReset)
	}
}

// drop removes a stream. Whoever is still at it counts as an orphan, so that a client that gives up its calls can not
// have more of them under way than others. mu is held.
func (c *conn) drop(st *stream) {
	delete(c.streams, st.id)
	st.ended()
	c.held -= len(st.in.data)
	c.unsent -= len(st.out.pending)
	st.in.data, st.out.pending = nil, nil
	if st.pipe != nil {
		st.pipe.abandon()
	}
	if st.busy && !st.orphan {
		st.orphan = true
		c.orphans++
	}
}

// settle notes that nobody is at a stream any more. mu is held.
func (c *conn) settle(st *stream) {
	st.busy = false
	if st.orphan {
		st.orphan = false
		c.orphans--
	}
}

func (c *conn) reset(h frameHeader, b []byte) error {
	switch {
	case c.idle(h.stream):
		return protocolError("RST_STREAM on an idle stream")
	case len(b) != 4:
		return &connError{codeFrameSize, "RST_STREAM of a wrong size"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if st := c.streams[h.stream]; st != nil {
		c.forget(st)
	}
	return nil
}
