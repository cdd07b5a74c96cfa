package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/api/v3electionpb"
	electiongw "github.com/latchkey-go/latchkey/api/v3electionpb/gw"
	"github.com/latchkey-go/latchkey/api/v3lockpb"
	lockgw "github.com/latchkey-go/latchkey/api/v3lockpb/gw"
)

const (
	// bodyTimeout bounds the time in which the body of a request, that is no stream, has to come.
	bodyTimeout = time.Minute
	// bodiesMax bounds what the bodies take that are held at once, in bytes.
	bodiesMax = 256 << 20
	// drainMax is how much is read of a body that is too large before it is refused.
	drainMax = 16 << 20
	// streamsMax bounds the gateway's streams of a member.
	streamsMax = 10_000
)

// Gateway configures the JSON gateway. Conn and MaxRequestBytes are required.
type Gateway struct {
	// Conn calls the services, within the process.
	Conn grpc.ClientConnInterface
	// MaxRequestBytes is the bound of one request. Its JSON may take twice as much.
	MaxRequestBytes int
	// NeedsUsers reports whether requests need a user now; nil: never.
	NeedsUsers func() bool
}

// gateway serves the paths below gatewayPrefix.
type gateway struct {
	mux     *runtime.ServeMux
	limit   int64        // of a body, or of a document of a stream
	held    atomic.Int64 // bytes of bodies
	streams atomic.Int64
}

// streaming are the paths on which the body is a stream too; observing are those with one request and many answers.
var (
	streaming = map[string]bool{"/v3/watch": true, "/v3/lease/keepalive": true}
	observing = map[string]bool{"/v3/maintenance/snapshot": true, "/v3/election/observe": true}
)

func newGateway(cfg Gateway) (*gateway, error) {
	g := &gateway{limit: 2 * int64(cfg.MaxRequestBytes)}
	g.mux = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithErrorHandler(writeError),
		runtime.WithIncomingHeaderMatcher(incoming),
		runtime.WithMetadata(token),
	)
	ctx, cc := context.Background(), quietConn{cfg.Conn}
	err := errors.Join(
		gw.RegisterKVHandlerClient(ctx, g.mux, pb.NewKVClient(cc)),
		gw.RegisterWatchHandlerClient(ctx, g.mux, pb.NewWatchClient(cc)),
		gw.RegisterLeaseHandlerClient(ctx, g.mux, pb.NewLeaseClient(cc)),
		gw.RegisterClusterHandlerClient(ctx, g.mux, pb.NewClusterClient(cc)),
		gw.RegisterMaintenanceHandlerClient(ctx, g.mux, pb.NewMaintenanceClient(cc)),
		gw.RegisterAuthHandlerClient(ctx, g.mux, pb.NewAuthClient(cc)),
		lockgw.RegisterLockHandlerClient(ctx, g.mux, v3lockpb.NewLockClient(cc)),
		electiongw.RegisterElectionHandlerClient(ctx, g.mux, v3electionpb.NewElectionClient(cc)))
	if err != nil {
		return nil, err
	}
	return g, nil
}

// token passes the user's token on: a header "Authorization", which may begin as bearer tokens do.
func token(_ context.Context, r *http.Request) metadata.MD {
	if t := r.Header.Get("Authorization"); t != "" {
		return metadata.Pairs(rpctypes.TokenFieldNameGRPC, strings.TrimPrefix(t, "Bearer "))
	}
	return nil
}

// incoming tells which headers become metadata: those that say so, and none that only HTTP is concerned with.
func incoming(name string) (string, bool) {
	key, ok := strings.CutPrefix(name, runtime.MetadataHeaderPrefix)
	return strings.ToLower(key), ok
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	w = &quietWriter{w, cancel}
	r = r.WithContext(peer.NewContext(ctx, &peer.Peer{Addr: address(r.RemoteAddr)})) // no certificate: it is no user here
	// The content type means nothing here, and the runtime writes to the process's log if it is malformed.
	r.Header.Del("Content-Type")
	if r.Method != http.MethodPost {
		g.mux.ServeHTTP(w, r)
		return
	}
	if streaming[r.URL.Path] || observing[r.URL.Path] {
		defer g.streams.Add(-1)
		if g.streams.Add(1) > streamsMax {
			g.refuse(w, r, rpctypes.ErrGRPCRequestTooManyRequests)
			return
		}
	}
	if streaming[r.URL.Path] {
		g.stream(w, r)
		return
	}
	body, err := g.body(w, r)
	defer g.held.Add(-int64(cap(body)))
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	g.mux.ServeHTTP(w, r)
}

func (g *gateway) refuse(w http.ResponseWriter, r *http.Request, err error) {
	_, out := runtime.MarshalerForRequest(g.mux, r)
	writeError(r.Context(), g.mux, out, w, r, err)
}

// bodyStep is the least room that a body is read into.
const bodyStep = 512

// body reads a request's body. Its capacity counts as held from now on, also with an error.
func (g *gateway) body(w http.ResponseWriter, r *http.Request) (b []byte, err error) {
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(bodyTimeout)); err == nil {
		defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	}
	grow := func(n int64) error {
		if g.held.Add(n) > bodiesMax {
			g.held.Add(-n)
			return rpctypes.ErrGRPCRequestTooManyRequests
		}
		next := make([]byte, len(b), int64(cap(b))+n)
		copy(next, b)
		b = next
		return nil
	}
	for {
		if size := max(r.ContentLength, int64(len(b))); size > g.limit {
			_, _ = io.CopyN(io.Discard, r.Body, drainMax) // or the client, which is sending, does not see the answer
			return b, status.Errorf(codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", size, g.limit)
		}
		if len(b) == cap(b) {
			if err := grow(max(int64(cap(b)), bodyStep)); err != nil {
				return b, err
			}
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return b, rpctypes.ErrGRPCCanceled
		}
	}
}

// stream serves a request whose body is a stream of documents, each bounded.
func (g *gateway) stream(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	body := &documents{r: r.Body, left: g.limit, limit: g.limit}
	r.Body = body
	g.mux.ServeHTTP(w, r)
	if !body.ended.Load() { // whoever still reads it is not waited for
		_ = rc.SetReadDeadline(time.Unix(1, 0))
	}
}

// documents is a body of several JSON documents. One goroutine reads it, with a decoder that calls next.
type documents struct {
	r           io.ReadCloser
	left, limit int64
	ended       atomic.Bool
}

func (d *documents) Close() error { return d.r.Close() }

func (d *documents) Read(p []byte) (int, error) {
	if d.left <= 0 {
		return 0, rpctypes.ErrGRPCRequestTooLarge
	}
	n, err := d.r.Read(p[:min(int64(len(p)), d.left)])
	d.left -= int64(n)
	if err != nil {
		d.ended.Store(true)
	}
	return n, err
}

// next notes that a document was complete.
func (d *documents) next() { d.left = d.limit }

// address is a client's as net/http tells it.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// quietConn ends streams without an error when their client has gone: there is nobody to tell.
type quietConn struct{ grpc.ClientConnInterface }

func (c quietConn) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.ClientConnInterface.NewStream(ctx, d, method, opts...)
	if err != nil {
		return nil, err
	}
	return quietStream{s}, nil
}

// quietWriter never fails: a request whose client takes no answer is cancelled instead. The runtime would write each such
// failure to the process's log.
type quietWriter struct {
	http.ResponseWriter
	cancel context.CancelFunc
}

func (w *quietWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *quietWriter) Write(p []byte) (int, error) {
	if _, err := w.ResponseWriter.Write(p); err != nil {
		w.cancel()
	}
	return len(p), nil
}

// FlushError is what http.ResponseController calls.
func (w *quietWriter) FlushError() error {
	if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
		w.cancel()
	}
	return nil
}

type quietStream struct{ grpc.ClientStream }

func (s quietStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil && errors.Is(s.Context().Err(), context.Canceled) {
		return io.EOF
	}
	return err
}
