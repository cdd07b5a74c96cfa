package server

import (
	"context"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/replica"
)

// leadership tells who leads, and wakes those who wait for a change.
type leadership struct {
	mu      sync.Mutex // protects the fields below
	changed chan struct{}
	// absent is closed by timer once there has been no leader for patience. The
	// next leader then puts a new one in its place, so whoever holds a channel
	// hears of the first long absence since he asked.
	absent   chan struct{}
	timer    *time.Timer // nil while there is a leader
	patience time.Duration
}

// leaderlessTimeouts is how many election timeouts without a leader end the
// streams of clients that require one, as in etcd.
const leaderlessTimeouts = 3

func (l *leadership) init(patience time.Duration) {
	l.changed, l.absent = make(chan struct{}), make(chan struct{})
	l.patience = patience
	l.lost()
}

// lost starts the wait for a leader; the caller holds mu, or is alone.
func (l *leadership) lost() {
	if l.timer == nil {
		absent := l.absent
		l.timer = time.AfterFunc(l.patience, func() { close(absent) })
	}
}

// found ends it; the caller holds mu.
func (l *leadership) found() {
	if l.timer != nil && !l.timer.Stop() {
		l.absent = make(chan struct{})
	}
	l.timer = nil
}

// absence returns a channel that is closed once there has been no leader for
// long.
func (l *leadership) absence() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.absent
}

// close stops the timer.
func (l *leadership) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
}

// leaderChanged is called by the loop when leader, term or role changed, and
// before any entry of the new term is handed to the applier.
func (s *Server) leaderChanged(st replica.Status) {
	before := s.leader.Swap(st.Leader)
	s.term.Store(st.Term)
	term := uint64(0)
	if st.Leader == s.identity.MemberID {
		term = st.Term
	}
	s.lessor.lead(term)
	if before == st.Leader {
		return
	}
	if st.Leader != 0 {
		s.meters.leaderChanges.Add(1)
	}
	if st.Leader == 0 {
		s.log.Warn("no leader", "term", st.Term, "was", hex(before))
	} else {
		s.log.Info("leader", "leader", hex(st.Leader), "term", st.Term, "me", st.Leader == s.identity.MemberID)
	}
	l := &s.leadership
	l.mu.Lock()
	defer l.mu.Unlock()
	if st.Leader == 0 {
		l.lost()
	} else {
		l.found()
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// watch returns a channel that is closed at the next change of leader.
func (l *leadership) watch() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// WaitLeader returns the id of the member that leads, once one does.
func (s *Server) WaitLeader(ctx context.Context) (uint64, error) {
	for {
		changed := s.leadership.watch()
		if id := s.leader.Load(); id != 0 {
			return id, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-s.stopped.Done():
			return 0, context.Cause(s.stopped)
		}
	}
}

// ID returns the member's id, which is in every response header.
func (s *Server) ID() uint64 { return s.identity.MemberID }

// InstalledCheckpoints returns how many checkpoints of other members this one
// has taken over since it started, because its log was too far behind.
func (s *Server) InstalledCheckpoints() int64 { return s.installed.Load() }
