package server

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/latchkey-go/latchkey/server/internal/front"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/watch"
)

const (
	// etcdVersion is the version of etcd whose API is served. Clients switch
	// features on by it.
	etcdVersion = "3.7.3"
	// storageVersion is the version of etcd's storage schema that the
	// checkpoint has.
	storageVersion = "3.7.0"
	// messageOverhead is what a message may have beyond the request it
	// carries, as in etcd.
	messageOverhead = 512 << 10
	// keepaliveMin is the least time between a client's pings.
	keepaliveMin = time.Second
)

// registerServices makes the gRPC server of the clients.
func (s *Server) registerServices() {
	b := backend{s}
	limits := rpc.Limits{RequestBytes: s.cfg.MaxRequestBytes, TxnOps: s.cfg.MaxTxnOps}
	clients := front.New(front.Config{
		Codec:           rpc.Codec(),
		MaxRequestBytes: s.cfg.MaxRequestBytes + messageOverhead,
		MinPingInterval: keepaliveMin,
		Intercept:       rpc.RequireLeader(b),
		InterceptStream: rpc.LearnerStreams(b),
		Turn:            func() { s.loop.helpIfDue() },
		Logger:          s.log,
	})
	kv, lease := rpc.NewKV(b, limits), rpc.NewLease(b, b, b)
	pb.RegisterKVServer(clients, kv)
	pb.RegisterLeaseServer(clients, lease)
	rpc.Direct(clients, b, kv, lease)
	pb.RegisterClusterServer(clients, rpc.NewCluster(b, b, b))
	pb.RegisterMaintenanceServer(clients, rpc.NewMaintenance(b, b, b))
	healthpb.RegisterHealthServer(clients, health.NewServer())

	watches := rpc.NewWatch(b, rpc.WatchConfig{
		RequestBytes: s.cfg.MaxRequestBytes, ProgressInterval: s.cfg.WatchProgressInterval, Logger: s.log,
	})
	pb.RegisterWatchServer(clients, watches)
	s.front = fronts{clients: clients, watches: watches}
}

// Hub implements rpc.WatchBackend.
func (b backend) Hub() *watch.Hub { return b.hub }

// Leaderless implements rpc.WatchBackend.
func (b backend) Leaderless() <-chan struct{} { return b.leadership.absence() }

// Stopping implements rpc.WatchBackend.
func (b backend) Stopping() <-chan struct{} { return b.stopping }

// Members implements rpc.Node.
func (b backend) Members() []state.Member {
	var members []state.Member
	b.store.with(func(m *state.Machine) { members = m.Members() })
	return members
}

// Status implements rpc.Node.
func (b backend) Status() rpc.Status {
	s := b.Server
	total, _ := s.keeper.size()
	st := rpc.Status{
		Leader: s.leader.Load(), Term: s.term.Load(), Applied: s.store.applied.Load(),
		FileBytes: total, LiveBytes: s.liveBytes.Load(), QuotaBytes: s.cfg.QuotaBytes,
		EtcdVersion: etcdVersion, DataVersion: storageVersion, Learner: s.learner.Load(),
	}
	commit := make(chan uint64, 1)
	s.loop.do(func(r *replica.Replica) { commit <- r.Status().Commit })
	select {
	case st.Commit = <-commit:
	case <-s.stopped.Done():
	}
	return st
}
