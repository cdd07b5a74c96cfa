package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/latchkey-go/latchkey/server/internal/lease"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// lessor keeps the leases' time. Only a leader has a clock; the leases
// themselves are in the replicated machine.
//
// The rule it keeps: no lease ends before the send time of its last
// acknowledged renewal plus its TTL. Three things make it hold. A renewal is
// answered only after a quorum confirmed this leader's term since the renewal
// arrived, so every later leader begins its clock after that moment, and a new
// leader gives every lease its full TTL. A lease is ended only by a
// proposal that is bound to its proposer's term and counts for nothing in any
// other (replica.Proposal.Term; etcd #12528, #15247: a leader that was paused and deposed revoked leases that its
// successor had renewed). And a lease that is once proposed for expiry is not
// renewed any more (etcd #20615).
type lessor struct {
	s   *Server
	log *slog.Logger

	mu    sync.Mutex // protects the fields below
	clock *lease.Clock
	term  uint64 // in which this member leads, else 0
	ready bool   // clock runs: an entry of this term is applied, so every lease is known

	seen uint64 // index up to which the clock knows of grants and ends

	begun chan struct{} // capacity 1: there may be leases to time
}

// minTTLSeconds is the floor of a grant through the etcd API, etcd's own at its
// default election timeout.
const minTTLSeconds = 2

func newLessor(s *Server, log *slog.Logger) *lessor {
	return &lessor{s: s, log: log, clock: lease.New(), begun: make(chan struct{}, 1)}
}

// timing reports whether there are leases that this member ends.
func (l *lessor) timing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready && l.clock.Len() > 0
}

// begin wakes run.
func (l *lessor) begin() {
	select {
	case l.begun <- struct{}{}:
	default:
	}
}

// lead is told by the loop, before any entry of the term is handed to the
// applier, that this member leads in term; 0 says that it does not lead.
func (l *lessor) lead(term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == term {
		return
	}
	l.term, l.ready = term, false
	l.clock.Demote()
}

// follow keeps the clock in step with what was applied. The first batch that
// ends in an entry of this member's own term shows that all earlier entries
// are applied: from then on every lease is known and gets its full TTL.
func (l *lessor) follow(b batchInfo) {
	l.mu.Lock()
	term, ready := l.term, l.ready
	if ready && len(b.leases) == 0 {
		l.seen = b.index
	}
	l.mu.Unlock()
	switch {
	case term == 0 || b.term < term:
	case ready:
		l.track(term, b)
	default:
		l.promote(term)
	}
}

// promote starts the clock. The leases are listed before mu is taken: there
// may be a million of them, and the loop must not wait for that.
func (l *lessor) promote(term uint64) {
	var leases []lease.Lease
	var seen uint64
	l.s.store.with(func(m *state.Machine) {
		seen, _ = m.Applied()
		for _, le := range m.Leases() {
			leases = append(leases, lease.Lease{ID: le.ID, TTL: seconds(le.TTL)})
		}
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != term {
		return
	}
	l.clock.Promote(leases, time.Now())
	l.ready, l.seen = true, seen
	l.begin()
}

func (l *lessor) track(term uint64, b batchInfo) {
	if len(b.leases) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != term {
		return
	}
	now := time.Now()
	if l.clock.Len() == 0 {
		l.begin()
	}
	for _, e := range b.leases {
		if e.Revoked {
			l.clock.Revoke(e.ID)
		} else {
			l.clock.Grant(e.ID, seconds(e.TTL), now)
		}
	}
	l.seen = b.index
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// errNotLeading: this member can not answer for leases now.
var errNotLeading = errors.New("not leading")

// renew gives leases their full TTL again if this member leads and a quorum
// confirms it after the call began. A ttl of 0 says that the lease is gone.
func (l *lessor) renew(ctx context.Context, ids []int64) ([]time.Duration, error) {
	ttls := make([]time.Duration, len(ids))
	err := l.confirmed(ctx, func(now time.Time) {
		for i, id := range ids {
			if ttl, ok := l.clock.Renew(id, now); ok {
				l.s.meters.renewed.Add(1)
				ttls[i] = ttl
			}
		}
	})
	return ttls, err
}

// remaining tells what is left of a lease, under the same condition as renew.
func (l *lessor) remaining(ctx context.Context, id int64) (left time.Duration, known bool, err error) {
	err = l.confirmed(ctx, func(now time.Time) {
		left, known = l.clock.Remaining(id, now)
	})
	return left, known, err
}

// confirmed runs f on the clock if this member leads throughout a round of
// confirmation by a quorum. The term is compared before and after: the round
// may have been answered by another leader once this one was deposed.
func (l *lessor) confirmed(ctx context.Context, f func(now time.Time)) error {
	l.mu.Lock()
	term, ready := l.term, l.ready
	l.mu.Unlock()
	if !ready {
		return errNotLeading
	}
	if err := l.s.confirm(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != term {
		return errNotLeading
	}
	f(time.Now())
	return nil
}

// Methods of the peers' Call: what a follower asks its leader.
const (
	callRenew     byte = 1 // ids -> TTLs in nanoseconds, 0 for a lease that is gone
	callRemaining byte = 2 // id -> remaining nanoseconds plus one, 0 for unknown
)

// callIDsMax bounds the leases of one call.
const callIDsMax = 10_000

// serveCall answers a follower's question.
func (l *lessor) serveCall(ctx context.Context, method byte, body []byte) ([]byte, error) {
	args, err := parseVarints(body, callIDsMax)
	if err != nil {
		return nil, err
	}
	switch method {
	case callRenew:
		ids := make([]int64, len(args))
		for i, a := range args {
			ids[i] = int64(a)
		}
		ttls, err := l.renew(ctx, ids)
		if err != nil {
			return nil, err
		}
		var answer []byte
		for _, ttl := range ttls {
			answer = protowire.AppendVarint(answer, uint64(ttl))
		}
		return answer, nil
	case callRemaining:
		if len(args) != 1 {
			return nil, errors.New("one lease id is needed")
		}
		left, known, err := l.remaining(ctx, int64(args[0]))
		if err != nil || !known {
			return protowire.AppendVarint(nil, 0), err
		}
		return protowire.AppendVarint(nil, uint64(max(left, 0))+1), nil
	default:
		return nil, fmt.Errorf("unknown call %d", method)
	}
}

func parseVarints(b []byte, most int) ([]uint64, error) {
	var out []uint64
	for len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 || len(out) == most {
			return nil, errors.New("malformed call")
		}
		out = append(out, v)
		b = b[n:]
	}
	return out, nil
}

// leaderRetry is the pause before a question is asked again of a leader that
// did not answer for leases: it was just elected, or just deposed.
const leaderRetry = 20 * time.Millisecond

// ask answers a question about leases: here if this member leads, else by the
// leader, until the request timeout.
func (s *Server) ask(ctx context.Context, method byte, arg int64) (uint64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.requestTimeout, rpc.ErrTimeout)
	defer cancel()
	body := protowire.AppendVarint(nil, uint64(arg))
	for {
		answer, err := s.askOnce(ctx, method, body)
		if err == nil {
			if v, perr := parseVarints(answer, 1); perr == nil && len(v) == 1 {
				return v[0], nil
			}
			return 0, fmt.Errorf("malformed answer of the leader to call %d", method)
		}
		if errors.Is(err, rpc.ErrTooManyRequests) || errors.Is(err, rpc.ErrStopped) {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-s.stopped.Done():
			return 0, rpc.ErrStopped
		case <-time.After(leaderRetry):
		}
	}
}

func (s *Server) askOnce(ctx context.Context, method byte, body []byte) ([]byte, error) {
	switch leader := s.leader.Load(); leader {
	case 0:
		return nil, rpc.ErrNoLeader
	case s.identity.MemberID:
		return s.lessor.serveCall(ctx, method, body)
	default:
		return s.peers.Call(ctx, leader, method, body)
	}
}

// Renew implements rpc.Lessor.
func (b backend) Renew(ctx context.Context, id int64) (int64, error) {
	ttl, err := b.ask(ctx, callRenew, id)
	if err != nil {
		return 0, err
	}
	if ttl == 0 {
		return 0, state.ErrLeaseNotFound
	}
	return int64(time.Duration(ttl) / time.Second), nil
}

// TimeToLive implements rpc.Lessor.
func (b backend) TimeToLive(ctx context.Context, id int64, keys bool) (rpc.LeaseStatus, error) {
	left, err := b.ask(ctx, callRemaining, id)
	if err != nil {
		return rpc.LeaseStatus{}, err
	}
	// The leader answered after it had applied all that was committed; this
	// member must have as well, before it tells of the lease's keys.
	if err := b.confirm(ctx); err != nil {
		return rpc.LeaseStatus{}, err
	}
	var st rpc.LeaseStatus
	known := false
	b.store.with(func(m *state.Machine) {
		var info state.LeaseInfo
		if info, known = m.Lease(id); known && keys {
			st.Keys = m.LeaseKeys(id)
		}
		st.Granted = info.TTL
	})
	if left == 0 || !known {
		return rpc.LeaseStatus{}, state.ErrLeaseNotFound
	}
	st.Remaining = int64(time.Duration(left-1) / time.Second)
	return st, nil
}

// Leases implements rpc.Lessor.
func (b backend) Leases() []int64 {
	var ids []int64
	b.store.with(func(m *state.Machine) {
		for _, l := range m.Leases() {
			ids = append(ids, l.ID)
		}
	})
	slices.Sort(ids)
	return ids
}

// Full implements rpc.Lessor. What is on its way through the log is not counted,
// so there may be a few leases more.
func (b backend) Full() bool { return b.leaseCount.Load() >= int64(b.cfg.Limits.Leases) }

// MinTTL implements rpc.Lessor: one and a half election timeouts, as in etcd,
// so that a lease outlives the election that follows a leader's crash.
func (b backend) MinTTL() int64 {
	timeout := b.cfg.ElectionTimeout * 3 / 2
	return max(int64((timeout+time.Second-1)/time.Second), minTTLSeconds)
}
