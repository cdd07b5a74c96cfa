package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/audit"
	"github.com/latchkey-go/latchkey/server/internal/auth"
	"github.com/latchkey-go/latchkey/server/internal/front"
	"github.com/latchkey-go/latchkey/server/internal/peer"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/wal"
	"github.com/latchkey-go/latchkey/server/internal/watch"
)

// Server is one running member. All methods are safe for concurrent use.
type Server struct {
	// Immutable after Start.
	cfg            Config
	log            *slog.Logger
	identity       wal.Identity
	requestTimeout time.Duration
	listeners      listeners
	lock           *os.File

	store     *store
	loop      *loop
	appender  *appender
	applier   *applier
	keeper    *keeper
	lessor    *lessor
	peers     *peer.Transport
	snapshots *snapshots
	hub       *watch.Hub
	front     fronts
	inProcess lazyClient
	safety    safety

	gauges
	life
}

// fronts is where clients' calls come in.
type fronts struct {
	clients *front.Server
	watches *rpc.Watch
	lease   *rpc.Lease
	guard   *rpc.Guard
	tokens  *auth.Tokens
	audit   *audit.Log    // nil for none
	http    *front.Server // plain HTTP on addresses of its own
	metrics *front.Server // metrics and health
	site    *lateHandler  // what is served over plain HTTP
}

// gauges are what others may know of the member without asking the loop.
type gauges struct {
	leader, term                        atomic.Uint64
	revision, compacted                 atomic.Int64
	liveBytes, historyBytes, leaseCount atomic.Int64
	leadership                          leadership
	installed                           atomic.Int64 // received checkpoints
	belonging
	alarmsOn              atomic.Pointer[[]state.Alarm]
	accusations, pardoned atomic.Uint64 // see answerAccusation
	meters                meters
}

// life is how a member ends: stopped is cancelled, with the reason, by Stop,
// Kill or a fatal error; the janitor then ends everything and closes done.
type life struct {
	stopped  context.Context
	end      context.CancelCauseFunc
	graceful atomic.Bool
	stopOnce sync.Once
	stopping chan struct{} // closed when streams are to end
	ready    chan struct{} // closed once the member has joined and published its addresses
	checked  chan struct{} // closed once its data is not known to differ from the others'
	done     chan struct{} // closed when nothing of the member runs any more
	workers  sync.WaitGroup
	halt     chan struct{} // ends the workers; closed by the janitor
}

// Reasons for which a member has ended.
var (
	// ErrStopped: Stop was called.
	ErrStopped = errors.New("member stopped")
	// ErrKilled: Kill was called.
	ErrKilled = errors.New("member killed")
	// ErrStalled: a sync of the log took longer than Config.Checks.StallTimeout.
	ErrStalled = errors.New("the disk does not answer")
	// ErrDiverged: the member's data is not that of the others.
	ErrDiverged = errors.New("this member's data differs from that of the other members: " +
		"remove the member, delete its data-dir, and add it anew")
)

// Start starts a member and returns once it listens; Ready tells when it has
// joined its cluster. ctx bounds the start only. The errors are one line each
// and say what to change: a wrong field, an address in use, a data directory
// that is locked, foreign (ErrForeignDataDir) or damaged (ErrDamagedDataDir).
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, log: cfg.Logger.With("member", cfg.Name)}
	s.requestTimeout = requestTimeoutBase + 2*cfg.ElectionTimeout
	s.stopped, s.end = context.WithCancelCause(context.Background())
	s.expulsion, s.expel = context.WithCancel(context.Background())
	s.ready, s.done, s.halt = make(chan struct{}), make(chan struct{}), make(chan struct{})
	s.stopping, s.checked = make(chan struct{}), make(chan struct{})
	s.leadership.init(leaderlessTimeouts * cfg.ElectionTimeout)

	if err := s.secureIt(); err != nil {
		return nil, err
	}
	var err error
	if s.listeners, err = listen(ctx, cfg); err != nil {
		return nil, err
	}
	s.guard(s.safety.gate, s.listeners.client, cfg.ListenClientURLs)
	s.guard(s.safety.gate, s.listeners.http, cfg.Web.ListenClientHTTPURLs)
	s.guard(s.safety.monitors, s.listeners.metrics, cfg.Web.ListenMetricsURLs)
	rec, err := s.open(ctx)
	if err != nil {
		s.listeners.close()
		return nil, err
	}
	if err := s.assemble(rec); err != nil {
		s.listeners.close()
		return nil, errors.Join(err, s.front.closeAudit(), rec.close(), s.lock.Close())
	}
	s.run()
	return s, nil
}

// requestTimeoutBase, plus two election timeouts, is how long a request may
// wait for the log, as in etcd.
const requestTimeoutBase = 5 * time.Second

// open locks the data directory, makes it if it is new, and recovers from it.
func (s *Server) open(ctx context.Context) (rec recovered, err error) {
	dir := layout{root: s.cfg.DataDir}
	if s.lock, err = lockDataDir(dir); err != nil {
		return rec, err
	}
	defer func() {
		if err != nil {
			_ = s.lock.Close()
		}
	}()
	if _, serr := os.Stat(dir.member()); errors.Is(serr, os.ErrNotExist) {
		if err := s.birth(ctx, dir); err != nil {
			return rec, err
		}
	} else if m := s.cfg.Membership; m.Discovery.wanted() || m.DNS.wanted() {
		s.log.Info("discovery is not needed: this member has data", "data-dir", s.cfg.DataDir)
	}
	if rec, err = s.recoverMember(dir); err != nil {
		return rec, explained(dir, err)
	}
	s.snapshots = &snapshots{dir: dir.received()}
	if err := errors.Join(s.settle(&rec), s.snapshots.clean()); err != nil {
		return rec, errors.Join(err, rec.close())
	}
	return rec, nil
}

// assemble connects the parts; nothing runs yet.
func (s *Server) assemble(rec recovered) error {
	s.identity = rec.identity
	s.meters.init(s)
	s.store = newStore(rec.machine)
	if err := s.assembleAuth(); err != nil {
		return err
	}
	if err := s.openAudit(); err != nil {
		return err
	}
	s.lessor = newLessor(s, s.log)
	s.hub = watch.NewHub(watch.Config{
		Archive:     archive{rec.checkpoint, s.store},
		WatchersMax: s.cfg.Limits.Watches, StreamWatchersMax: s.cfg.Limits.WatchesPerStream,
	},
		rec.machine.History(), rec.machine.CompactRevision())
	keep, err := parseRetention(s.cfg.AutoCompactionMode, s.cfg.AutoCompactionRetention)
	if err != nil {
		return err
	}
	s.keeper = &keeper{
		s: s, log: s.log, request: make(chan chan error), full: make(chan struct{}, 1),
		compact: compactor{keep: keep, historyBytes: historyBound(s.cfg)},
		store:   rec.checkpoint,
	}
	s.acquaint = newAcquaintance(s)
	s.peers = peer.New(peer.Config{
		ID: rec.identity.MemberID, ClusterID: rec.identity.ClusterID,
		Handler: peerHandler{s}, OpenSnapshot: s.openSnapshot, Logger: s.log, Secure: s.peerSecure(),
		Standing: peer.Standing{Describe: s.describeMembers, Expelled: s.expelled, Stranger: s.acquaint.stranger},
	})
	r, err := s.newReplica(rec)
	if err != nil {
		return fmt.Errorf("start replica: %w", err)
	}
	s.appender = &appender{
		inbox: newMailbox[*replica.Append](), log: rec.log, install: s.install,
		synced: func(work []*replica.Append) { s.loop.appended(work) }, fail: s.fail, stop: s.halt, done: make(chan struct{}),
		disk: diskWatch{epoch: time.Now(), took: s.meters.walSync.Observe},
	}
	s.applier = &applier{
		inbox: newMailbox[applyWork](), store: s.store, published: s.published, tokens: s.front.tokens.Follow,
		applied: func(a *replica.Apply) { s.loop.inbox.leave(input{applied: a}) }, took: s.meters.applyTook,
		fail: s.fail, stop: s.halt, done: make(chan struct{}),
	}
	s.loop = newLoop(r, outputs{
		appender: s.appender, applier: s.applier, store: s.store,
		send: s.peers.Send, changed: s.leaderChanged,
	}, s.cfg.HeartbeatInterval/ticksPerHeartbeat, s.log)
	s.loop.slowAfter = s.cfg.Checks.slowDisk
	s.loop.patience = uint64(s.requestTimeout / s.loop.tick)
	s.loop.suspect = suspicion{alive: s.alive}
	s.publishInitial(rec.machine)
	if err := s.registerServices(); err != nil {
		return err
	}
	return s.openSite()
}

// ticksPerHeartbeat makes raft's clock finer than a heartbeat: followers draw
// their election timeouts in ticks, and with few to draw from they collide. A
// tick also costs an idle member a wake-up, which is most of what it costs at
// all.
const ticksPerHeartbeat = 2

func (s *Server) newReplica(rec recovered) (*replica.Replica, error) {
	var origin [8]byte
	if _, err := rand.Read(origin[:]); err != nil {
		return nil, err
	}
	return replica.New(replica.Config{
		ID:             rec.identity.MemberID,
		Origin:         binary.BigEndian.Uint64(origin[:]),
		ElectionTicks:  int(s.cfg.ElectionTimeout * ticksPerHeartbeat / s.cfg.HeartbeatInterval),
		HeartbeatTicks: ticksPerHeartbeat,
		Log:            rec.replica,
		MaxLogBytes:    catchUpBytes,
		Applied:        rec.applied,
		Logger:         newRaftLogger(s.log),
	})
}

// windowBytes bounds the newest events kept in memory for watchers and for reads
// of old revisions; older ones are read from the checkpoint.
const windowBytes = 2 << 20

// catchUpBytes bounds the entries kept in memory for followers that are behind,
// beyond those that no checkpoint holds; one further behind gets a checkpoint.
const catchUpBytes = 2 << 20

func (s *Server) stateConfig() state.Config {
	return state.Config{HistoryBytes: windowBytes}
}

// publishInitial tells the parts what the recovered machine holds.
func (s *Server) publishInitial(m *state.Machine) {
	m.TakeLeaseEvents()
	s.adopt(m)
}

// run starts the member's goroutines; the janitor ends them.
func (s *Server) run() {
	go s.loop.run()
	go s.appender.run()
	go s.applier.run()
	s.workers.Go(func() { s.keeper.run(s.halt) })
	s.workers.Go(func() { s.lessor.run(s.halt) })
	s.workers.Go(func() { s.compareMembers(s.halt) })
	s.workers.Go(func() { s.watchDisk(s.halt) })
	s.workers.Go(func() { s.probe(s.halt) })
	s.workers.Go(func() { s.join() })
	s.workers.Go(func() { s.acquaint.run(s.halt) })
	for _, l := range s.listeners.peer {
		s.workers.Go(func() { s.servePeers(l) })
	}
	for _, l := range s.listeners.client {
		s.workers.Go(func() { s.serve(s.front.clients, l) })
	}
	for _, l := range s.listeners.http {
		s.workers.Go(func() { s.serve(s.front.http, l) })
	}
	for _, l := range s.listeners.metrics {
		s.workers.Go(func() { s.serve(s.front.metrics, l) })
	}
	go s.janitor()
}

func (s *Server) serve(f *front.Server, l net.Listener) {
	if !s.awaitInitialCheck() {
		_ = l.Close()
		return
	}
	if err := f.Serve(l); !errors.Is(err, front.ErrStopped) {
		s.fail(fmt.Errorf("serve %s: %w", l.Addr(), err))
	}
}

func (s *Server) servePeers(l net.Listener) {
	if err := s.peers.Serve(l); err != nil {
		s.fail(fmt.Errorf("serve %s: %w", l.Addr(), err))
	}
}

// published follows each applied batch, on the applier's goroutine.
func (s *Server) published(b batchInfo) {
	if b.roster != nil {
		s.followMembers(b.roster)
	}
	s.revision.Store(b.revision)
	s.compacted.Store(b.compact)
	s.liveBytes.Store(b.live)
	s.historyBytes.Store(b.history)
	s.leaseCount.Store(int64(b.leaseCount))
	s.store.auth.tell() // before any event that came after a change
	s.meters.leases(b.leases)
	s.hub.Publish(b.events, b.compact)
	s.keeper.note(b.bytes)
	s.followAlarms(b)
	s.lessor.follow(b)
}

// fail ends the member at once: its disk can not be trusted any more. Nothing
// is flushed and nothing is acknowledged after it (R9).
func (s *Server) fail(err error) {
	s.log.Error("the member stops", "err", err)
	s.end(err)
}

// join publishes the member's name and addresses once there is a leader, and
// then reports it ready.
func (s *Server) join() {
	me := state.Member{
		ID: s.identity.MemberID, Name: s.cfg.Name,
		ClientURLs: s.listeners.advertiseClients(s.cfg),
	}
	for {
		_, err := backend{s}.Propose(s.stopped, state.Command{Kind: state.KindMember, Request: &me})
		switch {
		case err == nil:
			if err := s.checkInitially(); err != nil {
				s.fail(err)
				return
			}
			close(s.ready)
			s.answerAccusation()
			return
		case s.stopped.Err() != nil, errors.Is(err, state.ErrMemberNotFound): // it was removed, and ends soon
			return
		default:
			s.log.Warn("not joined yet", "err", err)
			s.pause(joinRetry)
		}
	}
}

// HasLeader reports whether the member knows a leader now.
func (s *Server) HasLeader() bool { return s.leader.Load() != 0 }

func (s *Server) leading() bool { return s.leader.Load() == s.identity.MemberID }
