package front

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Local returns a connection that calls the server's methods in this process, by the same way as calls from outside but
// for Direct ones, which their registered methods serve. The outgoing metadata of a call's context are what its method
// sees. Calls fail with Unavailable after Stop.
func (s *Server) Local() grpc.ClientConnInterface { return local{s} }

type local struct{ s *Server }

// find returns the method and the context that it is called with.
func (l local) find(ctx context.Context, path string) (*method, context.Context, *localHeader, error) {
	m := l.s.methods[path]
	if m == nil {
		return nil, nil, nil, l.s.unknown(path).Err()
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	head := &localHeader{path: path}
	ctx = metadata.NewIncomingContext(metadata.NewOutgoingContext(ctx, nil), md)
	return m, grpc.NewContextWithServerTransportStream(ctx, head), head, nil
}

// Invoke implements grpc.ClientConnInterface.
func (l local) Invoke(ctx context.Context, path string, args, reply any, opts ...grpc.CallOption) error {
	m, ctx, head, err := l.find(ctx, path)
	if err != nil {
		return err
	}
	if m.unary == nil {
		return status.Errorf(codes.Internal, "%s is a stream", path)
	}
	m.counts.started.Add(1)
	answer, err := l.s.callUnary(ctx, m, func(into any) error { return l.s.carry(args, into) })
	m.counts.handledWith(statusOf(err).Code())
	head.report(opts)
	if err != nil {
		return statusOf(err).Err()
	}
	from, ok := answer.(proto.Message)
	to, ok2 := reply.(proto.Message)
	if !ok || !ok2 {
		return status.Error(codes.Internal, "the answer is no message")
	}
	proto.Merge(to, from)
	return nil
}

// carry gives a method a request, under the same bound as one from outside.
func (s *Server) carry(from, into any) error {
	request, ok := from.(proto.Message)
	to, ok2 := into.(proto.Message)
	if !ok || !ok2 {
		return status.Error(codes.Internal, "the request is no message")
	}
	if size := proto.Size(request); size > s.cfg.MaxRequestBytes {
		return status.Newf(codes.ResourceExhausted, tooLargeText, size, s.cfg.MaxRequestBytes).Err()
	}
	proto.Merge(to, request)
	return nil
}

// NewStream implements grpc.ClientConnInterface. The method ends with ctx.
func (l local) NewStream(ctx context.Context, _ *grpc.StreamDesc, path string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	outer := ctx
	m, ctx, head, err := l.find(ctx, path)
	if err != nil {
		return nil, err
	}
	if m.stream == nil {
		return nil, status.Errorf(codes.Internal, "%s is no stream", path)
	}
	ctx, cancel := context.WithCancel(ctx)
	st := &localStream{
		s: l.s, outer: outer, head: head,
		up: make(chan []byte), down: make(chan []byte), done: make(chan struct{}), half: make(chan struct{}),
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.stopped {
		cancel()
		return nil, status.Error(codes.Unavailable, ErrStopped.Error())
	}
	l.s.wg.Go(func() {
		defer cancel()
		m.counts.started.Add(1)
		st.err = l.s.callStream(m, &localServer{st, ctx, m})
		m.counts.handledWith(statusOf(st.err).Code())
		close(st.done)
	})
	return st, nil
}

// localStream is a stream as its caller sees it. Messages go through it encoded, since a method may send what has its
// encoding already.
type localStream struct {
	s        *Server
	outer    context.Context
	head     *localHeader
	up, down chan []byte
	halfOnce sync.Once
	half     chan struct{} // closed when the caller has sent all
	done     chan struct{} // closed when the method has returned
	err      error         // of the method; set before done
}

var _ grpc.ClientStream = (*localStream)(nil)

// Header returns what the method has set so far; it does not wait.
func (st *localStream) Header() (metadata.MD, error) { return st.head.md(), nil }

func (st *localStream) Trailer() metadata.MD     { return nil }
func (st *localStream) Context() context.Context { return st.outer }

func (st *localStream) CloseSend() error {
	st.halfOnce.Do(func() { close(st.half) })
	return nil
}

func (st *localStream) SendMsg(m any) error {
	b, err := st.s.encode(m)
	if err != nil {
		return err
	}
	if len(b) > st.s.cfg.MaxRequestBytes {
		return status.Newf(codes.ResourceExhausted, tooLargeText, len(b), st.s.cfg.MaxRequestBytes).Err()
	}
	select {
	case st.up <- b:
		return nil
	case <-st.done:
		return io.EOF // RecvMsg has the reason
	case <-st.outer.Done():
		return status.FromContextError(st.outer.Err()).Err()
	}
}

func (st *localStream) RecvMsg(m any) error {
	select {
	case b := <-st.down:
		return st.s.decode(b, m)
	case <-st.done:
		if st.err == nil {
			return io.EOF
		}
		return statusOf(st.err).Err()
	case <-st.outer.Done():
		return status.FromContextError(st.outer.Err()).Err()
	}
}

// localServer is the same stream as its method sees it.
type localServer struct {
	st  *localStream
	ctx context.Context
	m   *method
}

var _ grpc.ServerStream = (*localServer)(nil)

func (s *localServer) Context() context.Context       { return s.ctx }
func (s *localServer) SetHeader(md metadata.MD) error { return s.st.head.SetHeader(md) }
func (s *localServer) SendHeader(metadata.MD) error   { return nil }
func (s *localServer) SetTrailer(metadata.MD)         {}

func (s *localServer) SendMsg(m any) error {
	b, err := s.st.s.encode(m)
	if err != nil {
		return err
	}
	select {
	case s.st.down <- b:
		s.m.counts.sent.Add(1)
		return nil
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

func (s *localServer) RecvMsg(m any) error {
	select {
	case b := <-s.st.up:
		s.m.counts.received.Add(1)
		return s.st.s.decode(b, m)
	case <-s.st.half: // what the caller sent before is taken: it waits for that
		return io.EOF
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

func (s *Server) encode(m any) ([]byte, error) {
	bufs, err := s.cfg.Codec.Marshal(m)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "grpc: error while marshaling: %v", err)
	}
	defer bufs.Free()
	return bufs.Materialize(), nil
}

func (s *Server) decode(b []byte, m any) error {
	if err := s.cfg.Codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, m); err != nil {
		return status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err)
	}
	return nil
}

// localHeader is what grpc.SetHeader and its like see of a local call.
type localHeader struct {
	path string

	mu              sync.Mutex // protects the rest
	header, trailer metadata.MD
}

var _ grpc.ServerTransportStream = (*localHeader)(nil)

func (h *localHeader) Method() string { return h.path }

func (h *localHeader) SetHeader(md metadata.MD) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.header = metadata.Join(h.header, md)
	return nil
}

func (h *localHeader) SendHeader(md metadata.MD) error { return h.SetHeader(md) }

func (h *localHeader) SetTrailer(md metadata.MD) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trailer = metadata.Join(h.trailer, md)
	return nil
}

func (h *localHeader) md() metadata.MD {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.header.Copy()
}

// report fills in what the caller asked for.
func (h *localHeader) report(opts []grpc.CallOption) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = h.header.Copy()
		case grpc.TrailerCallOption:
			*o.TrailerAddr = h.trailer.Copy()
		}
	}
}
