package sim

import (
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

const (
	// farewell is how long a member lives on, and is heard, after it was removed. The server has the same, but longer.
	farewell = 100 * time.Millisecond
	// The members vary between these numbers of voters; maxNodes bounds all that there ever are in a run.
	leastVoters, mostVoters, mostLearners, maxNodes = 3, 5, 2, 14
)

// standing is where a node stands with the cluster.
type standing struct {
	gone     bool            // removed and stopped, or never begun
	ending   bool            // it will be gone
	unwanted bool            // its removal was asked for
	extra    map[uint64]bool // members that a known member has vouched for
}

// current returns the nodes that are members, by the newest entry that was applied anywhere.
func (s *sim) current() []*node {
	return slices.DeleteFunc(slices.Clone(s.nodes), func(n *node) bool {
		return n.gone || !slices.ContainsFunc(s.truth.members, func(m state.Member) bool { return m.ID == n.id })
	})
}

// reconfigure proposes some change of members through some member.
func (s *sim) reconfigure() {
	n := s.pick()
	if !n.up {
		return
	}
	voters, learners := n.mach.Voters()
	switch k := s.rng.IntN(10); {
	case len(learners) > 0 && k < 4:
		s.promote(learners[s.rng.IntN(len(learners))])
	case k < 7 && len(s.nodes) < maxNodes && len(voters)+len(learners) < mostVoters+1:
		change := &state.MemberChange{ID: uint64(len(s.nodes) + 1), Learner: s.chance(0.7), MaxLearners: mostLearners}
		if !change.Learner && len(voters) >= mostVoters {
			return
		}
		change.PeerURLs = []string{fmt.Sprint("u", change.ID)}
		s.nodes = append(s.nodes, newNode(s, change.ID))
		s.nodes[change.ID-1].gone = true // until it is a member
		n.change(state.KindMemberAdd, change, 0)
	default:
		s.remove(n)
	}
}

// remove removes a member, unless too few voters would be left: of those that there are after the newest entry, without
// any whose removal was asked for before and may still come. Requests that will be refused are part of it.
func (s *sim) remove(n *node) {
	var voters, learners []uint64
	for _, m := range s.truth.members {
		switch {
		case m.Learner:
			learners = append(learners, m.ID)
		case !s.nodes[m.ID-1].unwanted:
			voters = append(voters, m.ID)
		}
	}
	ids := learners
	for i := range s.nodes {
		if n := s.nodes[i]; n.gone || n.unwanted {
			ids = append(ids, n.id)
		}
	}
	if len(voters) > leastVoters {
		ids = append(ids, voters...)
		for _, id := range voters {
			if s.nodes[id-1].lost {
				ids = []uint64{id}
			}
		}
	}
	if len(ids) == 0 {
		return
	}
	target := s.nodes[ids[s.rng.IntN(len(ids))]-1]
	target.unwanted = true
	if s.leader() == target && s.chance(0.5) { // what the server does before it removes its leader
		target.rep.TransferLeader(s.pick().id)
		target.pump()
	}
	if n.up {
		n.change(state.KindMemberRemove, &state.MemberChange{ID: target.id}, 0)
	}
}

// promote promotes a learner, as the leader does: in its term, and when the learner has most of its log.
func (s *sim) promote(id uint64) {
	n := s.leader()
	if n == nil {
		return
	}
	st := n.rep.Status()
	for _, p := range st.Peers {
		if p.ID == id && p.Match*10 >= st.LastIndex*9 {
			n.change(state.KindMemberPromote, &state.MemberChange{ID: id}, st.Term)
		}
	}
}

// change puts a change of members into the log.
func (n *node) change(kind state.Kind, change *state.MemberChange, term uint64) {
	typ := raftpb.ConfChangeAddNode
	switch {
	case kind == state.KindMemberRemove:
		typ = raftpb.ConfChangeRemoveNode
	case kind == state.KindMemberAdd && change.Learner:
		typ = raftpb.ConfChangeAddLearnerNode
	}
	r := &request{data: encode(kind, change), term: term, done: func(outcome, *state.Result) {}}
	r.proposal = &replica.Proposal{
		Data: r.data, Value: r, Term: term, Change: &raftpb.ConfChange{Type: typ.Enum(), NodeId: &change.ID},
	}
	if n.rep.Propose(r.proposal) == nil {
		n.pump()
	}
}

// reconfigured follows the members as they are after an entry that nobody had applied before.
func (s *sim) reconfigured(n *node) {
	now := n.mach.Members()
	if slices.EqualFunc(now, s.truth.members, func(a, b state.Member) bool { return a.ID == b.ID && a.Learner == b.Learner }) {
		return
	}
	s.counts.Reconfigurations++
	s.note("members", n.id, uint64(len(now)))
	for _, m := range now {
		fresh := s.nodes[m.ID-1]
		if fresh.gone && !fresh.ending && fresh.store == nil {
			s.counts.Joined++
			fresh.join(now)
		}
		was := slices.ContainsFunc(s.truth.members, func(b state.Member) bool { return b.ID == m.ID && b.Learner })
		if was && !m.Learner {
			s.counts.Promoted++
		}
	}
	for _, m := range s.truth.members {
		old := s.nodes[m.ID-1]
		if !slices.ContainsFunc(now, func(b state.Member) bool { return b.ID == m.ID }) {
			s.after(s.around(s.Outage), old.leave) // it connects to some other member, and is told
		}
	}
	s.truth.members = now
}

// join gives a new member its empty storage, and starts it some time later.
func (n *node) join(members []state.Member) {
	n.store = &checkpoint{revision: 1, compact: -1, members: members, conf: &raftpb.ConfState{}}
	n.createLog(wal.Base{})
	n.mach = state.New(state.Config{ClusterID: clusterID, Members: members})
	n.gone = false
	n.s.after(n.s.around(n.s.Outage/4), func() {
		if !n.up {
			n.restart()
		}
	})
}

// forget loses all that the node has, as if its directory were wiped, and lets it begin as if it joined: for a mutant.
func (n *node) forget() {
	if len(n.store.members) == 0 || n.rot != nil {
		return
	}
	fresh := newNode(n.s, n.id)
	n.disk, n.received = fresh.disk, fresh.received
	n.store = &checkpoint{revision: 1, compact: -1, members: n.s.truth.members, conf: &raftpb.ConfState{}}
	n.createLog(wal.Base{})
}

// leave ends a member that was removed, a little later. It never comes back.
func (n *node) leave() {
	if n.ending {
		return
	}
	n.ending = true
	n.s.counts.Removed++
	n.s.after(farewell, func() {
		n.s.note("gone", n.id)
		n.kill()
		n.gone = true
	})
}

// welcome tells whether a node takes a message of another, as its transport would. One that was removed hears of that,
// and for a while is still heard. Of one that it does not know it asks those that it knows: it may be behind.
func (n *node) welcome(from uint64) bool {
	if _, removed := slices.BinarySearch(n.mach.RemovedMembers(), from); removed {
		early := !n.s.nodes[from-1].ending
		n.s.nodes[from-1].leave()
		return early
	}
	members := n.mach.Members()
	if n.extra[from] || slices.ContainsFunc(members, func(m state.Member) bool { return m.ID == from }) {
		return true
	}
	if len(members) > 0 {
		other := n.s.nodes[members[n.s.rng.IntN(len(members))].ID-1]
		n.s.net.call(n, other, func() {
			vouches := slices.ContainsFunc(other.mach.Members(), func(m state.Member) bool { return m.ID == from })
			n.s.net.call(other, n, func() {
				if n.extra == nil {
					n.extra = make(map[uint64]bool)
				}
				n.extra[from] = n.extra[from] || vouches
			})
		})
	}
	return false
}

// checkConfiguration compares raft's members with the machine's, which must be the same at every index.
func (n *node) checkConfiguration(at uint64) {
	if n.index() != at || len(n.received) > 0 { // a checkpoint is being installed
		return
	}
	voters, learners := n.rep.Configuration()
	wantVoters, wantLearners := n.mach.Voters()
	if !slices.Equal(voters, wantVoters) || !slices.Equal(learners, wantLearners) {
		n.s.violate("members", "member %d: raft has voters %v and learners %v at index %d, the machine %v and %v",
			n.id, voters, learners, at, wantVoters, wantLearners)
	}
}
