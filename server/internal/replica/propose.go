package replica

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// queue holds proposals that were not packed yet, oldest first.
type queue struct {
	proposals []*Proposal
	head      int // proposals[:head] are packed
	bytes     int
	fenced    int // how many have a Term
}

func (q *queue) len() int { return len(q.proposals) - q.head }

func (q *queue) push(p *Proposal) {
	q.proposals = append(q.proposals, p)
	q.bytes += len(p.Data)
	if p.Term != 0 {
		q.fenced++
	}
}

// expire removes the proposals that were for another term than this one, and returns them.
func (q *queue) expire(term uint64) (gone []*Proposal) {
	if q.fenced == 0 {
		return nil
	}
	var rest queue
	for _, p := range q.proposals[q.head:] {
		if p.Term != 0 && p.Term != term {
			gone = append(gone, p)
		} else {
			rest.push(p)
		}
	}
	if len(gone) > 0 {
		*q = rest
	}
	return gone
}

// next returns the oldest proposals that fit in one entry of maxBytes, at least one, and the size of their commands as
// encoded. They stay queued.
func (q *queue) next(maxBytes int) ([]*Proposal, int) {
	size, n := 0, 0
	for _, p := range q.proposals[q.head:] {
		s := commandSize(p.Data)
		if n > 0 && size+s > maxBytes {
			break
		}
		size += s
		n++
	}
	return q.proposals[q.head : q.head+n], size
}

// drop removes the n oldest proposals. Those who hold a slice from next keep it: the array is not reused.
func (q *queue) drop(n int) {
	for _, p := range q.proposals[q.head : q.head+n] {
		q.bytes -= len(p.Data)
		if p.Term != 0 {
			q.fenced--
		}
	}
	q.head += n
	if q.head == len(q.proposals) {
		q.proposals, q.head = nil, 0
	}
}

// batch is a proposed and unresolved batch of this member.
type batch struct {
	sequence, term uint64
	proposals      []*Proposal
	data           []byte // the encoding, to send it again; nil if this member led and so appended it itself
	sent           uint64 // tick
	hidden         bool   // an installed checkpoint may hold it
	change         bool   // of members; data is the configuration change
}

// Propose queues p. It is packed and sent when there is a leader and room in the pipeline, and waits until then. The
// only error is [ErrQueueFull], which says that p is not proposed. The outcome is in [Entry.Proposals], [Work.Retry] or
// [Work.Unknown].
func (r *Replica) Propose(p *Proposal) error {
	if p.Change != nil {
		if len(r.changes.waiting) >= maxChanges {
			return ErrQueueFull
		}
		r.changes.waiting = append(r.changes.waiting, p)
		return nil
	}
	if r.queue.len() >= r.cfg.MaxQueued || r.queue.bytes+len(p.Data) > r.cfg.MaxQueueBytes {
		return ErrQueueFull
	}
	r.queue.push(p)
	return nil
}

// propose packs what waits, as far as the pipeline has room, and repeats batches that may have been lost.
func (r *Replica) propose(now view) {
	if now.leader == 0 || r.blocked {
		return
	}
	r.repeat(now)
	flying, hidden := 0, false
	for _, b := range r.pending {
		switch {
		case b.term != now.term: // resolved by this term's first entry, whatever we do
		case b.hidden:
			hidden = true
		case b.change: // does not hold up others
		default:
			flying++
		}
	}
	// An empty batch makes sure that something of ours follows what a checkpoint has hidden, and so settles it.
	if hidden && flying == 0 && r.queue.len() == 0 {
		r.pack(now)
		return
	}
	r.proposeChange(now)
	for ; r.queue.len() > 0 && flying < r.cfg.MaxBatchesInFlight && !r.blocked; flying++ {
		r.pack(now)
	}
}

// pack proposes one batch of what waits. If raft drops it, everything stays as it was and the replica is blocked.
func (r *Replica) pack(now view) {
	proposals, size := r.queue.next(r.cfg.MaxEntryBytes)
	b := &batch{sequence: r.serial + 1, term: now.term, proposals: proposals, sent: r.ticks}
	data := make([]byte, 0, batchHeaderSize(b.sequence, b.term, len(proposals))+size)
	data = appendBatchHeader(data, r.cfg.Origin, b.sequence, b.term, len(proposals))
	for _, p := range proposals {
		data = appendCommand(data, p.Data)
	}
	if r.node.Propose(data) != nil {
		r.blocked = true
		return
	}
	r.launched(b, data, now)
	r.queue.drop(len(proposals))
}

// launched notes a batch that raft has taken.
func (r *Replica) launched(b *batch, data []byte, now view) {
	if now.role != Leader {
		b.data = data
	}
	r.serial++
	r.pending = append(r.pending, b)
}

// repeat sends a follower's batches of this term again when the oldest was not resolved for an election timeout: the
// message was lost, or refused by a leader that was handing over. All are sent, in order, because a leader that took a
// later one refuses an earlier one.
func (r *Replica) repeat(now view) {
	late := false
	for _, b := range r.pending {
		if b.term != now.term || b.data == nil {
			continue
		}
		late = late || r.ticks-b.sent >= uint64(r.cfg.ElectionTicks)
		if late {
			b.sent = r.ticks
			typ := raftpb.EntryNormal
			if b.change {
				typ = raftpb.EntryConfChange
			}
			if !r.propagate(typ, b.data, now) {
				return
			}
		}
	}
}

// overtaken settles the batches that an entry of a later term proves dead.
func (r *Replica) overtaken(term uint64, w *Work) {
	n := 0
	for ; n < len(r.pending) && r.pending[n].term < term; n++ {
		r.dead(r.pending[n], w)
	}
	r.resolve(n)
}

// committed settles the batch that was handed out and the earlier ones that it proves dead, since the leader appends
// the batches of one term in order.
func (r *Replica) committed(b Batch, w *Work) []*Proposal {
	n := 0
	for ; n < len(r.pending) && r.pending[n].sequence < b.Sequence; n++ {
		r.dead(r.pending[n], w)
	}
	if n == len(r.pending) || r.pending[n].sequence != b.Sequence || len(r.pending[n].proposals) != len(b.Commands) {
		panic(fmt.Sprintf("replica: batch %d of term %d was committed but is not pending", b.Sequence, b.Term))
	}
	out := r.pending[n].proposals
	r.resolve(n + 1)
	return out
}

func (r *Replica) dead(b *batch, w *Work) {
	if b.hidden {
		w.Unknown = append(w.Unknown, b.proposals...)
	} else {
		w.Retry = append(w.Retry, b.proposals...)
	}
}

// resolve forgets the n oldest pending batches.
func (r *Replica) resolve(n int) {
	if n == 0 {
		return
	}
	rest := copy(r.pending, r.pending[n:])
	clear(r.pending[rest:])
	r.pending = r.pending[:rest]
}

// superseded settles batches when a checkpoint replaces entries that were not handed out: those of earlier terms than
// the checkpoint's were in these entries or nowhere, those of its term may also follow. From here on raft hands out
// only entries behind the checkpoint.
func (r *Replica) superseded(s *raftpb.Snapshot, w *Work) {
	if s == nil {
		return
	}
	term := s.GetMetadata().GetTerm()
	for _, b := range r.pending {
		b.hidden = b.hidden || b.term <= term
	}
	r.overtaken(term, w)
}

// gathering is why a leader lets proposals wait, and those of the others that do.
type gathering struct {
	flight flight
	held   held
}

// held are other members' proposals that wait for the leader's next write.
type held struct {
	messages []*raftpb.Message
	commands int
	bytes    int
}

// maxHeldBytes bounds the proposals that wait for the next write; more are appended at once.
const maxHeldBytes = 1 << 20

// put takes a message, unless there are too many.
func (h *held) put(m *raftpb.Message) bool {
	n := len(m.GetEntries()[0].GetData())
	if h.bytes+n > maxHeldBytes {
		return false
	}
	h.messages, h.bytes = append(h.messages, m), h.bytes+n
	h.commands += commandsIn(m.GetEntries()[0])
	return true
}

// holding tells a leader to gather proposals. Gathered, they are one write, one message to each of the others and one
// acknowledgement in place of many, on each of the members. What waits goes once the last entries are committed, or
// before that when they are written here and as much waits as is under way: so where a commit takes long because the
// members are far apart, at most half of the proposals wait for a round that is not theirs. While the leader has still
// to write it waits for the commit alone, which its slow disk does not hold up.
func (r *Replica) holding(now view) bool {
	if now.role != Leader || r.last <= now.commit {
		return false
	}
	return r.appends.out != r.appends.back || r.queue.len()+r.held.commands < r.flight.commands
}

// flight is how many commands a leader has appended and does not know to be committed.
type flight struct {
	appends  []flown
	commands int
}

// flown is an append's last index, and how many commands it has.
type flown struct {
	index    uint64
	commands int
}

// appended notes what an append hands out. What a former leader had under way is not its business any more.
func (f *flight) appended(entries []*raftpb.Entry, now view) {
	if now.role != Leader {
		*f = flight{}
		return
	}
	n := 0
	for _, e := range entries {
		n += commandsIn(e)
	}
	f.appends = append(f.appends, flown{entries[len(entries)-1].GetIndex(), n})
	f.commands += n
}

// committed forgets what is.
func (f *flight) committed(index uint64) {
	n := 0
	for ; n < len(f.appends) && f.appends[n].index <= index; n++ {
		f.commands -= f.appends[n].commands
	}
	f.appends = slices.Delete(f.appends, 0, n)
}

// release gives raft what was held, in order. If this member does not lead any more, it is refused like all that comes
// too late, and the proposer sees that by the term.
func (r *Replica) release() {
	messages := r.held.messages
	r.held = held{}
	for _, m := range messages {
		if r.admit(m) == nil {
			_ = r.stepNow(m) // raft drops it, as it may at any time
		}
	}
}

// office is a leader's memory of the batches it appended in its term: the last sequence of each origin.
type office struct {
	term  uint64
	last  map[uint64]uint64
	order []uint64 // origins, oldest first, to bound the map
}

// admitProposal refuses a batch that would count for nothing in the log, or twice: rules 1 and 2 of the package
// comment. A member that does not lead refuses all; to pass one on would be no use, because the batch's term is over
// or has no other leader.
func (r *Replica) admitProposal(m *raftpb.Message) error {
	now := r.look()
	if now.role != Leader {
		return fmt.Errorf("%w: a proposal from %x, but this member does not lead", ErrRefused, m.GetFrom())
	}
	if len(m.GetEntries()) != 1 {
		return fmt.Errorf("%w: a proposal of %d entries from %x", ErrRefused, len(m.GetEntries()), m.GetFrom())
	}
	data, cc := batchOf(m.GetEntries()[0])
	b, err := checkBatch(data)
	switch {
	case err != nil:
		return fmt.Errorf("%w: a proposal from %x: %w", ErrRefused, m.GetFrom(), err)
	case cc != nil && (cc.GetNodeId() == 0 || cc.GetType() > raftpb.ConfChangeAddLearnerNode):
		return fmt.Errorf("%w: a change of no member from %x", ErrRefused, m.GetFrom())
	case cc != nil && !r.changePossible(now):
		return fmt.Errorf("%w: a change of members from %x while another is under way", ErrRefused, m.GetFrom())
	}
	if r.office.term != now.term {
		r.office = office{term: now.term, last: make(map[uint64]uint64)}
	}
	if b.Term != now.term || b.Sequence <= r.office.last[b.Origin] || b.Origin == r.cfg.Origin {
		return fmt.Errorf("%w: batch %d of term %d from %x is stale", ErrRefused, b.Sequence, b.Term, m.GetFrom())
	}
	return nil
}

// appended notes that raft took the batch in m, which was admitted before.
func (o *office) appended(m *raftpb.Message) {
	data, _ := batchOf(m.GetEntries()[0])
	b, _, _, err := decodeBatchHeader(data)
	if err != nil {
		return // a change that raft turned into nothing
	}
	if _, ok := o.last[b.Origin]; !ok {
		if len(o.order) == maxOrigins {
			delete(o.last, o.order[0])
			o.order = append(o.order[:0], o.order[1:]...)
		}
		o.order = append(o.order, b.Origin)
	}
	o.last[b.Origin] = b.Sequence
}
