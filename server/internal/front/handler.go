package front

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// errReset is the cause of a call's end when its client gave it up.
var errReset = errors.New("the client cancelled the call")

// errRefused is the cause of a call's end when its request can not be taken.
var errRefused = errors.New("the request is too large")

// handler is a call that is served on a goroutine of its own.
type handler struct {
	st      *stream
	ctx     context.Context // the call's own
	cancel  context.CancelCauseFunc
	stop    func() // releases ctx's timer
	arrived chan struct{}
	room    chan struct{}
	header  metadata.MD // conn.mu protects it, as the next one
	trailer metadata.MD
	parts   [][]byte // scratch
	web     *webCall // nil for gRPC
}

// launch starts a handler for st. mu is held.
func (c *conn) launch(st *stream) {
	h := &handler{st: st, stop: func() {}, arrived: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancelCause(metadata.NewIncomingContext(c.ctx, st.head.metadata()))
	h.cancel = cancel
	if st.head.timed {
		ctx, h.stop = context.WithTimeout(ctx, st.head.timeout)
	}
	h.ctx = grpc.NewContextWithServerTransportStream(ctx, (*callHeader)(h))
	st.handler, st.busy = h, true
	c.s.wg.Go(h.run)
}

func (h *handler) run() {
	m, s := h.st.head.method, h.st.c.s
	var answer any
	var err error
	if m.stream != nil {
		err = s.callStream(m, &callStream{h})
	} else {
		answer, err = s.callUnary(h.ctx, m, h.receive)
		if err == nil {
			err = h.send(answer)
		}
	}
	h.finish(err)
}

// callUnary and callStream are where every call that is not Direct gets to its method, in whatever way it came here.
func (s *Server) callUnary(ctx context.Context, m *method, decode func(any) error) (any, error) {
	return m.unary(m.impl, ctx, decode, s.cfg.Intercept)
}

func (s *Server) callStream(m *method, st grpc.ServerStream) error { return m.stream(m.impl, st) }

// statusOf is the status that a method's error stands for.
func statusOf(err error) *status.Status {
	if err == nil {
		return statusOK
	}
	if s, ok := status.FromError(err); ok {
		return s
	}
	return status.FromContextError(err)
}

func (h *handler) finish(err error) {
	st, c := h.st, h.st.c
	s := statusOf(err)
	c.mu.Lock()
	c.settle(st)
	if !st.out.headed && len(h.header) > 0 && st.out.status == nil && !st.gone.Load() {
		st.writeHead(h.header)
	}
	st.end(s, h.trailer)
	c.mu.Unlock()
	h.stop()
	h.cancel(context.Canceled)
	c.flush()
}

// send puts one message where the next flush writes it. It waits while too much of the stream waits already.
func (h *handler) send(m any) error {
	st, c := h.st, h.st.c
	bufs, err := c.s.cfg.Codec.Marshal(m)
	if err != nil {
		return status.Errorf(codes.Internal, "grpc: error while marshaling: %v", err)
	}
	defer bufs.Free()
	size := bufs.Len()
	var prefix [prefixBytes]byte
	binary.BigEndian.PutUint32(prefix[1:], uint32(size))
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := h.awaitRoom(); err != nil {
		return err
	}
	st.writeHead(h.header)
	h.parts = append(h.parts[:0], prefix[:])
	for _, b := range bufs {
		h.parts = append(h.parts, b.ReadOnlyData())
	}
	st.head.method.counts.sent.Add(1)
	st.put(h.parts...)
	clear(h.parts)
	return nil
}

// receive waits for the next message and decodes it.
func (h *handler) receive(m any) error {
	for {
		body, compressed, granted, err := h.take()
		if granted {
			h.st.c.flush()
		}
		if err == nil && body != nil {
			err = h.decode(body, compressed, m)
			if err == nil {
				h.st.head.method.counts.received.Add(1)
				return nil
			}
		}
		if err != nil {
			return h.fault(err)
		}
		select {
		case <-h.arrived:
		case <-h.ctx.Done():
			return status.FromContextError(h.ctx.Err()).Err()
		}
	}
}

// fault ends the call with what is wrong with its request, whatever its method makes of that.
func (h *handler) fault(err error) error {
	if err != io.EOF {
		c := h.st.c
		c.mu.Lock()
		h.st.end(status.Convert(err), h.trailer)
		c.mu.Unlock()
		c.flush()
	}
	return err
}

// take returns the next message, or nil when it is not there yet, and whether the client was allowed to send more.
func (h *handler) take() (body []byte, compressed, granted bool, err error) {
	st, c := h.st, h.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	in := &st.in
	if st.gone.Load() || st.out.status != nil {
		return nil, false, false, status.Error(codes.Canceled, context.Canceled.Error())
	}
	body, format, ok, size := in.message()
	switch {
	case size > c.s.cfg.MaxRequestBytes:
		return nil, false, false, c.tooLarge(size).Err()
	case ok:
	case !in.ended:
		return nil, false, false, nil
	case len(in.data) > 0:
		return nil, false, false, status.Error(codes.Internal, io.ErrUnexpectedEOF.Error())
	case st.head.method.stream == nil:
		return nil, false, false, status.Error(codes.Internal, noMessage)
	default:
		return nil, false, false, io.EOF
	}
	if format > 1 {
		return nil, false, false, status.Errorf(codes.Internal, "grpc: received unexpected payload format %d", format)
	}
	st.consume(prefixBytes + size)
	if st.head.method.stream == nil && len(in.data) > 0 {
		return nil, false, false, status.Error(codes.Internal, manyMessages)
	}
	_, _, _, next := in.message()
	if more := in.grant(next); more > 0 && next <= c.s.cfg.MaxRequestBytes {
		c.out = appendWindowUpdate(c.out, st.id, more)
		granted = true
	}
	return body, format == 1, granted, nil
}

// What a unary method is told that does not get one message, as grpc-go says it.
const (
	noMessage    = "cardinality violation: received no request message from non-client-streaming RPC"
	manyMessages = "cardinality violation: received multiple request messages for non-client-streaming RPC"
)

func (h *handler) decode(body []byte, compressed bool, m any) error {
	s := h.st.c.s
	if compressed {
		var err error
		if body, err = h.expand(body); err != nil {
			return err
		}
	}
	return s.decode(body, m)
}

// expand decompresses a message, up to the size that an uncompressed one may have.
func (h *handler) expand(body []byte) ([]byte, error) {
	name := h.st.head.encoding
	if name == "" || name == encoding.Identity {
		return nil, status.Error(codes.Internal, "grpc: compressed flag set with identity or empty encoding")
	}
	c := encoding.GetCompressor(name)
	if c == nil {
		return nil, status.Errorf(codes.Unimplemented, "grpc: Decompressor is not installed for grpc-encoding %q", name)
	}
	r, err := c.Decompress(bytes.NewReader(body))
	if err != nil {
		return nil, status.Errorf(codes.Internal, "grpc: failed to decompress the received message: %v", err)
	}
	limit := h.st.c.s.cfg.MaxRequestBytes
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	switch {
	case err != nil:
		return nil, status.Errorf(codes.Internal, "grpc: failed to decompress the received message: %v", err)
	case len(out) > limit:
		return nil, status.Errorf(codes.ResourceExhausted, "grpc: received message after decompression larger than max %d", limit)
	}
	return out, nil
}

// callStream is a handler as grpc's stream methods see it.
type callStream struct{ h *handler }

var _ grpc.ServerStream = (*callStream)(nil)

func (s *callStream) Context() context.Context { return s.h.ctx }
func (s *callStream) SendMsg(m any) error {
	defer s.Flush()
	return s.h.send(m)
}

func (s *callStream) RecvMsg(m any) error             { return s.h.receive(m) }
func (s *callStream) SetHeader(md metadata.MD) error  { return (*callHeader)(s.h).SetHeader(md) }
func (s *callStream) SendHeader(md metadata.MD) error { return (*callHeader)(s.h).SendHeader(md) }
func (s *callStream) SetTrailer(md metadata.MD)       { _ = (*callHeader)(s.h).SetTrailer(md) }

// Holder is what a stream of a Server offers beyond [grpc.ServerStream] to handlers that send several messages at once.
type Holder interface {
	// HoldMsg is SendMsg, but the message may stay here until Flush is called.
	HoldMsg(m any) error
	Flush()
}

var _ Holder = (*callStream)(nil)

func (s *callStream) HoldMsg(m any) error { return s.h.send(m) }
func (s *callStream) Flush()              { s.h.st.c.flush() }

// callHeader is a handler as grpc.SetHeader and its like see it.
type callHeader handler

var _ grpc.ServerTransportStream = (*callHeader)(nil)

func (h *callHeader) Method() string { return h.st.head.path }

func (h *callHeader) SetHeader(md metadata.MD) error {
	c := h.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.st.out.headed {
		return status.Error(codes.Internal, "the headers were sent already")
	}
	h.header = metadata.Join(h.header, md)
	return nil
}

func (h *callHeader) SendHeader(md metadata.MD) error {
	if err := h.SetHeader(md); err != nil {
		return err
	}
	c := h.st.c
	c.mu.Lock()
	if !h.st.gone.Load() && h.st.out.status == nil {
		h.st.writeHead(h.header)
	}
	c.mu.Unlock()
	c.flush()
	return nil
}

func (h *callHeader) SetTrailer(md metadata.MD) error {
	c := h.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	h.trailer = metadata.Join(h.trailer, md)
	return nil
}
