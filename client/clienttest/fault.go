package clienttest

import (
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// link is a network whose connections can be cut.
type link struct {
	mu    sync.Mutex // protects what follows
	conns map[net.Conn]struct{}
	cutN  int
}

func newLink() *link { return &link{conns: make(map[net.Conn]struct{})} }

// dial is a client.Config.Dialer.
func (l *link) dial(ctx context.Context, endpoint string) (net.Conn, error) {
	network, address := "tcp", endpoint
	if u, err := url.Parse(endpoint); err == nil && strings.Contains(endpoint, "://") {
		address = u.Host
		if u.Scheme == "unix" {
			network, address = "unix", u.Host+u.Path
		}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[conn] = struct{}{}
	return conn, nil
}

// cut closes all connections.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) > 0 {
		l.cutN++
	}
	for conn := range l.conns {
		_ = conn.Close()
	}
	clear(l.conns)
}

// cuts counts the cuts that hit something.
func (l *link) cuts() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cutN
}

// answerLoss drops answers: the request is executed, and the client told that the connection was lost. Every second
// request that is dropped does not reach the server, which looks the same from outside.
type answerLoss struct {
	method string // suffix of the RPC's name
	every  int64
	count  atomic.Int64
	lost   atomic.Int64
}

func (a *answerLoss) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if !strings.HasSuffix(method, a.method) || a.count.Add(1)%a.every != 0 {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	if n := a.lost.Add(1); n%2 == 0 {
		// A health check takes the place of the request, so that the client believes that it was sent.
		check := healthpb.Health_Check_FullMethodName
		if err := cc.Invoke(ctx, check, &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}, opts...); err != nil {
			return err
		}
	} else if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, "clienttest: the answer was dropped")
}
