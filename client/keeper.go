package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// Renewals leave three times a TTL, a tenth earlier or later, so that a fleet does not renew in step.
	renewPart   = 3
	renewJitter = 10 // percent
	// A renewal that has no acknowledgement after an eighth of the TTL, within these bounds, is tried on another member:
	// soon enough for the session not to become suspect by the loss of one.
	ackTimeoutPart      = 8
	ackTimeoutMin       = 200 * time.Millisecond
	ackTimeoutMax       = time.Second
	ackTimeoutDoublings = 2
	// After a failure the next attempt is at once; after more of them it waits a twentieth of the TTL, at least this.
	renewRetryPart = 20
	renewRetryMin  = 100 * time.Millisecond
	// linkOpenTimeout bounds the opening of a stream at a connected endpoint.
	linkOpenTimeout = time.Second
	// sessionsMax bounds the sessions of one client. A program needs one.
	sessionsMax = 1000
)

// keeper renews all sessions of a client over one stream, and decides when one is lost.
//
// One goroutine runs it while there are sessions; one more reads from the stream. The first must never wait for the
// network, as it is the one that notices deadlines.
type keeper struct {
	core *core
	wake chan struct{} // capacity 1: something changed, look again

	mu       sync.Mutex // protects what follows, and the renewal of each session
	sessions map[LeaseID]*Session
	running  bool
	closed   bool
	link     *link         // the stream in use; nil between attempts
	failures int           // of links since the last acknowledgement
	retryAt  time.Duration // monotonic: no new link before
}

// renewal is what the keeper knows of a session's renewals.
type renewal struct {
	seen    State         // the state that was announced last
	dueAt   time.Duration // monotonic: when the next one leaves
	sentAt  instant       // when the one outstanding left
	waiting bool          // one is outstanding
}

// link is one stream of renewals.
type link struct {
	cancel context.CancelFunc
	ep     *endpoint         // nil until one was found
	stream grpc.ClientStream // nil until open
	failed bool
}

func newKeeper(co *core) *keeper {
	return &keeper{core: co, wake: make(chan struct{}, 1), sessions: make(map[LeaseID]*Session)}
}

// poke makes the keeper look again.
func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default: // it has been told and did not look yet
	}
}

// add starts to renew a session.
func (k *keeper) add(s *Session) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return ErrClosed
	}
	if len(k.sessions) >= sessionsMax {
		return ErrLimit
	}
	t := s.trust.Load()
	s.dueAt = t.sentAt.mono + nextRenewal(t.ttl)
	if !k.running && !k.core.start(k.run) {
		return ErrClosed
	}
	k.running = true
	k.sessions[s.id] = s
	k.poke()
	return nil
}

// hurry makes a session's next renewal due now, unless one is outstanding.
func (k *keeper) hurry(s *Session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s.dueAt = k.core.clock.now().mono
	k.poke()
}

// end ends a session for the given reason, if it has not ended yet.
func (k *keeper) end(s *Session, reason error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.endLocked(s, reason)
	k.poke()
}

func (k *keeper) endLocked(s *Session, reason error) {
	if s.ctx.Err() != nil {
		return
	}
	delete(k.sessions, s.id)
	elapsed, _ := k.core.clock.now().since(s.trust.Load().sentAt)
	err := &SessionError{ID: s.id, Reason: reason, Renewed: time.Now().Add(-elapsed)}
	s.seen = Lost
	s.cancel(err)
	s.announce()
	if reason == ErrSessionExpired || reason == ErrSessionRevoked {
		k.core.log.Warn("session lost", "lease", s.id.String(), "reason", reason, "since_renewal", elapsed)
	}
}

// closeAll ends all sessions, accepts no more, and returns the leases that are left to revoke.
func (k *keeper) closeAll() []LeaseID {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	ids := make([]LeaseID, 0, len(k.sessions))
	for id, s := range k.sessions {
		ids = append(ids, id)
		k.endLocked(s, ErrClosed)
	}
	k.poke()
	return ids
}

// run renews until there is no session left.
func (k *keeper) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		send, next, ok := k.plan(k.core.clock.now())
		if !ok {
			return
		}
		for _, r := range send {
			// Small messages on a stream that is dropped when it lags: this does not block. An error shows in receive.
			_ = r.stream.SendMsg(&pb.LeaseKeepAliveRequest{ID: int64(r.id)})
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-k.wake:
		}
	}
}

// outgoing is a renewal to send.
type outgoing struct {
	stream grpc.ClientStream
	id     LeaseID
}

// plan announces states, drops a link that failed, starts one when it is time, and returns the renewals to send now and
// how long to wait then. ok is false when there is nothing left to do.
func (k *keeper) plan(now instant) (send []outgoing, next time.Duration, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.sessions {
		k.judgeLocked(s, now)
	}
	if len(k.sessions) == 0 {
		k.dropLinkLocked(now)
		k.running = false
		return nil, 0, false
	}
	if k.link != nil && (k.link.failed || k.lateLocked(now)) {
		k.dropLinkLocked(now)
	}
	if k.link == nil && now.mono >= k.retryAt {
		k.openLinkLocked()
	}
	return k.dueLocked(now), k.nextLocked(now), true
}

// judgeLocked announces a change of a session's state and ends it when it is lost.
func (k *keeper) judgeLocked(s *Session, now instant) {
	t := s.trust.Load()
	state := t.state(now)
	if t.suspended(now) && !s.waiting {
		s.dueAt = now.mono // only a fresh acknowledgement tells what happened meanwhile
	}
	switch {
	case state == Lost:
		k.endLocked(s, ErrSessionExpired)
	case state != s.seen:
		s.seen = state
		s.announce()
	}
}

// lateLocked says that a renewal waits for its acknowledgement for too long.
func (k *keeper) lateLocked(now instant) bool {
	for _, s := range k.sessions {
		if s.waiting && now.mono >= k.ackByLocked(s) {
			return true
		}
	}
	return false
}

// dueLocked returns the renewals that leave now, if there is an open stream.
func (k *keeper) dueLocked(now instant) (send []outgoing) {
	if k.link == nil || k.link.stream == nil {
		return nil
	}
	for _, s := range k.sessions {
		if s.waiting || now.mono < s.dueAt {
			continue
		}
		// The moment is taken before the message leaves, so that the server can only have counted from later on.
		s.waiting, s.sentAt = true, now
		send = append(send, outgoing{k.link.stream, s.id})
	}
	return send
}

// nextLocked returns how long it is until something has to be looked at.
func (k *keeper) nextLocked(now instant) time.Duration {
	at := now.mono + time.Hour
	if k.link == nil {
		at = min(at, k.retryAt)
	}
	for _, s := range k.sessions {
		t := s.trust.Load()
		at = min(at, t.sentAt.mono+t.lifetime())
		if suspectAt := t.sentAt.mono + t.patience(); suspectAt > now.mono {
			at = min(at, suspectAt)
		}
		switch {
		case s.waiting:
			at = min(at, k.ackByLocked(s))
		case k.link != nil && k.link.stream != nil:
			at = min(at, s.dueAt)
		}
	}
	return max(0, at-now.mono)
}

// openLinkLocked starts to open a stream.
func (k *keeper) openLinkLocked() {
	ctx, cancel := context.WithCancel(k.core.ctx)
	l := &link{cancel: cancel}
	if k.core.start(func() { k.receive(requireLeader(ctx), l) }) {
		k.link = l
	} else {
		cancel()
		k.retryAt = 1<<63 - 1 // the client is closing, and its sessions are about to end
	}
}

// dropLinkLocked gives up the stream. Renewals that were outstanding on it are due again, and those who come late on it
// will be ignored, as they can no longer be told from answers to newer ones.
func (k *keeper) dropLinkLocked(now instant) {
	l := k.link
	if l == nil {
		return
	}
	k.link = nil
	l.cancel()
	if l.ep != nil {
		k.core.pool.leave(l.ep)
	}
	shortest := time.Duration(1<<63 - 1)
	for _, s := range k.sessions {
		if s.waiting {
			s.waiting, s.dueAt = false, now.mono
		}
		shortest = min(shortest, s.trust.Load().ttl)
	}
	k.retryAt = now.mono
	if k.failures > 0 {
		k.retryAt += max(renewRetryMin, shortest/renewRetryPart)
	}
	k.failures++
}

// receive opens the stream at an endpoint and reads acknowledgements until it fails.
func (k *keeper) receive(ctx context.Context, l *link) {
	defer func() {
		k.mu.Lock()
		l.failed = true
		k.mu.Unlock()
		l.cancel()
		k.poke()
	}()
	ep, err := k.core.pool.pick(ctx)
	if err != nil {
		return
	}
	ep.streams.Add(1)
	defer ep.streams.Add(-1)
	giveUp := time.AfterFunc(linkOpenTimeout, l.cancel)
	stream, err := k.core.transport.stream(ctx, ep, streamKeepAlive, methodKeepAlive.full)
	giveUp.Stop()
	k.mu.Lock()
	l.ep = ep
	if err == nil {
		l.stream = stream
	}
	k.mu.Unlock()
	if err != nil {
		return
	}
	k.poke()
	for {
		var resp pb.LeaseKeepAliveResponse
		if err := stream.RecvMsg(&resp); err != nil {
			k.core.log.Debug("stream of renewals ended", "endpoint", ep.name, "error", err)
			return
		}
		now := k.core.clock.now()
		ep.heard(now)
		k.core.saw(&resp)
		k.acknowledge(l, &resp, now)
	}
}

// acknowledge notes a renewal that succeeded, or that could not.
func (k *keeper) acknowledge(l *link, resp *pb.LeaseKeepAliveResponse, now instant) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.sessions[LeaseID(resp.ID)]
	if l != k.link || s == nil || !s.waiting {
		return
	}
	k.judgeLocked(s, now) // an acknowledgement does not raise what was lost meanwhile
	if s.ctx.Err() != nil {
		return
	}
	s.waiting = false
	k.failures = 0
	if resp.TTL <= 0 {
		k.endLocked(s, ErrSessionRevoked)
		return
	}
	t := &trust{sentAt: s.sentAt, ttl: seconds(resp.TTL)}
	s.trust.Store(t)
	s.dueAt = s.sentAt.mono + nextRenewal(t.ttl)
	k.judgeLocked(s, now)
	k.poke()
}

// ackByLocked is when the outstanding renewal is given up, on the monotonic clock. Each failure doubles the patience, as
// a cluster that is slow everywhere must not lose its sessions to our haste.
func (k *keeper) ackByLocked(s *Session) time.Duration {
	patience := min(ackTimeoutMax, max(ackTimeoutMin, s.trust.Load().ttl/ackTimeoutPart))
	return s.sentAt.mono + patience<<min(k.failures, ackTimeoutDoublings)
}

// nextRenewal is the time from one renewal to the next.
func nextRenewal(ttl time.Duration) time.Duration {
	spread := ttl / renewPart * renewJitter / 100
	return ttl/renewPart - spread + rand.N(2*spread+1)
}
