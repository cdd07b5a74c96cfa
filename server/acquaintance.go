package server

import (
	"context"
	"slices"
	"time"
)

// acquaintance finds out about members of the same cluster that this one does
// not know because it is behind: members that were added while it was down, one
// of which may lead and would be refused for ever. Those it knows are asked, and
// whom they name is let in until the log says who the members are.
type acquaintance struct {
	s    *Server
	news chan uint64 // capacity 1: a stranger came
}

// acquaintPause is the least time between two rounds of questions.
const acquaintPause = 200 * time.Millisecond

func newAcquaintance(s *Server) *acquaintance {
	return &acquaintance{s: s, news: make(chan uint64, 1)}
}

// stranger is told by the transport.
func (a *acquaintance) stranger(id uint64) {
	select {
	case a.news <- id:
	default:
	}
}

func (a *acquaintance) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case id := <-a.news:
			a.ask(id)
		}
		select {
		case <-stop:
			return
		case <-time.After(acquaintPause):
		}
	}
}

// ask asks the known members about a stranger.
func (a *acquaintance) ask(id uint64) {
	s := a.s
	s.rosterMu.Lock()
	known := s.roster
	s.rosterMu.Unlock()
	var urls []string
	for _, m := range known.members {
		if m.ID != s.identity.MemberID {
			urls = append(urls, m.PeerURLs...)
		}
	}
	if len(urls) == 0 || known.knows(id) {
		return
	}
	ctx, cancel := context.WithTimeout(s.stopped, joinTimeout)
	defer cancel()
	f, err := s.inquireAll(ctx, urls)
	if err != nil || f.cluster != s.identity.ClusterID {
		return
	}
	s.rosterMu.Lock()
	defer s.rosterMu.Unlock()
	next := *s.roster
	for _, m := range f.members {
		if !next.knows(m.ID) {
			next.vouched = append(slices.Clone(next.vouched), m)
			s.log.Info("the others know a member that this one does not know yet", "id", hex(m.ID), "name", m.Name)
		}
	}
	s.roster = &next
	s.connectMembers(&next)
}
