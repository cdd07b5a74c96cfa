package front

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// ErrStopped answers Serve after Stop.
var ErrStopped = errors.New("front is stopped")

// Direct is a unary method that does not block. It runs on a connection's reader. body is the request's message and is
// only borrowed. It answers by [Call.Reply], now or later; or returns false, with nothing done, for the call to be
// served on a goroutine of its own by the registered method.
//
// No deadline is kept for it: a client gives up a call by itself, which Call.Gone tells.
type Direct func(c Call, body []byte, b *Batch) bool

// Config configures a Server. Codec is required.
type Config struct {
	// MaxRequestBytes bounds one message of a client; a larger one is answered with ResourceExhausted. 4 MiB if zero.
	MaxRequestBytes int
	// MinPingInterval is the least time between a client's pings; one that pings more often is sent away. 0 allows all.
	MinPingInterval time.Duration
	// MaxStreams bounds the calls of a connection that are under way. 10,000 if zero.
	MaxStreams int
	Codec      encoding.CodecV2
	Encoder    Encoder                     // of the answers of Direct methods; nil: protobuf's
	Intercept  grpc.UnaryServerInterceptor // around unary methods, not around Direct ones; nil for none
	// Web serves what is no gRPC: HTTP/1, and requests of HTTP/2 with another content type. Nil: both are refused.
	Web http.Handler
	// GreetTimeout bounds the wait for a connection's first bytes, and for the headers of a request of HTTP/1. 10s if zero.
	GreetTimeout time.Duration
	// InterceptStream is around methods that stream. A stream that it puts around another should be a Holder if that is.
	InterceptStream grpc.StreamServerInterceptor
	// Observe is told how long each call took, and of what type, service and method it was. Nil: no time is taken.
	Observe func(kind, service, method string, took time.Duration)
	// Turn is called when the Direct methods of all requests that were read together have run.
	Turn   func()
	Logger *slog.Logger // nil: discarded
}

const defaultMaxRequestBytes = 4 << 20

// Server serves gRPC. Services are registered before Serve is called.
type Server struct {
	cfg      Config
	methods  map[string]*method // immutable once served, as the next one
	services map[string]bool
	ctx      context.Context // ends at Stop; the server's own lifetime
	cancel   context.CancelFunc
	wg       sync.WaitGroup // connections, handlers, writers
	web      *webServer     // nil without Config.Web
	traffic  traffic
	// traced is what GODEBUG=http2debug=2 asks of Go's own servers: the pseudo-headers of requests go to the standard
	// logger, in their words. Other fields may be secret.
	traced bool

	mu        sync.Mutex // protects the rest
	conns     map[*conn]struct{}
	listeners map[net.Listener]struct{}
	leaving   bool
	stopped   bool
	empty     chan struct{} // closed when leaving and the last connection is gone
}

// method is one registered method.
type method struct {
	impl   any
	unary  grpc.MethodHandler // nil if stream is set
	stream grpc.StreamHandler
	direct Direct            // may be nil
	piped  map[int32]*method // what a stream carries that is a pipe; nil for others
	kind   string            // as in MethodStats.Type
	name   [2]string         // of the service and of the method
	counts counts
}

var _ grpc.ServiceRegistrar = (*Server)(nil)

// New makes a server without services.
func New(cfg Config) *Server {
	if cfg.MaxRequestBytes == 0 {
		cfg.MaxRequestBytes = defaultMaxRequestBytes
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = streamsMax
	}
	if cfg.Encoder == nil {
		cfg.Encoder = protobufEncoder{}
	}
	if cfg.Turn == nil {
		cfg.Turn = func() {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.GreetTimeout == 0 {
		cfg.GreetTimeout = greetTimeout
	}
	s := &Server{
		cfg: cfg, methods: make(map[string]*method), services: make(map[string]bool), conns: make(map[*conn]struct{}),
		listeners: make(map[net.Listener]struct{}), empty: make(chan struct{}),
	}
	s.traced = strings.Contains(os.Getenv("GODEBUG"), "http2debug=2")
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if cfg.Web != nil {
		s.web = newWebServer(s)
	}
	return s
}

// RegisterService implements grpc.ServiceRegistrar: generated code calls it.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.services[desc.ServiceName] = true
	for _, m := range desc.Methods {
		s.methods["/"+desc.ServiceName+"/"+m.MethodName] = &method{impl: impl, unary: m.Handler, kind: "unary", name: [2]string{desc.ServiceName, m.MethodName}}
	}
	for _, m := range desc.Streams {
		name := "/" + desc.ServiceName + "/" + m.StreamName
		s.methods[name] = &method{
			impl: impl, stream: s.intercepted(name, m), kind: streamKind(m), name: [2]string{desc.ServiceName, m.StreamName},
		}
	}
}

// intercepted returns the handler of a stream with InterceptStream around it.
func (s *Server) intercepted(name string, desc grpc.StreamDesc) grpc.StreamHandler {
	if s.cfg.InterceptStream == nil {
		return desc.Handler
	}
	info := &grpc.StreamServerInfo{FullMethod: name, IsClientStream: desc.ClientStreams, IsServerStream: desc.ServerStreams}
	return func(srv any, stream grpc.ServerStream) error {
		return s.cfg.InterceptStream(srv, stream, info, desc.Handler)
	}
}

func streamKind(d grpc.StreamDesc) string {
	switch {
	case !d.ServerStreams:
		return "client_stream"
	case !d.ClientStreams:
		return "server_stream"
	default:
		return "bidi_stream"
	}
}

// Direct has a registered unary method served by d. It panics if there is none of that name.
func (s *Server) Direct(fullName string, d Direct) {
	m := s.methods[fullName]
	if m == nil || m.unary == nil {
		panic(fmt.Sprintf("front: no unary method %q is registered", fullName))
	}
	m.direct = d
}

// Methods returns the full names of the registered methods, in no order.
func (s *Server) Methods() []string { return slices.Collect(maps.Keys(s.methods)) }

const (
	acceptRetryMin = 5 * time.Millisecond
	acceptRetryMax = time.Second
)

// Serve accepts connections from l until Stop or Leave, and returns ErrStopped then. It closes l.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.leaving || s.stopped {
		s.mu.Unlock()
		return errors.Join(ErrStopped, l.Close())
	}
	s.listeners[l] = struct{}{}
	s.startWeb()
	s.mu.Unlock()
	var delay time.Duration
	for {
		nc, err := l.Accept()
		if err == nil {
			delay = 0
			s.start(nc)
			continue
		}
		s.mu.Lock()
		over := s.leaving || s.stopped
		s.mu.Unlock()
		if over {
			return ErrStopped
		}
		var temporary interface{ Temporary() bool } // out of descriptors, for one: the only sign that accept gives
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			return err
		}
		delay = min(max(acceptRetryMin, 2*delay), acceptRetryMax)
		s.cfg.Logger.Warn("can not accept a connection", "err", err, "again in", delay)
		select {
		case <-time.After(delay):
		case <-s.ctx.Done():
		}
	}
}

func (s *Server) start(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving || s.stopped {
		_ = nc.Close()
		c.cancel(ErrStopped)
		return
	}
	s.conns[c] = struct{}{}
	s.wg.Go(func() {
		if c.serve() {
			s.remove(c)
		}
	})
}

// Pipe returns a connection to the server from within the process, in the clear.
func (s *Server) Pipe() net.Conn {
	ours, theirs := net.Pipe()
	s.start(ours)
	return theirs
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.checkEmpty()
}

// checkEmpty is called with mu held.
func (s *Server) checkEmpty() {
	if !s.leaving || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.empty:
	default:
		close(s.empty)
	}
}

// Leave accepts nothing more, asks the clients to go elsewhere, and waits until their calls are answered and their
// connections are over, or until ctx ends.
func (s *Server) Leave(ctx context.Context) {
	s.mu.Lock()
	s.leaving = true
	s.closeListeners()
	for c := range s.conns {
		s.wg.Go(c.leave)
	}
	if s.web != nil {
		s.wg.Go(func() { s.web.leave(ctx) })
	}
	s.checkEmpty()
	s.mu.Unlock()
	select {
	case <-s.empty:
	case <-ctx.Done():
	}
}

// Stop ends all connections and calls, and returns when nothing of the server runs any more.
func (s *Server) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.closeListeners()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.close()
	}
	s.cancel()
	if s.web != nil {
		s.web.stop()
	}
	s.wg.Wait()
}

// closeListeners is called with mu held.
func (s *Server) closeListeners() {
	for l := range s.listeners {
		_ = l.Close() // Serve returns its own error
	}
	clear(s.listeners)
}

// Call is a call that a Direct method has taken. It is answered once.
type Call interface {
	// Gone reports whether nobody waits for the answer any more.
	Gone() bool
	// Go runs f, which replies, on a goroutine of its own, for what turned out to take long. Stop waits for it. It does
	// nothing when the connection is over.
	Go(f func(b *Batch))
	// Context returns the context of the call's connection, which knows the peer.
	Context() context.Context
	// Header returns a metadata value, "" if it is absent. key is in lower case.
	Header(key string) string
	// Reply answers with m, or with err's status. It writes nothing itself: b.Flush does. It may be called on any
	// goroutine, and does nothing when the call is gone.
	Reply(m proto.Message, err error, b *Batch)
}

// streamCall is a call that has a stream of its own.
type streamCall stream

var _ Call = (*streamCall)(nil)

func (c *streamCall) Gone() bool { return c.gone.Load() }

func (c *streamCall) Go(f func(b *Batch)) { c.c.spawn(f) }

// spawn runs f on a goroutine of its own, unless the connection is over.
func (c *conn) spawn(f func(b *Batch)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed { // else the reader is still among those that Stop waits for
		return
	}
	c.s.wg.Go(func() {
		var b Batch
		f(&b)
		b.Flush()
	})
}

func (c *streamCall) Context() context.Context { return c.c.ctx }

func (c *streamCall) Header(key string) string { return c.head.get(key) }

func (c *streamCall) Reply(m proto.Message, err error, b *Batch) {
	st, cn := (*stream)(c), c.c
	cn.mu.Lock()
	defer cn.mu.Unlock()
	cn.settle(st)
	if st.gone.Load() || cn.closed || st.out.status != nil {
		return
	}
	b.add(cn)
	if err == nil {
		err = st.answer(m)
	}
	if err != nil {
		st.end(statusOf(err), nil)
	}
}

var statusOK = status.New(codes.OK, "")

// answer writes m and the status of success. mu is held.
func (st *stream) answer(m proto.Message) error {
	c := st.c
	e := c.s.cfg.Encoder
	body := e.Size(m)
	size := prefixBytes + body
	if !st.fits(size) {
		if c.unsent+size > unsentMaxBytes {
			return status.Error(codes.ResourceExhausted, "too many answers wait for the client to read them")
		}
		b, err := appendMessage(make([]byte, 0, size), e, m, body)
		if err != nil {
			return status.Errorf(codes.Internal, "grpc: error while marshaling: %v", err)
		}
		st.put(b)
		st.end(statusOK, nil)
		return nil
	}
	c.reserve(size + answerOverheadBytes)
	st.writeHead(nil)
	at := len(c.out)
	c.out = appendFrameHeader(c.out, size, frameData, 0, st.id)
	var err error
	if c.out, err = appendMessage(c.out, e, m, body); err != nil {
		c.out = c.out[:at]
		return status.Errorf(codes.Internal, "grpc: error while marshaling: %v", err)
	}
	st.account(size)
	st.end(statusOK, nil)
	return nil
}
