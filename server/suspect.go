package server

import (
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/replica"
)

// suspicion makes the loss of a leader's process known in milliseconds instead
// of an election timeout: a connection that breaks and does not come back says
// that the process at its other end is gone.
//
// It can be wrong, and that is harmless. A member that forgets its leader only
// becomes willing to vote; it campaigns through PreVote, so it disturbs nobody
// unless a quorum has lost the leader as well (raft's ForgetLeader; etcd-io/raft
// PR 86 argues it). And it follows again at the leader's next message.
//
// It is owned by the loop.
type suspicion struct {
	leader uint64   // suspected; 0 for none
	ticks  int      // of suspicionTick since the connection broke
	elder  []uint64 // the voters that campaign before this member
	alive  func(id uint64) bool
}

const (
	// suspicionTick is how often the loop looks at the clock while a leader is
	// suspected, if its own tick is longer.
	suspicionTick = 10 * time.Millisecond
	// forgetTicks after a connection broke, and has not come back, its leader
	// is forgotten: a restart of the stream alone takes less.
	forgetTicks = 1
	// campaignTicks is the distance between the campaigns of the members, so
	// that they do not split the vote.
	campaignTicks = 3
)

// broken notes that the connection to a member broke.
func (s *suspicion) broken(r *replica.Replica, id uint64) {
	if st := r.Status(); st.Leader == id && st.Role == replica.Follower {
		s.leader, s.ticks = id, 0
	}
}

// campaignTick is when this member campaigns: the first of those who are left at
// once, and each of the others somewhat later.
func (s *suspicion) campaignTick() int {
	place := len(s.elder)
	if slices.Contains(s.elder, s.leader) {
		place--
	}
	return forgetTicks + place*campaignTicks + 1
}

// any reports whether a leader is suspected.
func (s *suspicion) any() bool { return s.leader != 0 }

// tick is called when the loop looks at the clock.
func (s *suspicion) tick(r *replica.Replica) {
	if s.leader == 0 {
		return
	}
	s.ticks++
	switch leader := r.Status().Leader; {
	case s.ticks == forgetTicks && leader == s.leader && !s.alive(s.leader):
		r.ForgetLeader()
	case leader != 0 || s.ticks > s.campaignTick():
		s.leader = 0
	case s.ticks == s.campaignTick():
		r.Campaign()
		s.leader = 0
	}
}
