package interop_test

import (
	"context"
	"encoding/json"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	etcdresolver "go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/discovery"
	"github.com/latchkey-go/latchkey/recipes/discovery/discoverygrpc"
)

// naming is one service, seen by etcd's client and by ours.
type naming struct {
	t    *testing.T
	ctx  context.Context
	ours *client.Client
	etcd *clientv3.Client
	man  endpoints.Manager // of the service "app/mail"
}

const namedService = "app/mail"

func newNaming(t *testing.T, kind string) *naming {
	s := startSide(t, kind, 1)
	n := &naming{t: t, ctx: testContext(t)}
	var err error
	n.ours, err = client.New(client.Config{Endpoints: s.cluster.Endpoints()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.ours.Close()) })
	n.etcd, err = clientv3.New(clientv3.Config{Endpoints: s.cluster.Endpoints()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = n.etcd.Close() })
	n.man, err = endpoints.NewManager(n.etcd, namedService)
	require.NoError(t, err)
	return n
}

// serve starts a gRPC server that answers health checks.
func (n *naming) serve() (addr string) {
	n.t.Helper()
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, healthy{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(n.t, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	n.t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

type healthy struct {
	healthpb.UnimplementedHealthServer
}

func (healthy) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return &healthpb.HealthCheckResponse{}, nil
}

// call makes a call over conn and returns who answered.
func (n *naming) call(conn *grpc.ClientConn) string {
	n.t.Helper()
	var p grpcpeer.Peer
	_, err := healthpb.NewHealthClient(conn).Check(n.ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true), grpc.Peer(&p))
	require.NoError(n.t, err)
	return p.Addr.String()
}

// What etcd's client registers, our clients find; what we register, etcd's find.
func TestNamingBothWays(t *testing.T) {
	type meta struct{ Color string }
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			n := newNaming(t, kind)
			theirs, mine := n.serve(), n.serve()
			lease, err := n.etcd.Grant(n.ctx, 60)
			require.NoError(t, err)
			require.NoError(t, n.man.AddEndpoint(n.ctx, namedService+"/theirs",
				endpoints.Endpoint{Addr: theirs, Metadata: meta{"red"}}, clientv3.WithLease(lease.ID)))
			r, err := discovery.Register(n.ctx, n.ours, discovery.Instance[meta]{
				Service: namedService, ID: "ours", Addr: mine, Zone: "east", Weight: 3, Meta: meta{"blue"},
			})
			require.NoError(t, err)

			s, err := discovery.List[meta](n.ctx, n.ours, namedService)
			require.NoError(t, err)
			require.Empty(t, s.Invalid)
			require.Len(t, s.Instances, 2)
			require.Equal(t, discovery.Instance[meta]{Service: namedService, ID: "theirs", Addr: theirs, Weight: 1, Meta: meta{"red"}}, s.Instances[1])

			all, err := n.man.List(n.ctx)
			require.NoError(t, err)
			require.Len(t, all, 2)
			require.Equal(t, mine, all[namedService+"/ours"].Addr)
			told, err := json.Marshal(all[namedService+"/ours"].Metadata)
			require.NoError(t, err)
			require.JSONEq(t, `{"Color":"blue"}`, string(told))

			// Both resolvers reach both servers.
			builder, err := etcdresolver.NewBuilder(n.etcd)
			require.NoError(t, err)
			for _, resolver := range []grpc.DialOption{
				grpc.WithResolvers(builder),
				grpc.WithResolvers(discoverygrpc.NewBuilder(n.ours, discoverygrpc.Scheme("etcd"))),
			} {
				conn, err := grpc.NewClient("etcd:///"+namedService, resolver, grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
				require.NoError(t, err)
				seen := make(map[string]bool)
				for len(seen) < 2 {
					seen[n.call(conn)] = true
				}
				require.Equal(t, map[string]bool{theirs: true, mine: true}, seen)
				require.NoError(t, conn.Close())
			}
			require.NoError(t, n.man.DeleteEndpoint(n.ctx, namedService+"/theirs"))
			require.NoError(t, r.Close(n.ctx))
			all, err = n.man.List(n.ctx)
			require.NoError(t, err)
			require.Empty(t, all)
		})
	}
}

// etcd's naming watcher ends for ever when its events were compacted away; our
// watch of the same service goes on.
func TestNamingPeerStopsAtCompaction(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			n := newNaming(t, kind)
			link := clienttest.NewLink()
			conf := client.Config{Endpoints: n.ours.Endpoints(), Dialer: link.Dial}
			cut, err := client.New(conf)
			require.NoError(t, err)
			defer cut.Close()
			etcdCut, err := clientv3.New(clientv3.Config{
				Endpoints:   []string{n.ours.Endpoints()[0]},
				DialOptions: []grpc.DialOption{grpc.WithContextDialer(link.Dial)},
			})
			require.NoError(t, err)
			defer etcdCut.Close()
			man, err := endpoints.NewManager(etcdCut, namedService)
			require.NoError(t, err)

			require.NoError(t, n.man.AddEndpoint(n.ctx, namedService+"/a", endpoints.Endpoint{Addr: "h:1"}))
			theirs, err := man.NewWatchChannel(n.ctx)
			require.NoError(t, err)
			require.Equal(t, "h:1", (<-theirs)[0].Endpoint.Addr)
			snapshots := make(chan discovery.Snapshot[any])
			ctx, stop := context.WithCancel(n.ctx)
			go func() {
				defer close(snapshots)
				for s, err := range discovery.Watch[any](ctx, cut, namedService) {
					if err == nil {
						snapshots <- s
					}
				}
			}()
			require.Equal(t, "h:1", (<-snapshots).Instances[0].Addr)

			restore := link.Down()
			require.NoError(t, n.man.AddEndpoint(n.ctx, namedService+"/a", endpoints.Endpoint{Addr: "h:2"}))
			put, err := n.ours.Put(n.ctx, "other", nil)
			require.NoError(t, err)
			require.NoError(t, n.ours.Compact(n.ctx, put.Revision))
			restore()
			s := <-snapshots
			require.True(t, s.Resynced)
			require.Equal(t, "h:2", s.Instances[0].Addr)
			_, open := <-theirs
			require.False(t, open, "etcd's watcher goes on: what we say about it is no longer true")
			require.NoError(t, n.man.AddEndpoint(n.ctx, namedService+"/b", endpoints.Endpoint{Addr: "h:3"}))
			require.Len(t, (<-snapshots).Instances, 2, "ours goes on")
			stop()
			for range snapshots {
			}
		})
	}
}
