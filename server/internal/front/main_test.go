package front

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip"
	grpcproto "google.golang.org/grpc/encoding/proto"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
	"github.com/latchkey-go/latchkey/server/internal/gate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout ends a test that hangs; nothing waits for it otherwise.
const testTimeout = 60 * time.Second

// requestMax is small so that tests reach it.
const requestMax = 6 << 20

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// service does what its requests say. The same is served by a front and by grpc-go.
type service struct {
	pb.UnimplementedTestServiceServer
	began chan context.Context // of calls that ask to wait for their end
	ended chan error
	stuck chan struct{} // what HalfDuplexCall waits for, whatever its client does
}

func newService() *service {
	return &service{began: make(chan context.Context, streamsMax), ended: make(chan error, streamsMax), stuck: make(chan struct{})}
}

func (s *service) EmptyCall(ctx context.Context, _ *pb.Empty) (*pb.Empty, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	header, trailer := metadata.MD{}, metadata.MD{}
	for k, v := range md {
		switch {
		case strings.HasPrefix(k, "header-"):
			header[k] = v
		case strings.HasPrefix(k, "trailer-"):
			trailer[k] = v
		}
	}
	header["method"] = []string{grpc.ServerTransportStreamFromContext(ctx).Method()}
	return &pb.Empty{}, errors.Join(grpc.SetHeader(ctx, header), grpc.SetTrailer(ctx, trailer))
}

// answer is what both servers and the Direct method do with a request.
func answer(r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if st := r.GetResponseStatus(); st.GetCode() != 0 {
		s := status.New(codes.Code(st.GetCode()), st.GetMessage())
		if r.GetFillUsername() {
			s, _ = s.WithDetails(wrapperspb.String("détail"))
		}
		return nil, s.Err()
	}
	return &pb.SimpleResponse{Payload: &pb.Payload{Body: make([]byte, r.GetResponseSize())}, Username: r.GetPayload().String()}, nil
}

func (s *service) wait(ctx context.Context) error {
	s.began <- ctx
	<-ctx.Done()
	s.ended <- context.Cause(ctx)
	return status.FromContextError(ctx.Err()).Err()
}

func (s *service) UnaryCall(ctx context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if r.GetFillOauthScope() {
		return nil, s.wait(ctx)
	}
	return answer(r)
}

func (s *service) StreamingOutputCall(r *pb.StreamingOutputCallRequest, st pb.TestService_StreamingOutputCallServer) error {
	for _, p := range r.GetResponseParameters() {
		if err := st.Send(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: make([]byte, p.GetSize())}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) StreamingInputCall(st pb.TestService_StreamingInputCallServer) error {
	size := 0
	for {
		r, err := st.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return st.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: int32(size)})
		case err != nil:
			return err
		}
		size += len(r.GetPayload().GetBody())
	}
}

func (s *service) HalfDuplexCall(st pb.TestService_HalfDuplexCallServer) error {
	s.began <- st.Context()
	<-s.stuck
	return nil
}

func (s *service) FullDuplexCall(st pb.TestService_FullDuplexCallServer) error {
	for {
		r, err := st.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			s.ended <- err
			return err
		case r.GetResponseStatus() != nil:
			return s.wait(st.Context())
		}
		if err := st.Send(&pb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
}

// rig is a front that serves a service, with UnaryCall answered directly.
type rig struct {
	*service
	front  *Server
	addr   string
	served chan error
	held   chan Call // Direct calls that ask to wait
}

func listen(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	if overTLS(t) {
		l = gate.New(gate.Bounds{}, nil).Listen(l, gate.Secure, serverTLS(t))
	}
	return l
}

// newRig serves until the test ends. A request of UnaryCall with FillOauthScope is held, with FillUsername and no status
// is declined, so a goroutine serves it.
func newRig(t testing.TB, configure ...func(*Config)) *rig {
	cfg := Config{Codec: encoding.GetCodecV2(grpcproto.Name), MaxRequestBytes: requestMax}
	for _, f := range configure {
		f(&cfg)
	}
	r := newIdleRig(cfg)
	r.serve(t)
	return r
}

// newIdleRig does not listen.
func newIdleRig(cfg Config) *rig {
	r := &rig{service: newService(), front: New(cfg), served: make(chan error, 1), held: make(chan Call, 2*streamsMax)}
	pb.RegisterTestServiceServer(r.front, r.service)
	latchkeyv1.RegisterPipeServer(r.front, latchkeyv1.UnimplementedPipeServer{})
	r.front.ServePipe(latchkeyv1.Pipe_Carry_FullMethodName, map[int32]string{
		pipedUnary: pb.TestService_UnaryCall_FullMethodName, pipedEmpty: pb.TestService_EmptyCall_FullMethodName,
		pipedNothing: pb.TestService_CacheableUnaryCall_FullMethodName,
	})
	r.front.Direct(pb.TestService_UnaryCall_FullMethodName, func(c Call, body []byte, b *Batch) bool {
		var q pb.SimpleRequest
		if err := proto.Unmarshal(body, &q); err != nil {
			return false
		}
		switch {
		case q.GetFillOauthScope():
			r.held <- c
			return true
		case q.GetFillUsername() && q.GetResponseStatus() == nil:
			return false
		}
		m, err := answer(&q)
		if err != nil {
			c.Reply(nil, err, b)
		} else {
			c.Reply(m, nil, b)
		}
		return true
	})
	return r
}

func (r *rig) serve(t testing.TB) {
	l := listen(t)
	r.addr = l.Addr().String()
	go func() { r.served <- r.front.Serve(l) }()
	t.Cleanup(func() {
		close(r.stuck)
		r.front.Stop()
		if err := <-r.served; !errors.Is(err, ErrStopped) {
			t.Errorf("Serve returned %v", err)
		}
	})
}

// newReference serves the same with grpc-go.
func newReference(t testing.TB) string {
	opts := []grpc.ServerOption{grpc.MaxRecvMsgSize(requestMax)}
	if overTLS(t) {
		opts = append(opts, grpc.Creds(credentials.NewTLS(serverTLS(t))))
	}
	s := grpc.NewServer(opts...)
	pb.RegisterTestServiceServer(s, newService())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	return l.Addr().String()
}

func dial(t testing.TB, addr string, opts ...grpc.DialOption) (pb.TestServiceClient, *grpc.ClientConn) {
	creds := insecure.NewCredentials()
	if overTLS(t) {
		creds = credentials.NewTLS(clientTLS())
	}
	opts = append(opts, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)))
	cc, err := grpc.NewClient(addr, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cc.Close() })
	return pb.NewTestServiceClient(cc), cc
}

// dialBoth dials two servers that are used in turn.
func dialBoth(t testing.TB, addrs ...string) (pb.TestServiceClient, *grpc.ClientConn) {
	b := manual.NewBuilderWithScheme("both")
	var state resolver.State
	for _, a := range addrs {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: a})
	}
	b.InitialState(state)
	return dial(t, "both:///x", grpc.WithResolvers(b),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
}
