package server

import (
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/secure"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/web"
)

// meters are what the member counts for its metrics. Whatever it knows anyway is
// read when somebody asks.
type meters struct {
	web                     *web.Metrics
	walSync, commit, apply  web.Histogram
	roundTrip               func(member string) web.Histogram
	calls                   func(kind, service, method string, took time.Duration) // nil unless metrics are extensive
	leaderChanges, slow     atomic.Int64
	granted, revoked        atomic.Int64 // leases
	renewed, expired, reads atomic.Int64
	care                    care
}

// care counts what the member's watching over itself and the others came to.
type care struct {
	slowSyncs, handovers atomic.Int64 // of the log's disk; of leadership, because of it
	checks, divergences  atomic.Int64 // comparisons that all members answered; members found to differ
	refusals             atomic.Int64 // requests refused by the quota or an alarm
}

// slowApply is how long a batch may take to be applied before it counts as slow,
// etcd's default.
const slowApply = 100 * time.Millisecond

func (m *meters) init(s *Server) {
	m.web = web.NewMetrics(s.collect)
	const first, count = 0.001, 14 // as in etcd: 1 ms to 8 s
	m.walSync = m.web.Histogram("etcd_disk_wal_fsync_duration_seconds", "Writes to the log with their sync.", first, count)
	m.commit = m.web.Histogram("etcd_disk_backend_commit_duration_seconds", "Commits of the checkpoint.", first, count)
	m.apply = m.web.Histogram("latchkey_apply_duration_seconds", "Batches of entries that were applied.", 0.00001, 20)
	trips := m.web.Histograms("etcd_network_peer_round_trip_time_seconds", "Questions to other members, there and back.",
		web.Doubling(0.0001, 16), "To")
	m.roundTrip = func(member string) web.Histogram { return trips(member) }
	if s.cfg.Web.ExtensiveMetrics {
		calls := m.web.Histograms("grpc_server_handling_seconds", "Calls, from their first frame to their end.",
			nil, "grpc_type", "grpc_service", "grpc_method")
		m.calls = func(kind, service, method string, took time.Duration) {
			calls(kind, service, method).Observe(took.Seconds())
		}
	}
}

// applyTook notes how long a batch took.
func (m *meters) applyTook(d time.Duration) {
	m.apply.Observe(d.Seconds())
	if d > slowApply {
		m.slow.Add(1)
	}
}

// leases counts what became of leases.
func (m *meters) leases(events []state.LeaseEvent) {
	for _, e := range events {
		if e.Revoked {
			m.revoked.Add(1)
		} else {
			m.granted.Add(1)
		}
	}
}

// collect tells everything that is known when somebody asks.
func (s *Server) collect(e web.Emitter) {
	s.collectRaft(e)
	s.collectStore(e)
	s.collectWatches(e)
	s.collectPeers(e)
	s.collectClients(e)
	s.collectSafety(e)
	s.collectCare(e)
}

func (s *Server) collectCare(e web.Emitter) {
	c := &s.meters.care
	e.Counter("latchkey_slow_syncs_total", "Writes to the log that took longer than an election timeout.", float64(c.slowSyncs.Load()))
	e.Counter("latchkey_slow_disk_handovers_total", "Leaderships handed over because of a slow disk.", float64(c.handovers.Load()))
	e.Counter("latchkey_comparisons_total", "Comparisons of the members' states that all of them answered.", float64(c.checks.Load()))
	e.Counter("latchkey_divergences_total", "Members that a comparison found to differ.", float64(c.divergences.Load()))
	if a := s.front.audit; a != nil {
		e.Counter("latchkey_audit_failures_total", "Lines that the audit log has not taken.", float64(a.Failed()))
	}
	e.Counter("latchkey_refusals_total", "Requests refused by the quota or an alarm.", float64(c.refusals.Load()))
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s *Server) collectRaft(e web.Emitter) {
	var commit uint64
	var waiting int
	asked := make(chan struct{})
	s.loop.do(func(r *replica.Replica) {
		commit = r.Status().Commit
		waiting = s.loop.waits.len()
		close(asked)
	})
	select {
	case <-asked:
	case <-s.stopped.Done():
		return
	}
	learner := webNode{backend{s}}.Learner()
	e.Gauge("etcd_server_has_leader", "Whether the member knows a leader.", flag(s.HasLeader()))
	e.Gauge("etcd_server_is_leader", "Whether the member leads.", flag(s.leading()))
	e.Gauge("etcd_server_is_learner", "Whether the member has no vote.", flag(learner))
	e.Counter("etcd_server_leader_changes_seen_total", "Leaders that the member has seen come.", float64(s.meters.leaderChanges.Load()))
	e.Gauge("etcd_server_proposals_committed_total", "Index up to which the log is committed.", float64(commit))
	e.Gauge("etcd_server_proposals_applied_total", "Index up to which the log is applied.", float64(s.store.applied.Load()))
	e.Gauge("etcd_server_proposals_pending", "Requests that wait for the log or for the leader.", float64(waiting))
	e.Counter("etcd_server_proposals_failed_total", "Requests that were given up, with their outcome unknown.", float64(s.loop.failed.Load()))
	e.Counter("etcd_server_slow_apply_total", "Batches that took more than 100 ms to apply.", float64(s.meters.slow.Load()))
	e.Gauge("etcd_server_version", "The version of etcd that is served.", 1, "server_version", etcdVersion)
	e.Gauge("etcd_server_go_version", "The version of Go.", 1, "server_go_version", runtime.Version())
	e.Gauge("etcd_server_id", "The member's id.", 1, "server_id", hex(s.identity.MemberID))
	e.Gauge("etcd_cluster_version", "The cluster's version.", 1, "cluster_version", strings.TrimSuffix(clusterVersion, ".0"))
	e.Gauge("latchkey_raft_term", "The term.", float64(s.term.Load()))
	e.Counter("latchkey_checkpoints_installed_total", "Checkpoints of other members that replaced this one's data.", float64(s.installed.Load()))
}

func (s *Server) collectStore(e web.Emitter) {
	var size state.Size
	var counts state.Counts
	var leases int
	var auth uint64
	s.store.with(func(m *state.Machine) {
		size, counts, leases, auth = m.Size(), m.Counts(), m.LeaseCount(), m.Auth().Revision()
	})
	total, used := s.keeper.size()
	e.Gauge("etcd_mvcc_db_total_size_in_bytes", "Size of the checkpoint.", float64(total))
	e.Gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Size of what the checkpoint holds.", float64(used))
	e.Gauge("etcd_server_quota_backend_bytes", "Quota of live keys and values.", float64(max(0, s.cfg.QuotaBytes)))
	e.Counter("etcd_mvcc_put_total", "Puts that were applied.", float64(counts.Puts))
	e.Counter("etcd_mvcc_delete_total", "Keys that were deleted.", float64(counts.Deletes))
	e.Counter("etcd_mvcc_txn_total", "Transactions that were applied.", float64(counts.Txns))
	e.Counter("etcd_mvcc_range_total", "Reads that were served.", float64(s.meters.reads.Load()))
	e.Counter("etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of keys and values that were put.", float64(counts.PutBytes))
	e.Gauge("etcd_debugging_mvcc_keys_total", "Keys.", float64(size.Keys))
	e.Gauge("etcd_debugging_mvcc_current_revision", "The revision.", float64(s.revision.Load()))
	e.Gauge("etcd_debugging_mvcc_compact_revision", "The revision up to which history is compacted.", float64(s.compacted.Load()))
	e.Gauge("etcd_debugging_auth_revision", "The revision of users and roles.", float64(auth))
	e.Counter("etcd_debugging_lease_granted_total", "Leases that were granted.", float64(s.meters.granted.Load()))
	e.Counter("etcd_debugging_lease_revoked_total", "Leases that have ended.", float64(s.meters.revoked.Load()))
	e.Counter("etcd_debugging_lease_renewed_total", "Renewals, on the leader.", float64(s.meters.renewed.Load()))
	e.Counter("etcd_debugging_server_lease_expired_total", "Leases whose end this member proposed as the leader.", float64(s.meters.expired.Load()))
	e.Gauge("latchkey_live_bytes", "What counts against the quota.", float64(size.Live))
	e.Gauge("latchkey_history_bytes", "Versions that are not current.", float64(size.History))
	e.Gauge("latchkey_leases", "Leases.", float64(leases))
	for _, kind := range []string{"NOSPACE", "CORRUPT"} {
		raised := 0
		for _, a := range (webNode{backend{s}}).Alarms() {
			raised += int(flag(a == kind))
		}
		e.Gauge("latchkey_alarms", "Alarms that are raised.", float64(raised), "alarm", kind)
	}
	w := s.appender.log.Stats()
	e.Counter("etcd_disk_wal_write_bytes_total", "Bytes written to the log.", float64(w.Bytes))
	e.Counter("latchkey_wal_batches_total", "Batches written to the log.", float64(w.Appends))
	e.Counter("latchkey_wal_syncs_total", "Syncs of the log.", float64(w.Syncs))
	e.Gauge("latchkey_wal_segments", "Files of the log.", float64(w.Segments))
}

func (s *Server) collectWatches(e web.Emitter) {
	h := s.hub.Stats()
	e.Gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams.", float64(h.Streams))
	e.Gauge("etcd_debugging_mvcc_watcher_total", "Watchers.", float64(h.Watchers))
	e.Gauge("etcd_debugging_mvcc_slow_watcher_total", "Groups of watchers that read events of the past.", float64(h.Lagging))
}

func (s *Server) collectPeers(e web.Emitter) {
	p := s.peers.Stats()
	me := hex(s.identity.MemberID)
	for _, m := range (backend{s}).Members() {
		if m.ID == s.identity.MemberID {
			continue
		}
		_, up := s.peers.Active(m.ID)
		e.Gauge("etcd_network_known_peers", "Other members.", 1, "Local", me, "Remote", hex(m.ID))
		e.Gauge("etcd_network_active_peers", "Other members that are connected.", flag(up), "Local", me, "Remote", hex(m.ID))
	}
	e.Counter("etcd_network_peer_sent_bytes_total", "Bytes sent to other members.", float64(p.BytesSent), "To", "all")
	e.Counter("etcd_network_peer_received_bytes_total", "Bytes received from other members.", float64(p.BytesReceived), "From", "all")
	e.Counter("latchkey_peer_messages_sent_total", "Messages sent to other members.", float64(p.MessagesSent))
	e.Counter("latchkey_peer_messages_received_total", "Messages received from other members.", float64(p.MessagesReceived))
	e.Counter("latchkey_peer_messages_dropped_total", "Messages that could not be sent.", float64(p.Dropped))
	e.Counter("latchkey_peer_rejected_total", "Messages and connections that were refused.", float64(p.Rejected))
}

// collectSafety tells who was turned away, and how long certificates hold.
func (s *Server) collectSafety(e web.Emitter) {
	clients, monitors := s.safety.gate.Stats(), s.safety.monitors.Stats()
	const refused = "latchkey_client_connections_refused_total"
	const help = "Connections of clients that were closed because too many were open."
	e.Counter(refused, help, float64(clients.Refused+monitors.Refused), "bound", "all")
	e.Counter(refused, help, float64(clients.RefusedHost+monitors.RefusedHost), "bound", "host")
	e.Counter("latchkey_client_handshakes_failed_total", "TLS handshakes of clients that failed, or were too slow.", float64(clients.Failed+monitors.Failed))
	e.Gauge("latchkey_client_handshakes", "TLS handshakes of clients that are under way.", float64(clients.Handshakes+monitors.Handshakes))
	for side, p := range map[string]*secure.Policy{"clients": s.safety.clients, "members": s.safety.members} {
		if p != nil {
			e.Gauge("latchkey_certificate_end_seconds", "When the certificate ends, in Unix time.", float64(p.Ends().Unix()), "for", side)
		}
	}
}

func (s *Server) collectClients(e web.Emitter) {
	c := s.front.clients.Stats()
	e.Counter("etcd_network_client_grpc_received_bytes_total", "Bytes received from clients.", float64(c.BytesReceived))
	e.Counter("etcd_network_client_grpc_sent_bytes_total", "Bytes sent to clients.", float64(c.BytesSent))
	e.Gauge("latchkey_client_connections", "Connections of clients.", float64(c.Connections))
	for _, m := range c.Methods {
		labels := []string{"grpc_type", m.Type, "grpc_service", m.Service, "grpc_method", m.Method}
		e.Counter("grpc_server_started_total", "Calls that began.", float64(m.Started), labels...)
		e.Counter("grpc_server_msg_received_total", "Messages received.", float64(m.Received), labels...)
		e.Counter("grpc_server_msg_sent_total", "Messages sent.", float64(m.Sent), labels...)
		for code, n := range m.Handled {
			if n > 0 {
				e.Counter("grpc_server_handled_total", "Calls that ended, by code.", float64(n), append(labels, "grpc_code", codes.Code(code).String())...)
			}
		}
	}
}
