package discoverytest

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/discovery"
	"github.com/latchkey-go/latchkey/recipes/discovery/discoverygrpc"
)

// conn is a gRPC connection that only notes what a resolver tells it.
type conn struct {
	reports chan report
}

type report struct {
	state resolver.State
	err   error
}

func (c *conn) UpdateState(s resolver.State) error                   { c.reports <- report{state: s}; return nil }
func (c *conn) ReportError(err error)                                { c.reports <- report{err: err} }
func (c *conn) NewAddress([]resolver.Address)                        { panic("deprecated") }
func (c *conn) ParseServiceConfig(string) *serviceconfig.ParseResult { panic("not used") }

// resolve starts a resolver of the service "api".
func (h *harness) resolve(c *client.Client, opts ...discoverygrpc.Option) *conn {
	h.t.Helper()
	target, err := url.Parse("latchkey:///api")
	require.NoError(h.t, err)
	to := &conn{reports: make(chan report, 100)}
	r, err := discoverygrpc.NewBuilder(c, opts...).Build(resolver.Target{URL: *target}, to, resolver.BuildOptions{})
	require.NoError(h.t, err)
	h.t.Cleanup(r.Close)
	return to
}

// state waits for the next report, which has to be a state.
func (c *conn) state(h *harness) []resolver.Endpoint {
	h.t.Helper()
	r := c.next(h)
	require.NoError(h.t, r.err)
	require.NotNil(h.t, r.state.Endpoints)
	return r.state.Endpoints
}

func (c *conn) next(h *harness) report {
	h.t.Helper()
	select {
	case r := <-c.reports:
		return r
	case <-h.ctx.Done():
		h.t.Fatal("the resolver is silent")
	}
	return report{}
}

// until waits for a state with these addresses.
func (c *conn) until(h *harness, addresses string) []resolver.Endpoint {
	h.t.Helper()
	for {
		if e := c.state(h); addressesOf(e) == addresses {
			return e
		}
	}
}

func addressesOf(endpoints []resolver.Endpoint) string {
	var out []string
	for _, e := range endpoints {
		out = append(out, e.Addresses[0].Addr)
	}
	return strings.Join(out, " ")
}

// etcd's resolver says nothing of an empty service, orders by chance, and drops
// the metadata.
func testResolverStates(t *testing.T, h *harness) {
	to := h.resolve(h.c)
	require.Empty(t, to.state(h), "none, and said so")
	b := h.register(h.c, instance{Service: "api", ID: "b", Addr: "h:1", Zone: "east", Weight: 4, Meta: tags{"red"}})
	e := to.state(h)
	require.Equal(t, "h:1", addressesOf(e))
	in, ok := discoverygrpc.FromEndpoint(e[0])
	require.True(t, ok)
	require.Equal(t, "b", in.ID)
	require.Equal(t, "east", in.Zone)
	require.EqualValues(t, 4, in.Weight)
	meta, err := discoverygrpc.Metadata[tags](e[0])
	require.NoError(t, err)
	require.Equal(t, "red", meta.Color)
	_, err = discoverygrpc.Metadata[int](e[0])
	require.ErrorIs(t, err, discoverygrpc.ErrMetadata)
	require.True(t, e[0].Attributes.Equal(e[0].Attributes))

	a := h.register(h.c, at("a", "h:2"))
	again := to.state(h)
	require.Equal(t, "h:2 h:1", addressesOf(again), "in the order of ids")
	require.True(t, e[0].Attributes.Equal(again[1].Attributes))
	require.NoError(t, b.Update(h.ctx, func(in *instance) error { in.Meta.Color = "blue"; return nil }))
	require.False(t, e[0].Attributes.Equal(to.state(h)[1].Attributes))

	require.NoError(t, discovery.Drain(h.ctx, h.c, "api", "b"))
	require.Equal(t, "h:2", addressesOf(to.state(h)))
	h.close(a)
	to.until(h, "h:1") // draining, and better than none
	h.close(b)
	to.until(h, "")
	_, ok = discoverygrpc.FromEndpoint(resolver.Endpoint{})
	require.False(t, ok)
}

// etcd's resolver ends for ever at the first error of its watch.
func testResolverCompaction(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	to := h.resolve(h.client(client.Config{Dialer: link.Dial}))
	to.state(h)
	a := h.register(h.c, at("a", "h:1"))
	to.until(h, "h:1")
	for range 3 {
		restore := link.Down()
		h.close(a)
		b := h.register(h.c, at("b", "h:2"))
		h.compact()
		restore()
		to.until(h, "h:2")
		h.close(b)
		a = h.register(h.c, at("a", "h:1"))
		to.until(h, "h:1")
	}
	h.close(a)
}

// A cluster that can not be reached at first is an error that calls are told, not a
// dial that hangs; once it can, all is well, and what is known then stays.
func testResolverUnreachable(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	restore := link.Down()
	r := h.register(h.c, at("a", "h:1"))
	to := h.resolve(h.client(client.Config{Dialer: link.Dial, RequestTimeout: 50 * time.Millisecond}))
	require.ErrorIs(t, to.next(h).err, client.ErrUnavailable)
	restore()
	for {
		if r := to.next(h); r.err == nil {
			require.Equal(t, "h:1", addressesOf(r.state.Endpoints))
			break
		}
	}
	link.Down()
	select {
	case r := <-to.reports:
		t.Fatalf("it was told %v", r)
	default:
	}
	h.close(r)
}

// All instances are lost at once: who wants to keep them does.
func testResolverKeepsLost(t *testing.T, h *harness) {
	s, err := h.c.NewSession(h.ctx)
	require.NoError(t, err)
	h.register(h.c, at("a", "h:1"), discovery.WithSession(s))
	keeps := h.resolve(h.c, discoverygrpc.Watching(discovery.KeepLost(time.Minute)))
	reports := h.resolve(h.c)
	keeps.until(h, "h:1")
	reports.until(h, "h:1")
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	reports.until(h, "")
	e := keeps.until(h, "h:1")
	in, ok := discoverygrpc.FromEndpoint(e[0])
	require.True(t, ok)
	require.Equal(t, discovery.Lost, in.State)
	b := h.register(h.c, at("b", "h:2"))
	keeps.until(h, "h:2")
	h.close(b)
}

// who is a gRPC server whose answers tell which one it is, by its address.
type who struct {
	addr string
	s    *grpc.Server
	done chan struct{}
}

func (h *harness) serve() *who {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(h.t, err)
	w := &who{addr: l.Addr().String(), s: grpc.NewServer(), done: make(chan struct{})}
	healthpb.RegisterHealthServer(w.s, healthyServer{})
	go func() { defer close(w.done); _ = w.s.Serve(l) }()
	h.t.Cleanup(w.stop)
	return w
}

func (w *who) stop() { w.s.Stop(); <-w.done }

type healthyServer struct {
	healthpb.UnimplementedHealthServer
}

func (healthyServer) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// callers makes calls over one gRPC connection that is resolved by us.
type callers struct {
	h     *harness
	conn  *grpc.ClientConn
	mu    sync.Mutex
	dials map[string]int // protected by mu; by address
}

func (h *harness) dial(target string, opts ...discoverygrpc.Option) *callers {
	h.t.Helper()
	c := &callers{h: h, dials: make(map[string]int)}
	var err error
	c.conn, err = grpc.NewClient(target,
		grpc.WithResolvers(discoverygrpc.NewBuilder(h.c, opts...)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c.mu.Lock()
			c.dials[addr]++
			c.mu.Unlock()
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}))
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = c.conn.Close() })
	return c
}

// call makes one and returns who answered.
func (c *callers) call(opts ...grpc.CallOption) (string, error) {
	var p peer.Peer
	_, err := healthpb.NewHealthClient(c.conn).Check(c.h.ctx, &healthpb.HealthCheckRequest{}, append(opts, grpc.Peer(&p))...)
	if err != nil {
		return "", err
	}
	return p.Addr.String(), nil
}

// untilOnly makes calls until n in a row, each of them without error, were answered
// by these servers, all of them.
func (c *callers) untilOnly(servers ...*who) {
	c.h.t.Helper()
	const n = 20
	want := make(map[string]bool)
	for _, s := range servers {
		want[s.addr] = true
	}
	seen := make(map[string]bool)
	for row := 0; row < n || len(seen) < len(want); row++ {
		addr, err := c.call(grpc.WaitForReady(true))
		require.NoError(c.h.t, err)
		seen[addr] = true
		if !want[addr] {
			row, seen = -1, make(map[string]bool)
		}
	}
}

// A real gRPC connection balances over what is registered.
func testGRPC(t *testing.T, h *harness) {
	c := h.dial("latchkey:///api")
	_, err := c.call()
	require.Equal(t, codes.Unavailable, status.Code(err), "no instance: said at once")

	one, two := h.serve(), h.serve()
	r1, r2 := h.register(h.c, at("1", one.addr)), h.register(h.c, at("2", two.addr))
	c.untilOnly(one, two)
	require.NoError(t, r1.Update(h.ctx, func(in *instance) error { in.Weight, in.Meta.Color = 7, "red"; return nil }))
	require.NoError(t, discovery.Drain(h.ctx, h.c, "api", "2"))
	c.untilOnly(one)
	three := h.serve()
	r3 := h.register(h.c, at("3", three.addr))
	c.untilOnly(one, three)
	h.close(r1)
	c.untilOnly(three)
	one.stop()
	_, err = c.call()
	require.NoError(t, err)
	c.mu.Lock()
	require.Equal(t, map[string]int{one.addr: 1, two.addr: 1, three.addr: 1}, c.dials, "metadata breaks no connection")
	c.mu.Unlock()
	h.close(r2)
	h.close(r3)
	require.NoError(t, c.conn.Close())

	// The targets of etcd's resolver, and its registrations.
	_, err = h.c.Put(h.ctx, "api/old", []byte(`{"Op":0,"Addr":"`+three.addr+`","Metadata":null}`))
	require.NoError(t, err)
	old := h.dial("etcd:///api", discoverygrpc.Scheme("etcd"))
	old.untilOnly(three)
	require.NoError(t, old.conn.Close())
	bad, err := grpc.NewClient("latchkey:///", grpc.WithResolvers(discoverygrpc.NewBuilder(h.c)),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		_, err = healthpb.NewHealthClient(bad).Check(h.ctx, &healthpb.HealthCheckRequest{})
		err = errors.Join(err, bad.Close())
	}
	require.Error(t, err, "a target without a name")
}
