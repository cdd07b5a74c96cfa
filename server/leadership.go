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
	lostAt  time.Time // since when there is no leader; zero while there is one
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
	if st.Leader == 0 {
		s.log.Warn("no leader", "term", st.Term, "was", hex(before))
	} else {
		s.log.Info("leader", "leader", hex(st.Leader), "term", st.Term, "me", st.Leader == s.identity.MemberID)
	}
	l := &s.leadership
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case st.Leader != 0:
		l.lostAt = time.Time{}
	case l.lostAt.IsZero():
		l.lostAt = time.Now()
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
