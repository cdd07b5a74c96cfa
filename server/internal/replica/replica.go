package replica

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Errors of [Replica]'s methods.
var (
	// ErrQueueFull says that a proposal or read was not accepted: it has not happened and will not.
	ErrQueueFull = errors.New("replica: queue full")
	// ErrRefused says that a message was not given to raft: it can not come from a member that works by the rules, or
	// nobody can be waiting for its answer.
	ErrRefused = errors.New("replica: message refused")
)

// Replica is one member's part of the replicated log. It is owned by one loop. See the package comment.
type Replica struct {
	cfg  Config
	node *raft.RawNode
	log  *memLog

	ticks uint64
	view  view // as of the last call of Work

	queue   queue
	pending []*batch // unresolved, in order of sequence
	serial  uint64   // the last batch's sequence
	blocked bool     // raft dropped our last batch; try again when something has changed
	office  office   // what a leader remembers about the batches it appended
	reads   reads
	changes changes

	answers
	gathering
	last     uint64 // the last index handed out in an Append
	applied  uint64 // the last index acknowledged by Applied
	appends  handed
	applies  handed
	hard     hardState
	unsynced bool // an Append without Sync has changed more than the commit index
}

// answers are what goes to other members with the next Work.
type answers struct {
	outbox []*raftpb.Message // what waited for an append
	acked  ack               // the last acknowledgement among them
}

// handed counts instructions that were handed out and acknowledged. Both happen in the same order.
type handed struct{ out, back uint64 }

// acknowledge takes back the instruction of the given number, which must be the oldest.
func (h *handed) acknowledge(number uint64) {
	h.back++
	if number != h.back {
		panic(fmt.Sprintf("replica: instruction %d acknowledged in place of %d", number, h.back))
	}
}

// hardState is what raft last wanted written of its term and vote.
type hardState struct{ term, vote uint64 }

// ack is an acknowledgement of the log up to index, and when it was sent.
type ack struct{ to, term, index, tick uint64 }

// view is what the replica knows about its node at one moment.
type view struct {
	term, leader, commit uint64
	role                 Role
	transferee           uint64
}

// New returns a replica that continues from c.Log. It starts as a follower without a leader.
func New(c Config) (*Replica, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	hs := c.Log.hardState(c.Applied)
	r := &Replica{
		cfg: c, log: newMemLog(c.Log, hs, c.MaxLogBytes), applied: c.Applied,
		hard: hardState{hs.GetTerm(), hs.GetVote()},
	}
	r.last = r.log.last()
	var err error
	r.node, err = raft.NewRawNode(&raft.Config{
		ID:                        c.ID,
		ElectionTick:              c.ElectionTicks,
		HeartbeatTick:             c.HeartbeatTicks,
		Storage:                   r.log,
		Applied:                   c.Applied,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             maxAppendBytes,
		MaxCommittedSizePerReady:  maxApplyingBytes,
		MaxUncommittedEntriesSize: maxUncommittedBytes,
		MaxInflightMsgs:           maxInflightAppends,
		MaxInflightBytes:          maxInflightBytes,
		CheckQuorum:               true,
		PreVote:                   true,
		StepDownOnRemoval:         true,
		ReadOnlyOption:            raft.ReadOnlySafe,
		Logger:                    c.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("replica: start raft: %w", err)
	}
	r.view = r.look()
	r.log.trim(r.applied)
	r.cfg.Log = Recovered{} // the log owns it now, and trims it
	return r, nil
}

// Tick advances raft's clock by one. After a long stall the owner steps what has arrived before it ticks, and does not
// make up for missed ticks.
func (r *Replica) Tick() {
	r.ticks++
	r.blocked = false
	r.node.Tick()
}

// Step takes a message from another member. An error says that it was not used; nothing else follows from it. For a
// MsgSnap, the checkpoint it names was received and is durable, but not installed: [Append].Snapshot asks for that, if
// raft still wants it.
func (r *Replica) Step(m *raftpb.Message) error {
	if err := r.admit(m); err != nil {
		return err
	}
	switch {
	case m.GetType() == raftpb.MsgReadIndex && r.vouched(m):
		return nil
	case m.GetType() == raftpb.MsgSnap:
		return r.stepSnapshot(m)
	case m.GetType() == raftpb.MsgProp && r.holding(r.look()) && r.held.put(m):
		return nil
	}
	return r.stepNow(m)
}

// stepNow gives raft an admitted message.
func (r *Replica) stepNow(m *raftpb.Message) error {
	var typ raftpb.EntryType
	if m.GetType() == raftpb.MsgProp {
		typ = m.GetEntries()[0].GetType()
	}
	if err := r.node.Step(m); err != nil {
		return fmt.Errorf("replica: step %s from %x: %w", m.GetType(), m.GetFrom(), err)
	}
	if m.GetType() == raftpb.MsgProp {
		r.changes.took(m, typ, r.look())
		r.office.appended(m)
	}
	return nil
}

// admit refuses what raft itself would take from anybody: local messages, messages in the name of this member, and
// proposals and reads that this member can not serve.
func (r *Replica) admit(m *raftpb.Message) error {
	if raft.IsLocalMsg(m.GetType()) || m.GetFrom() == r.cfg.ID || m.GetTo() != r.cfg.ID {
		return fmt.Errorf("%w: %s from %x to %x at %x", ErrRefused, m.GetType(), m.GetFrom(), m.GetTo(), r.cfg.ID)
	}
	switch m.GetType() {
	case raftpb.MsgProp:
		return r.admitProposal(m)
	case raftpb.MsgReadIndex:
		if len(m.GetEntries()) != 1 {
			return fmt.Errorf("%w: a read index without an id", ErrRefused)
		}
		// Raft would pass it on to the leader it believes in; the reader asks again by itself, and of the right one.
		if now := r.look(); now.role != Leader || !r.reads.ready(now) && r.voters() == 1 {
			return fmt.Errorf("%w: a read index is asked of a member that can not answer", ErrRefused)
		}
	}
	return nil
}

// Campaign makes the member stand for election now, if its log allows. It first asks whether it could win.
func (r *Replica) Campaign() { _ = r.node.Campaign() } // the only errors are raft's refusals, which it logs

// ForgetLeader makes a follower willing to vote although it heard from its leader a moment ago: for use when the
// leader's process is known to be gone.
func (r *Replica) ForgetLeader() { _ = r.node.ForgetLeader() }

// TransferLeader asks the leader, this or another member, to hand its office to a voter. Given up by raft after an
// election timeout. Proposals wait meanwhile.
func (r *Replica) TransferLeader(to uint64) { r.node.TransferLeader(to) }

// ReportUnreachable tells that messages to a member were lost.
func (r *Replica) ReportUnreachable(id uint64) { r.node.ReportUnreachable(id) }

// ReportSnapshot tells how a MsgSnap to a member ended. It must be called for each, or the member gets nothing more.
func (r *Replica) ReportSnapshot(id uint64, ok bool) {
	status := raft.SnapshotFinish
	if !ok {
		status = raft.SnapshotFailure
	}
	r.node.ReportSnapshot(id, status)
}

// Work returns what is to be done now, or false if nothing is. The owner calls it until then, after every input.
func (r *Replica) Work() (Work, bool) {
	var w Work
	now := r.look()
	if now.term != r.view.term || now.leader != r.view.leader || now.role != r.view.role {
		w.Changed = true
		r.blocked = false
	}
	r.view = now
	r.flight.committed(now.commit)
	w.Retry = append(r.queue.expire(now.term), r.changes.expire(now.term)...)
	if !r.holding(now) {
		r.release()
		r.propose(now)
	}
	r.ask(now)
	w.Send, r.outbox = r.outbox, nil
	switch {
	case r.changes.early != nil:
		rd := *r.changes.early
		r.changes.early = nil
		r.take(rd, now, &w)
	case r.node.HasReady():
		r.take(r.node.Ready(), now, &w)
	}
	some := w.Changed || w.Append != nil || w.Apply != nil ||
		len(w.Send) > 0 || len(w.Reads) > 0 || len(w.Retry) > 0 || len(w.Unknown) > 0
	return w, some
}

// take sorts one Ready into w. Raft's own fields other than Messages and ReadStates only repeat what the messages say.
func (r *Replica) take(rd raft.Ready, now view, w *Work) {
	for _, m := range rd.Messages {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			w.Append = r.newAppend(m, now)
			r.superseded(m.GetSnapshot(), w)
		case raft.LocalApplyThread:
			w.Apply = r.newApply(m, w)
		default:
			w.Send = append(w.Send, m)
		}
	}
	for _, rs := range rd.ReadStates {
		if done, ok := r.reads.confirm(rs, r.cfg.Origin, now); ok {
			w.Reads = append(w.Reads, done)
		}
	}
}

// newAppend builds the instruction and decides whether it needs a sync: when answers wait for it and it, or an earlier
// one that was not synced, changed anything but the commit index. A lost commit index does no harm, which spares a
// follower one sync of two; a lost entry, term or vote that somebody was told of breaks raft.
func (r *Replica) newAppend(m *raftpb.Message, now view) *Append {
	r.appends.out++
	a := &Append{Entries: m.GetEntries(), Snapshot: m.GetSnapshot(), number: r.appends.out, responses: m.GetResponses()}
	durable := len(a.Entries) > 0 || a.Snapshot != nil
	if m.GetTerm() != 0 { // raft sets all three or none, and a term it writes is never 0
		a.HardState = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
		hard := hardState{m.GetTerm(), m.GetVote()}
		durable = durable || hard != r.hard
		r.hard = hard
	}
	r.unsynced = r.unsynced || durable
	a.Sync = r.unsynced && len(a.responses) > 0
	if a.Sync {
		r.unsynced = false
	}
	if a.Snapshot != nil {
		r.last = a.Snapshot.GetMetadata().GetIndex()
	}
	if n := len(a.Entries); n > 0 {
		r.last = a.Entries[n-1].GetIndex()
		r.reads.appended(a.Entries, now)
		r.flight.appended(a.Entries, now)
		r.changes.appended(a.Entries)
	}
	return a
}

// Appended says that a was written, and synced as far as it or an earlier one not yet acknowledged asked for. Calls
// come in the order of the Appends. Answers to other members are in the next Work.
func (r *Replica) Appended(a *Append) {
	r.appends.acknowledge(a.number)
	// The memory log comes first: a response makes raft look for the entries there.
	if a.Snapshot != nil {
		meta := a.Snapshot.GetMetadata()
		r.log.reset(Snapshot{Index: meta.GetIndex(), Term: meta.GetTerm(), ConfState: meta.GetConfState()})
		r.applied = max(r.applied, meta.GetIndex())
	}
	r.log.append(a.Entries)
	for _, m := range a.responses {
		if m.GetTo() == r.cfg.ID {
			_ = r.node.Step(m) // raft ignores what a change of term has overtaken
		} else {
			r.answer(m)
		}
	}
}

// answer queues a message that waited for durability. An acknowledgement covers all before it, so a later one of the
// same term takes the place of the one right before it; a rejection is never dropped.
//
// What was acknowledged already in the same term is not acknowledged again at once: a leader sends every commit on to
// its followers, and the answer to that tells it nothing. Should the first one have been lost, or the leader be probing,
// it asks again after its next heartbeat, and by then the answer is due.
func (r *Replica) answer(m *raftpb.Message) {
	if m.GetType() == raftpb.MsgAppResp && !m.GetReject() {
		last := r.acked
		r.acked = ack{m.GetTo(), m.GetTerm(), m.GetIndex(), r.ticks}
		if last.to == r.acked.to && last.term == r.acked.term && last.index == r.acked.index &&
			r.ticks-last.tick < uint64(r.cfg.HeartbeatTicks) {
			r.acked.tick = last.tick
			return
		}
		for i := len(r.outbox) - 1; i >= 0; i-- {
			prev := r.outbox[i]
			if prev.GetTo() != m.GetTo() {
				continue
			}
			if prev.GetType() != raftpb.MsgAppResp || prev.GetReject() || prev.GetTerm() != m.GetTerm() {
				break
			}
			if prev.GetIndex() < m.GetIndex() {
				r.outbox[i] = m
			}
			return
		}
	}
	r.outbox = append(r.outbox, m)
}

func (r *Replica) newApply(m *raftpb.Message, w *Work) *Apply {
	r.applies.out++
	a := &Apply{Entries: make([]Entry, len(m.GetEntries())), number: r.applies.out, response: m.GetResponses()[0]}
	for i, e := range m.GetEntries() {
		a.Entries[i] = r.open(e, w)
	}
	return a
}

// open decodes a committed entry and settles what it tells about our batches.
func (r *Replica) open(e *raftpb.Entry, w *Work) Entry {
	out, b, err := decodeEntry(e)
	if err != nil {
		panic(fmt.Sprintf("replica: committed entry %d: %v", out.Index, err))
	}
	r.overtaken(out.Term, w)
	if out.Commands != nil && b.Origin == r.cfg.Origin {
		out.Proposals = r.committed(b, w)
	}
	return out
}

// Decode returns an entry of the log as it is handed out in an [Apply], without proposals.
func Decode(e *raftpb.Entry) (Entry, error) {
	out, _, err := decodeEntry(e)
	return out, err
}

// decodeEntry returns an entry and its batch, whose commands the entry has only if they count. A change of members that
// does not count is refused; so is one of a form that this package does not make.
func decodeEntry(e *raftpb.Entry) (Entry, Batch, error) {
	out := Entry{Index: e.GetIndex(), Term: e.GetTerm()}
	if e.GetType() == raftpb.EntryConfChangeV2 {
		return out, Batch{}, nil
	}
	data, cc := batchOf(e)
	out.ConfChange = cc
	if len(data) == 0 {
		out.Refused = cc != nil
		return out, Batch{}, nil
	}
	b, err := DecodeBatch(data)
	switch {
	case cc != nil && (err != nil || b.Term != out.Term):
		out.Refused = true
	case err != nil:
		return out, b, err
	case b.Term == out.Term:
		out.Commands = b.Commands
	}
	return out, b, nil
}

// Applied says that a was applied. Calls come in the order of the Applies.
func (r *Replica) Applied(a *Apply) {
	r.applies.acknowledge(a.number)
	r.configure(a.Entries)
	r.applied = max(r.applied, a.Entries[len(a.Entries)-1].Index)
	r.blocked = false
	_ = r.node.Step(a.response)
	r.log.trim(min(r.applied, r.log.snapshot.Index))
}

// Checkpointed says that a durable checkpoint exists at s and can be sent to other members. Entries that it holds may
// be dropped from memory. An older one than the last is ignored.
func (r *Replica) Checkpointed(s Snapshot) {
	if s.Index <= r.log.snapshot.Index {
		return
	}
	r.log.snapshot = s
	r.log.trim(min(r.applied, s.Index))
}
