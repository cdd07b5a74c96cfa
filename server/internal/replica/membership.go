package replica

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// maxChanges bounds the changes of members that wait to be proposed here.
const maxChanges = 64

// changes are this member's proposals that change the members, and what a leader knows of such a change in its log.
//
// A change is raft's entry of one step, ConfChange, whose context is an ordinary batch of one command. So it is bound to
// its term, appended once and repeated like any other batch, and the state machine decides about the command at the
// same index at which raft changes its configuration: if it refuses, nothing is changed.
//
// Raft allows a change only when the one before is applied on the leader, and a new leader only when it has applied all
// that was in its log. It turns any other into an empty entry, silently. So a leader lets its own changes wait until
// then, and refuses another member's, which sends it again. If raft turns one down all the same, it counts as not
// appended.
//
// One leader after the other, there is so at most one change in any log that its owner does not know to be committed:
// a leader that appends the second has applied the first, and the message that carries the second carries a commit
// index above the first, which is written together with it. A member does not campaign while it knows of a committed
// change that it has not applied. Hence whoever campaigns or leads does it with the last configuration that is
// committed anywhere or the one before it, and majorities of two such configurations have a member in common. This is
// why a lost commit index does no harm here either: it is lost only together with the entries that came with it.
type changes struct {
	waiting []*Proposal

	// stepped: a change was given to raft in term and was not seen in an Append yet; index is that of the last seen.
	stepped     bool
	term, index uint64

	restored uint64      // the last checkpoint that raft took its configuration from
	early    *raft.Ready // taken when that was seen; the next Work begins with it
}

// possible tells a leader whether raft would take a change now. It mirrors raft's own check.
func (r *Replica) changePossible(now view) bool {
	c := &r.changes
	return now.role == Leader && r.reads.ready(now) && r.applied >= r.reads.ownIndex &&
		(c.term != now.term || !c.stepped && r.applied >= c.index)
}

// proposeChange proposes the oldest change that waits, unless one is under way.
func (r *Replica) proposeChange(now view) {
	c := &r.changes
	if len(c.waiting) == 0 || r.blocked || now.role == Leader && !r.changePossible(now) ||
		slices.ContainsFunc(r.pending, func(b *batch) bool { return b.change }) {
		return
	}
	p := c.waiting[0]
	b := &batch{sequence: r.serial + 1, term: now.term, proposals: c.waiting[:1:1], sent: r.ticks, change: true}
	change := proto.CloneOf(p.Change)
	change.Context = EncodeBatch(Batch{Origin: r.cfg.Origin, Sequence: b.sequence, Term: b.term, Commands: [][]byte{p.Data}})
	data, err := proto.Marshal(change)
	if err == nil && r.propagate(raftpb.EntryConfChange, data, now) {
		r.launched(b, data, now)
		c.waiting = slices.Clone(c.waiting[1:])
		return
	}
	r.blocked = true
}

// propagate gives raft an entry to append or to pass on to the leader. False: it was dropped, or turned into nothing.
func (r *Replica) propagate(typ raftpb.EntryType, data []byte, now view) bool {
	m := &raftpb.Message{
		Type: raftpb.MsgProp.Enum(), From: new(r.cfg.ID), Entries: []*raftpb.Entry{{Type: typ.Enum(), Data: data}},
	}
	return r.node.Step(m) == nil && r.changes.took(m, typ, now)
}

// took notes that raft was given m, whose entry was of the type. On a leader it looks whether raft turned it down.
func (c *changes) took(m *raftpb.Message, typ raftpb.EntryType, now view) bool {
	if typ != raftpb.EntryConfChange || now.role != Leader {
		return true
	}
	if m.GetEntries()[0].GetType() != typ {
		return false
	}
	c.stepped, c.term = true, now.term
	return true
}

// appended looks for changes in what goes to the log.
func (c *changes) appended(entries []*raftpb.Entry) {
	for _, e := range entries {
		if e.GetType() == raftpb.EntryConfChange && e.GetTerm() == c.term {
			c.stepped, c.index = false, e.GetIndex()
		}
	}
}

// expire removes the changes that were for another term than this one, and returns them.
func (c *changes) expire(term uint64) (gone []*Proposal) {
	if len(c.waiting) == 0 {
		return nil
	}
	var rest []*Proposal
	for _, p := range c.waiting {
		if p.Term != 0 && p.Term != term {
			gone = append(gone, p)
		} else {
			rest = append(rest, p)
		}
	}
	c.waiting = rest
	return gone
}

// batchOf returns the encoded batch of an entry: that of a change is its context.
func batchOf(e *raftpb.Entry) ([]byte, *raftpb.ConfChange) {
	if e.GetType() != raftpb.EntryConfChange {
		return e.GetData(), nil
	}
	cc := new(raftpb.ConfChange)
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		return nil, new(raftpb.ConfChange)
	}
	return cc.GetContext(), cc
}

// configure makes the changes of applied entries effective in raft. Of a change that was refused, or that a checkpoint
// covers from which raft has its configuration already, raft is told that nothing came of it.
func (r *Replica) configure(entries []Entry) {
	for _, e := range entries {
		if e.ConfChange == nil || e.Index <= r.changes.restored {
			continue
		}
		cc := &raftpb.ConfChange{Type: e.ConfChange.Type, NodeId: e.ConfChange.NodeId}
		if e.Refused {
			cc.NodeId = new(uint64(0))
		}
		r.node.ApplyConfChange(cc)
	}
}

// stepSnapshot gives raft the message of a received checkpoint, and looks at once whether it takes it: from then on its
// configuration is the checkpoint's, and what is still to be applied of earlier entries must not change it any more.
func (r *Replica) stepSnapshot(m *raftpb.Message) error {
	if r.changes.early != nil {
		return ErrRefused // the one before is not even handed out; the sender tries again
	}
	if err := r.stepNow(m); err != nil || !r.node.HasReady() {
		return err
	}
	rd := r.node.Ready()
	r.changes.early = &rd
	for _, out := range rd.Messages {
		if s := out.GetSnapshot(); s != nil && out.GetFrom() == r.cfg.ID {
			r.changes.restored = max(r.changes.restored, s.GetMetadata().GetIndex())
		}
	}
	return nil
}

// ConfState returns what raft is told of a configuration in which these members vote and those learn.
func ConfState(voters, learners []uint64) *raftpb.ConfState {
	return &raftpb.ConfState{Voters: voters, Learners: learners, AutoLeave: new(false)}
}

// Configuration returns the members that vote and those that learn, ascending, as raft counts them now.
func (r *Replica) Configuration() (voters, learners []uint64) {
	c := r.node.Status().Config
	for id := range c.Learners {
		learners = append(learners, id)
	}
	slices.Sort(learners)
	return c.Voters[0].Slice(), learners
}
