package sim

import (
	"encoding/binary"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// Mutant is a planted bug. All are in the simulator's glue: the packages under test are the same.
type Mutant int

// The mutants.
const (
	None             Mutant = iota
	SkipSync                // the log is written and acknowledged without a sync
	EarlyAppended           // an append is acknowledged when it is begun
	AckEarly                // writes are acknowledged when they are proposed
	UnconfirmedReads        // linearizable reads are answered from what is there
	ReusedReadID            // the answer to an earlier read confirms the present one
	ForgetTombstone         // the checkpoint does not record deletions
	CheckpointAhead         // the checkpoint's index is ahead of its rows
	ExpireUnfenced          // a leader's decision to end a lease outlives its term
	ShortDeadlines          // a new leader counts a lease's time from its grant
	RenewUnconfirmed        // renewals are acknowledged without proof of leadership
	DropVote                // the vote is not written
	StaleBatch              // a batch of an earlier term is applied
	RepeatedBatch           // a batch that arrives twice is applied twice
	LockUnchecked           // a waiter takes the lock without looking whether it still queues
	WatchSkips              // a watcher that moves to another member loses an event
	LearnerVouches          // a learner's question for a read index is taken for proof, as if it had a vote
	MinorityVouches         // so is a voter's, however many voters there are
	Amnesia                 // a member whose disk was lost comes back under its id
	ForgetRemoved           // the checkpoint does not record who was removed
	CarriedOut              // raft carries out a change of members that the machine refused
	mutants
)

// Mutants returns all mutants.
func Mutants() []Mutant {
	var all []Mutant
	for m := None + 1; m < mutants; m++ {
		all = append(all, m)
	}
	return all
}

// String returns the mutant's name.
func (m Mutant) String() string {
	return [...]string{
		"None", "SkipSync", "EarlyAppended", "AckEarly", "UnconfirmedReads", "ReusedReadID", "ForgetTombstone",
		"CheckpointAhead", "ExpireUnfenced", "ShortDeadlines", "RenewUnconfirmed", "DropVote", "StaleBatch",
		"RepeatedBatch", "LockUnchecked", "WatchSkips", "LearnerVouches", "MinorityVouches", "Amnesia", "ForgetRemoved",
		"CarriedOut",
	}[m]
}

func (m Mutant) is(other Mutant) bool { return m == other }

// batch spoils what goes to the log.
func (m Mutant) batch(_ *node, b *wal.Batch) {
	if m == DropVote && b.HardState != nil {
		b.HardState = proto.Clone(b.HardState).(*raftpb.HardState)
		b.HardState.Vote = new(uint64(0))
	}
}

// save spoils what goes to the checkpoint.
func (m Mutant) save(n *node, ch *state.Changes) {
	switch m {
	case ForgetTombstone:
		var kept []*state.Version
		for _, v := range ch.Versions {
			if !v.Deleted {
				kept = append(kept, v)
			}
		}
		ch.Versions = kept
	case ForgetRemoved:
		ch.RemovedMembers = nil
	case CheckpointAhead:
		ch.Index, ch.Term = n.mach.Applied()
	}
}

// arrived spoils what is given to a replica.
func (m Mutant) arrived(to *node, msg *raftpb.Message) *raftpb.Message {
	switch {
	case m == ReusedReadID && msg.GetType() == raftpb.MsgReadIndexResp && to.readID != nil:
		msg = proto.Clone(msg).(*raftpb.Message)
		msg.Entries[0].Data = to.readID
	case m == StaleBatch && msg.GetType() == raftpb.MsgProp:
		b, err := replica.DecodeBatch(msg.Entries[0].Data)
		if err != nil || b.Term == to.term {
			return msg
		}
		// Without the fence, the batch counts in whatever term it arrives.
		msg = proto.Clone(msg).(*raftpb.Message)
		b.Term, b.Origin = to.term, b.Origin+2
		msg.Entries[0].Data = replica.EncodeBatch(b)
	}
	return msg
}

// answers answers a read index at once, where it is no proof that this member still leads.
func (m Mutant) answers(to *node, msg *raftpb.Message) bool {
	if m != LearnerVouches && m != MinorityVouches || msg.GetType() != raftpb.MsgReadIndex || !to.leads() {
		return false
	}
	voters, learners := to.mach.Voters()
	id, st := msg.GetEntries()[0].GetData(), to.rep.Status()
	asks := voters
	if m == LearnerVouches {
		asks = learners
	}
	if !slices.Contains(asks, msg.GetFrom()) || binary.LittleEndian.Uint64(id[16:]) != st.Term {
		return false
	}
	to.s.net.send(to, &raftpb.Message{
		Type: raftpb.MsgReadIndexResp.Enum(), From: &to.id, To: new(msg.GetFrom()), Term: &st.Term,
		Index: &st.Commit, Entries: []*raftpb.Entry{{Data: id}},
	})
	return true
}

// sent remembers the id of a member's newest read index: with the mutant, any answer will do for it.
func (m Mutant) sent(from *node, msg *raftpb.Message) {
	if m == ReusedReadID && msg.GetType() == raftpb.MsgReadIndex {
		from.readID = msg.Entries[0].Data
	}
}

// repeated spoils the second copy of a message.
func (m Mutant) repeated(msg *raftpb.Message) *raftpb.Message {
	if m == RepeatedBatch && msg.GetType() == raftpb.MsgProp {
		if b, err := replica.DecodeBatch(msg.Entries[0].Data); err == nil {
			b.Origin += 2 // without the memory of sequences, it would count again
			msg = proto.Clone(msg).(*raftpb.Message)
			msg.Entries[0].Data = replica.EncodeBatch(b)
		}
	}
	return msg
}

// leaseEvent remembers when leases were granted.
func (m Mutant) leaseEvent(n *node, e state.LeaseEvent) {
	if m == ShortDeadlines && !e.Revoked {
		if n.leases.grown == nil {
			n.leases.grown = make(map[int64]time.Time)
		}
		n.leases.grown[e.ID] = n.local(n.s.now)
	}
}

// promoted gives leases less than their full time.
func (m Mutant) promoted(n *node) {
	if m != ShortDeadlines {
		return
	}
	now := n.local(n.s.now)
	for _, info := range n.mach.Leases() {
		if at, ok := n.leases.grown[info.ID]; ok {
			left := at.Add(time.Duration(info.TTL) * time.Second).Sub(now)
			n.leases.clock.Grant(info.ID, max(0, left), now)
		}
	}
}

// moved makes a watcher resume too far.
func (m Mutant) moved(w *watcher) {
	if m == WatchSkips && w.next > 2 {
		w.next++
	}
}
