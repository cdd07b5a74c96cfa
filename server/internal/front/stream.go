package front

import (
	"encoding/binary"
	"math"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	prefixBytes = 5 // of a gRPC message: whether it is compressed, and its length

	// streamWindowBytes is what a client may send on a stream before its handler has consumed it; a message that is
	// longer gets more once its length is known. connWindowBytes is the same for a connection.
	streamWindowBytes = 1 << 20
	connWindowBytes   = 1 << 20
	// streamBacklogBytes is what a stream may have waiting to be sent before SendMsg blocks.
	streamBacklogBytes = 64 << 10
	// outSoftBytes is what a connection may have waiting to be written before streams keep the rest.
	outSoftBytes = 256 << 10
	// answerOverheadBytes is what the frames of an answer have beyond its message, mostly.
	answerOverheadBytes = 128
)

// stream is one call.
type stream struct {
	c    *conn
	id   uint32
	head *header
	// gone: nobody waits for the answer any more.
	gone atomic.Bool

	// The connection's mu protects the rest.
	in      inbound
	out     outbound
	handler *handler  // nil for a call that is answered directly
	pipe    *pipe     // nil for others
	began   time.Time // if Config.Observe is set
	busy    bool      // a handler or a Direct method is at it
	orphan  bool      // counted in conn.orphans
}

// inbound is what comes on a stream.
type inbound struct {
	data     []byte // received, not consumed
	body     int64  // bytes of DATA in all, without padding
	received int64  // bytes in all
	consumed int64
	granted  int64 // bytes that the client may send in all
	ended    bool
}

// outbound is what goes on a stream.
type outbound struct {
	window   int64
	pending  []byte         // of DATA frames that are still to be made
	status   *status.Status // the call's end; nil until it has one
	trailer  metadata.MD
	headed   bool // the head was written
	queued   bool // in conn.waiting: it has something to write and can not
	finished bool // the last frame was written
}

// message returns the first whole message of the data, without consuming it. size is its length as far as known, -1 if
// not.
func (in *inbound) message() (body []byte, format byte, ok bool, size int) {
	if len(in.data) < prefixBytes {
		return nil, 0, false, -1
	}
	size = int(min(uint64(binary.BigEndian.Uint32(in.data[1:])), math.MaxInt))
	if len(in.data)-prefixBytes < size {
		return nil, 0, false, size
	}
	end := prefixBytes + size
	return in.data[prefixBytes:end:end], in.data[0], true, size
}

// keep adds to the data that are not consumed.
func (st *stream) keep(b []byte) {
	st.in.data = append(st.in.data, b...)
	st.c.held += len(b)
}

// consume drops the first n bytes of the data. They are not written to any more.
func (st *stream) consume(n int) {
	in := &st.in
	in.consumed += int64(n)
	st.c.held -= n
	in.data = in.data[n:]
	if len(in.data) == 0 {
		in.data = nil
	}
}

// grant returns how much more the client is to be allowed now: a window beyond what was consumed, and at least to the
// end of the message that is coming in. Small raises are put off.
func (in *inbound) grant(messageBytes int) int64 {
	if in.ended {
		return 0
	}
	target := in.consumed + streamWindowBytes
	if messageBytes >= 0 {
		target = max(target, in.consumed+int64(prefixBytes+messageBytes))
	}
	more := target - in.granted
	if more <= 0 || more < streamWindowBytes/4 && in.granted > in.received {
		return 0
	}
	in.granted += more
	return more
}

// Encoder encodes messages.
type Encoder interface {
	Size(m proto.Message) int
	// AppendSized appends m, of which Size has given the size just now.
	AppendSized(b []byte, m proto.Message, size int) ([]byte, error)
}

type protobufEncoder struct{}

func (protobufEncoder) Size(m proto.Message) int { return proto.Size(m) }

func (protobufEncoder) AppendSized(b []byte, m proto.Message, _ int) ([]byte, error) {
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
}

// appendMessage appends m, which has a known size, with its prefix.
func appendMessage(b []byte, e Encoder, m proto.Message, size int) ([]byte, error) {
	at := len(b)
	b = append(b, 0, 0, 0, 0, 0)
	b, err := e.AppendSized(b, m, size)
	if err != nil {
		return b[:at], err
	}
	binary.BigEndian.PutUint32(b[at+1:], uint32(len(b)-at-prefixBytes))
	return b, nil
}

// put adds bytes of DATA to what is to be sent.
func (st *stream) put(parts ...[]byte) {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if !st.fits(size) {
		for _, p := range parts {
			st.out.pending = append(st.out.pending, p...)
		}
		st.c.unsent += size
		st.pump()
		return
	}
	st.account(size)
	c := st.c
	c.reserve(size + answerOverheadBytes)
	st.writeHead(nil)
	c.out = appendFrameHeader(c.out, size, frameData, 0, st.id)
	for _, p := range parts {
		c.out = append(c.out, p...)
	}
}

// fits reports whether DATA of so many bytes may be written now, as one frame.
func (st *stream) fits(size int) bool {
	c := st.c
	return len(st.out.pending) == 0 && size <= c.maxFrame && int64(size) <= min(st.out.window, c.sendWindow) && len(c.out) < outSoftBytes
}

// account takes DATA off the windows.
func (st *stream) account(size int) {
	st.out.window -= int64(size)
	st.c.sendWindow -= int64(size)
	st.c.acks.answered = true
	st.c.acks.bytes += size
}

// end closes the call with a status, behind what is still to be sent.
func (st *stream) end(s *status.Status, trailer metadata.MD) {
	if st.out.status == nil {
		st.out.status, st.out.trailer = s, trailer
	}
	st.pump()
}

// pump makes frames of what is to be sent, as far as the windows and the connection's backlog allow. What is left waits
// for them: see conn.resume.
func (st *stream) pump() {
	c, o := st.c, &st.out
	if o.finished || st.gone.Load() {
		return
	}
	for len(o.pending) > 0 {
		n := min(int64(len(o.pending)), o.window, c.sendWindow, int64(c.maxFrame))
		if n <= 0 || len(c.out) >= outSoftBytes {
			if o.window > 0 && !o.queued { // who has no window of its own is resumed when that comes
				o.queued = true
				c.waiting = append(c.waiting, st)
			}
			return
		}
		st.writeHead(nil)
		c.out = appendFrameHeader(c.out, int(n), frameData, 0, st.id)
		c.out = append(c.out, o.pending[:n]...)
		o.pending = o.pending[n:]
		c.unsent -= int(n)
		st.account(int(n))
	}
	o.pending = nil
	if o.status != nil {
		st.writeEnd()
	} else if st.pipe != nil {
		st.pipe.resume()
	}
	if st.handler != nil {
		signal(st.handler.room)
	}
}

func (st *stream) writeHead(md metadata.MD) {
	if st.out.headed {
		return
	}
	st.out.headed = true
	c := st.c
	if st.head.web {
		c.out = appendBlock(c.out, st.id, 0, c.webHead(st), c.maxFrame)
		return
	}
	c.scratch = appendMetadata(c.answers.appendHead(c.scratch[:0]), md)
	c.out = appendBlock(c.out, st.id, 0, c.scratch, c.maxFrame)
}

// writeEnd writes the trailers and forgets the stream. A client that is still sending is told to stop.
func (st *stream) writeEnd() {
	c, o := st.c, &st.out
	switch c.scratch = c.scratch[:0]; {
	case !st.head.web:
		c.scratch = st.appendTrailers(c.scratch)
		c.out = appendBlock(c.out, st.id, flagEndStream, c.scratch, c.maxFrame)
	case o.headed:
		c.out = appendFrameHeader(c.out, 0, frameData, flagEndStream, st.id)
	default:
		o.headed = true
		c.out = appendBlock(c.out, st.id, flagEndStream, c.webHead(st), c.maxFrame)
	}
	if !st.in.ended {
		c.out = appendReset(c.out, st.id, codeNone)
	}
	o.finished = true
	c.drop(st)
}

// appendTrailers appends the end of a call, and its head if that was not written.
func (st *stream) appendTrailers(b []byte) []byte {
	if !st.out.headed {
		b = st.c.answers.appendHead(b)
		st.out.headed = true
	}
	return appendMetadata(st.c.answers.appendStatus(b, st.out.status), st.out.trailer)
}

// signal wakes whoever waits on a channel of capacity 1.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
