package replica

import (
	"go.etcd.io/raft/v3/raftpb"
)

// Work is what the owner has to do next. The parts are independent of each other, but each of Append, Apply and Send
// is processed in the order in which the Works were handed out.
type Work struct {
	Append  *Append           // for the log; nil when there is nothing
	Apply   *Apply            // for the state machine; nil when there is nothing
	Send    []*raftpb.Message // to other members, at once; may be lost
	Reads   []Reads           // confirmed reads
	Retry   []*Proposal       // definitely not applied and never will be
	Unknown []*Proposal       // hidden by an installed checkpoint: applied or not, nobody can tell
	Changed bool              // the leader, the term or the role is another than at the last Work
}

// Append is one instruction for the log: first Snapshot, then Entries, then HardState, each if present. Instructions
// are processed in order and never dropped; several may share one write and one sync. When everything is written,
// and synced if any of them says so, [Replica.Appended] is called for each in the same order.
type Append struct {
	Entries   []*raftpb.Entry   // read-only; the first may replace entries that the log already has from its index on
	HardState *raftpb.HardState // nil when unchanged
	Snapshot  *raftpb.Snapshot  // metadata of a received checkpoint, which is to be installed; the log restarts behind it
	Sync      bool              // must be durable, with everything before it, before Appended is called

	number    uint64
	responses []*raftpb.Message
}

// Apply is a run of committed entries for the state machine. [Replica.Applied] is called when it was applied, in
// order. Later Applies are handed out meanwhile, within a bound in bytes.
//
// When a checkpoint is installed in between, entries at or below its index are skipped but still acknowledged, and the
// caller can not tell the results of proposals in them.
type Apply struct {
	Entries []Entry

	number   uint64
	response *raftpb.Message
}

// Entry is one committed log entry.
type Entry struct {
	Index, Term uint64
	// Commands are the batch's commands, read-only. Nil for raft's own empty entries, for a batch that was proposed in
	// another term than the entry's.
	Commands [][]byte
	// Proposals is parallel to Commands if this start of this member proposed the batch, else nil.
	Proposals []*Proposal
	// ConfChange is the change of members that comes with the entry's one command. Nil in all other entries.
	ConfChange *raftpb.ConfChange
	// Refused says that nothing comes of ConfChange. The owner sets it, before [Replica.Applied], when the state machine
	// refused the command; it is set already when there is none.
	Refused bool
}

// Reads are linearizable reads that may be answered from any state at or above Index.
type Reads struct {
	Index  uint64
	Values []any // as given to [Replica.Read], in order
}

// Proposal is one command on its way into the log. The replica reads Data until the proposal is resolved.
type Proposal struct {
	Data  []byte
	Value any // the caller's: its waiter, its decoded command
	// Term, if not 0, is the only term in which the proposal may enter the log; in any other it comes back in
	// [Work.Retry]. It is for what a leader decides by what it alone knows in its term, such as that a lease has run
	// out: left in the queue when the term ends, it must not reach the log through the next leader.
	Term uint64
	// Change, if not nil, makes the proposal one that changes raft's configuration by this step, of which Type and NodeId
	// are used. It waits until the change before it is applied, on the leader; see changes.
	Change *raftpb.ConfChange
}
