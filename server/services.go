package server

import (
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/latchkey-go/latchkey/server/internal/peer"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
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
	// streamWorkers serve calls on stacks that have grown already.
	streamWorkers = 128
	// streamWindow is the flow-control window of a connection and a stream;
	// a fixed one spares the probing for a better.
	streamWindow = 1 << 20
)

// registerServices makes the two gRPC servers: one for clients, one for peers,
// so that a flood of one kind does not take the other's streams.
func (s *Server) registerServices() {
	b := backend{s}
	limits := rpc.Limits{RequestBytes: s.cfg.MaxRequestBytes, TxnOps: s.cfg.MaxTxnOps}
	s.clients = grpc.NewServer(
		grpc.MaxRecvMsgSize(s.cfg.MaxRequestBytes+messageOverhead),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(streamWindow),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMin, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(rpc.RequireLeader(b)),
	)
	pb.RegisterKVServer(s.clients, rpc.NewKV(b, limits))
	pb.RegisterLeaseServer(s.clients, rpc.NewLease(b, b, b))
	pb.RegisterClusterServer(s.clients, rpc.NewCluster(b, b))
	pb.RegisterMaintenanceServer(s.clients, rpc.NewMaintenance(b, b))
	healthpb.RegisterHealthServer(s.clients, health.NewServer())

	s.peersGRPC = grpc.NewServer(peer.ServerOptions()...)
	s.peers.Register(s.peersGRPC)
}

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
		EtcdVersion: etcdVersion, DataVersion: storageVersion,
	}
	commit := make(chan uint64, 1)
	s.loop.do(func(r *replica.Replica) { commit <- r.Status().Commit })
	select {
	case st.Commit = <-commit:
	case <-s.stopped.Done():
	}
	return st
}
