package server

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/latchkey-go/latchkey/server/internal/auth"
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
)

// registerServices makes the gRPC server of the clients. It fails if a method
// is registered that the table of rights does not know.
func (s *Server) registerServices() error {
	b := backend{s}
	limits := rpc.Limits{RequestBytes: s.cfg.MaxRequestBytes, TxnOps: s.cfg.MaxTxnOps}
	intercept := rpc.Chain(rpc.RequireLeader(b), contentionCodes(s.front.guard.Unary))
	unary, stream := s.front.audited(intercept, rpc.LearnerStreams(b, s.front.guard.Stream))
	cfg := front.Config{
		Codec:           rpc.Codec(),
		Encoder:         rpc.Encoder(),
		MaxRequestBytes: s.cfg.MaxRequestBytes + messageOverhead,
		MinPingInterval: s.cfg.Limits.KeepAliveMinTime,
		MaxStreams:      s.cfg.Limits.StreamsPerConnection,
		GreetTimeout:    s.cfg.Limits.HandshakeTimeout,
		Intercept:       unary,
		InterceptStream: stream,
		Turn:            func() { s.loop.helpIfDue() },
		Observe:         s.meters.calls,
		Logger:          s.log,
	}
	s.front.site = &lateHandler{}
	if len(s.listeners.http) == 0 {
		cfg.Web = s.front.site
	}
	clients := front.New(cfg)
	kv, lease := rpc.NewKV(b, limits).Guarded(s.front.guard), rpc.NewLease(b, b, b).Guarded(s.front.guard)
	pb.RegisterKVServer(clients, kv)
	pb.RegisterLeaseServer(clients, lease)
	if s.front.audit == nil { // Direct methods have no interceptors
		rpc.Direct(clients, b, kv, lease, s.front.guard)
	}
	rpc.ServePipes(clients)
	pb.RegisterClusterServer(clients, rpc.NewCluster(b, b, b))
	pb.RegisterMaintenanceServer(clients, rpc.NewMaintenance(b, b, b, b))
	pb.RegisterAuthServer(clients, rpc.NewAuth(b, s.front.guard, auth.NewHasher(s.cfg.Auth.BcryptCost), s.cfg.Auth.loopback))
	registerContention(clients, b, kv, lease, intercept)
	healthpb.RegisterHealthServer(clients, health.NewServer())

	watching := rpc.WatchConfig{
		RequestBytes: s.cfg.MaxRequestBytes, ProgressInterval: s.cfg.WatchProgressInterval, Logger: s.log,
		Guard: s.front.guard,
	}
	if s.front.audit != nil {
		watching.Decided = s.front.audit.Watch
	}
	watches := rpc.NewWatch(b, watching)
	pb.RegisterWatchServer(clients, watches)
	s.front.clients, s.front.watches, s.front.lease = clients, watches, lease
	return auth.CheckMethods(clients.Methods())
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
	s.store.with(func(m *state.Machine) {
		st.Alarms, st.Downgrade = m.Alarms(), m.Downgrade()
		for _, member := range m.Members() {
			st.Learner = st.Learner || member.ID == s.identity.MemberID && member.Learner
		}
	})
	commit := make(chan uint64, 1)
	s.loop.do(func(r *replica.Replica) { commit <- r.Status().Commit })
	select {
	case st.Commit = <-commit:
	case <-s.stopped.Done():
	}
	return st
}
