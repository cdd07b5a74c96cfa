package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/discovery"
)

// drainTime is how long an instance serves on after its goodbye.
const drainTime = 200 * time.Millisecond

// instance is one program of the service: a gRPC server, and its registration.
type instance struct {
	name         string
	server       *grpc.Server
	served       chan struct{} // closed when the server has ended
	wire         *wire
	client       *client.Client
	registration *discovery.Registration[struct{}]
}

// checkout is the service. It has one method, gRPC's health check, so that the
// example needs no code that is generated, and tells in its answer who it is.
type checkout struct {
	healthpb.UnimplementedHealthServer
	name string
}

// Check implements the service.
func (c checkout) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if err := grpc.SetHeader(ctx, metadata.Pairs("who", c.name)); err != nil {
		return nil, err
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// startInstance serves on a port of its own, and registers when it does.
func startInstance(ctx context.Context, endpoint, name string) (*instance, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	in := &instance{name: name, server: grpc.NewServer(), served: make(chan struct{}), wire: &wire{}}
	healthpb.RegisterHealthServer(in.server, checkout{name: name})
	go func() {
		defer close(in.served)
		_ = in.server.Serve(l) // ends when it is stopped
	}()
	in.client, err = client.New(client.Config{Endpoints: []string{endpoint}, SessionTTL: ttl, Dialer: in.wire.dial})
	if err == nil {
		in.registration, err = discovery.Register(ctx, in.client,
			discovery.Instance[struct{}]{Service: service, ID: name, Addr: l.Addr().String()},
			discovery.WithDrainTimeout(drainTime))
	}
	if err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// kill is what a power cut does: connections break, and nothing is said.
func (in *instance) kill() {
	in.wire.cut()
	in.server.Stop()
}

// leave is what a program does that is asked to end: tell everybody, finish what is
// under way, and go.
func (in *instance) leave(ctx context.Context) error {
	if err := in.registration.Drain(ctx); err != nil {
		return err
	}
	if err := in.registration.Close(ctx); err != nil {
		return err
	}
	in.server.GracefulStop()
	return nil
}

// close ends what still runs.
func (in *instance) close() {
	in.server.Stop()
	<-in.served
	if in.client != nil {
		_ = in.client.Close() // revokes what is registered, if it can be reached
	}
}

// wire is the network of an instance's client, which can be cut.
type wire struct {
	mu    sync.Mutex // protects both
	conns []net.Conn
	down  bool
}

var errWireCut = errors.New("the network is down")

// dial connects to a member, as client.Config.Dialer.
func (w *wire) dial(ctx context.Context, endpoint string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return nil, errWireCut
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", endpoint)
	if err == nil {
		w.conns = append(w.conns, conn)
	}
	return conn, err
}

// cut ends all connections and lets nobody connect any more.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	for _, conn := range w.conns {
		_ = conn.Close() // it is meant to break
	}
}
