package replica

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// Role is what a member is in its term.
type Role uint8

// The roles. Candidates include those that only ask whether they could win.
const (
	Follower Role = iota
	Candidate
	Leader
)

// String returns the role in lower case.
func (r Role) String() string {
	switch r {
	case Follower:
		return "follower"
	case Candidate:
		return "candidate"
	case Leader:
		return "leader"
	}
	return fmt.Sprintf("role(%d)", r)
}

// Status is a member's situation at the time of the call.
type Status struct {
	Term       uint64
	Leader     uint64 // 0: unknown
	Role       Role
	Commit     uint64
	Applied    uint64 // acknowledged by [Replica.Applied]
	LastIndex  uint64 // of the log, durable or on its way
	Transferee uint64 // on a leader that is handing over: to whom
	LogBytes   int    // entries kept in memory
	Queued     int    // proposals that wait to be packed
	Pending    int    // batches proposed and not resolved
	Peers      []Peer // on a leader: all members but itself, by id
}

// Peer is what a leader knows about another member.
type Peer struct {
	ID           uint64
	Match        uint64 // its log is known to equal ours up to here
	Learner      bool
	RecentActive bool // heard from since the last check of the quorum
	Snapshotting bool // gets a checkpoint, and no entries until that is reported
}

// Status returns the member's situation. It costs a few small allocations, and on a leader one for Peers.
func (r *Replica) Status() Status {
	now := r.look()
	s := Status{
		Term: now.term, Leader: now.leader, Role: now.role, Commit: now.commit, Applied: r.applied,
		LastIndex: r.last, Transferee: now.transferee,
		LogBytes: r.log.bytes, Queued: r.queue.len(), Pending: len(r.pending),
	}
	if now.role == Leader {
		r.node.WithProgress(func(id uint64, typ raft.ProgressType, p tracker.Progress) {
			if id != r.cfg.ID {
				s.Peers = append(s.Peers, Peer{
					ID: id, Match: p.Match, Learner: typ == raft.ProgressTypeLearner,
					RecentActive: p.RecentActive, Snapshotting: p.State == tracker.StateSnapshot,
				})
			}
		})
	}
	return s
}

// Behind returns how many committed entries were not acknowledged by [Replica.Applied] when Work was last called.
func (r *Replica) Behind() uint64 { return r.view.commit - min(r.applied, r.view.commit) }

func (r *Replica) look() view {
	s := r.node.BasicStatus()
	v := view{term: s.GetTerm(), leader: s.Lead, commit: s.GetCommit(), transferee: s.LeadTransferee}
	switch s.RaftState {
	case raft.StateLeader:
		v.role = Leader
	case raft.StateCandidate, raft.StatePreCandidate:
		v.role = Candidate
	}
	return v
}

// voters counts the members that vote, before or after a change of members that is under way.
func (r *Replica) voters() int {
	n := 0
	r.node.WithProgress(func(_ uint64, typ raft.ProgressType, _ tracker.Progress) {
		if typ == raft.ProgressTypePeer {
			n++
		}
	})
	return n
}
