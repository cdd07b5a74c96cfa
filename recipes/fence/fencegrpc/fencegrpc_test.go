package fencegrpc_test

import (
	"context"
	"maps"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/fence/fencegrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is any service: it tells the test what it finds in its context.
type service struct {
	healthpb.UnimplementedHealthServer
	seen chan map[string]fence.Token
	fail error
}

func (s *service) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s.seen <- maps.Collect(fence.Tokens(ctx))
	return &healthpb.HealthCheckResponse{}, s.fail
}

func (s *service) Watch(_ *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	s.seen <- maps.Collect(fence.Tokens(stream.Context()))
	return nil
}

func serve(t *testing.T, g *fence.Gate, names ...string) (*service, healthpb.HealthClient) {
	s := &service{seen: make(chan map[string]fence.Token, 1)}
	server := grpc.NewServer(grpc.UnaryInterceptor(fencegrpc.UnaryServer(g, names...)), grpc.StreamInterceptor(fencegrpc.StreamServer()))
	healthpb.RegisterHealthServer(server, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(fencegrpc.UnaryClient()), grpc.WithStreamInterceptor(fencegrpc.StreamClient()))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-done)
	})
	return s, healthpb.NewHealthClient(conn)
}

var request = &healthpb.HealthCheckRequest{}

func TestTokensTravelAndStaleOnesAreRefused(t *testing.T) {
	const name = "jobs/nightly run, #2"
	var g fence.Gate
	s, c := serve(t, &g, name)
	old := fence.NewContext(fence.NewContext(t.Context(), name, 7), "other", 1)
	_, err := c.Check(old, request)
	require.NoError(t, err)
	require.Equal(t, map[string]fence.Token{name: 7, "other": 1}, <-s.seen)

	_, err = c.Check(fence.NewContext(t.Context(), name, 9), request)
	require.NoError(t, err)
	require.Equal(t, map[string]fence.Token{name: 9}, <-s.seen)
	_, err = c.Check(old, request)
	var stale *fence.StaleError
	require.ErrorAs(t, err, &stale)
	require.Equal(t, fence.StaleError{Resource: name, Token: 7, Newest: 9}, *stale)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.Empty(t, s.seen, "the handler was not called")

	_, err = c.Check(t.Context(), request)
	require.ErrorIs(t, err, fence.ErrStale, "no token at all")
}

func TestHandlersOwnErrorsComeBack(t *testing.T) {
	var g fence.Gate
	s, c := serve(t, &g, "a", "b", "a")
	s.fail = status.Error(codes.FailedPrecondition, "not now")
	ctx := fence.NewContext(fence.NewContext(t.Context(), "a", 3), "b", 4)
	_, err := c.Check(ctx, request)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.NotErrorIs(t, err, fence.ErrStale)
	<-s.seen
	require.Equal(t, fence.Token(3), g.Newest("a"))
	require.Equal(t, fence.Token(4), g.Newest("b"))
}

func TestWithoutNamesTokensAreOnlyCarried(t *testing.T) {
	s, c := serve(t, nil)
	_, err := c.Check(fence.NewContext(t.Context(), "a", 3), request)
	require.NoError(t, err)
	require.Equal(t, map[string]fence.Token{"a": 3}, <-s.seen)

	garbage := metadata.AppendToOutgoingContext(t.Context(), "x-fence", "x a", "x-fence", "5", "x-fence", "5 %zz", "x-fence", "-1 a")
	_, err = c.Check(garbage, request)
	require.NoError(t, err)
	require.Empty(t, <-s.seen)
}

func TestStreamsCarryTokens(t *testing.T) {
	s, c := serve(t, nil)
	stream, err := c.Watch(fence.NewContext(t.Context(), "a", 3), request)
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Error(t, err)
	require.Equal(t, map[string]fence.Token{"a": 3}, <-s.seen)
}
