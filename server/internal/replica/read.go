package replica

import (
	"encoding/binary"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// readIDLen is the length of an attempt's id: the origin, a counter and the term, 8 bytes each.
const readIDLen = 24

// reads gathers linearizable reads and has one batch of them confirmed at a time.
type reads struct {
	waiting []any // arrived since the batch on its way was asked for

	asking  []any  // the batch on its way; nil when there is none
	counter uint64 // of attempts, for fresh ids
	first   uint64 // the counter of the batch's first attempt in its term and under its leader
	term    uint64 // of the attempts; 0: the first has yet to be made
	leader  uint64
	sent    uint64 // tick of the last attempt

	// ownTerm and ownIndex tell the index of the first entry that this member appended as leader, and in which term.
	ownTerm, ownIndex uint64
}

// Read queues a linearizable read: v comes back in [Work.Reads] with an index that no write acknowledged before this
// call lies above. It waits as long as no quorum can be reached. The only error is [ErrQueueFull].
func (r *Replica) Read(v any) error {
	if len(r.reads.waiting)+len(r.reads.asking) >= r.cfg.MaxQueued {
		return ErrQueueFull
	}
	r.reads.waiting = append(r.reads.waiting, v)
	return nil
}

// ask starts or repeats the confirmation of a batch of reads.
func (r *Replica) ask(now view) {
	q := &r.reads
	if q.asking != nil && (q.term != now.term || q.leader != now.leader) {
		q.term = 0
	}
	if q.asking == nil && len(q.waiting) > 0 {
		q.asking, q.waiting, q.term = q.waiting, nil, 0
	}
	late := r.ticks-q.sent >= r.readTimeout()
	if q.asking == nil || q.term != 0 && !late || !q.ready(now) {
		return
	}
	q.counter++
	if q.term == 0 {
		q.term, q.leader, q.first = now.term, now.leader, q.counter
	}
	q.sent = r.ticks
	id := binary.LittleEndian.AppendUint64(make([]byte, 0, readIDLen), r.cfg.Origin)
	id = binary.LittleEndian.AppendUint64(id, q.counter)
	r.node.ReadIndex(binary.LittleEndian.AppendUint64(id, now.term))
}

// vouched answers a follower's read index at once, if the question itself proves enough, and reports whether it did.
//
// A leader may answer when a quorum was in its term after the read began: then no later leader can have acknowledged a
// write before that moment. The asker was in the term that the id tells when it asked, which was after its reads had
// begun, and this member is in its term now. With at most three voters, of which the asker is one, these two are a
// quorum, and the round of heartbeats that raft would make proves nothing more. It answers for the asker's reads alone:
// others may have begun after it asked.
//
// The voters meant are those of the configuration C that this member has applied; others may have applied another. Say
// that a member was elected in a later term before the asker asked, and take the first such. All that was committed
// until then was committed in terms up to this member's, and is in this member's log: the changes up to C, and at most
// one more (see changes). The elected member's log has all of it too, and at most one change that it has not applied.
// So its configuration was C, the one before or the one after, and any majority of these has this member or the asker
// in it, which are a majority of C. That one was in the later term before the asker asked; but both are in this term
// after it. Contradiction. What the asker itself has applied, even whether it knows that it votes, plays no part.
func (r *Replica) vouched(m *raftpb.Message) bool {
	id := m.GetEntries()[0].GetData()
	now := r.look()
	if len(id) != readIDLen || binary.LittleEndian.Uint64(id[16:]) != now.term || now.role != Leader || !r.reads.ready(now) {
		return false
	}
	voters := r.node.Status().Config.Voters
	if _, ok := voters[0][m.GetFrom()]; !ok || len(voters[0]) > 3 || len(voters[1]) > 0 {
		return false
	}
	r.outbox = append(r.outbox, &raftpb.Message{
		Type: raftpb.MsgReadIndexResp.Enum(), From: new(r.cfg.ID), To: new(m.GetFrom()), Term: new(now.term),
		Index: new(now.commit), Entries: []*raftpb.Entry{{Data: id}},
	})
	return true
}

func (r *Replica) readTimeout() uint64 { return uint64(max(1, r.cfg.ElectionTicks/2)) }

// ready tells whether the leader can be asked: there is one, and if it is this member, then an entry of its term is
// committed. Before that a leader does not know all that is committed. Raft checks the same, except in a cluster of
// one voter, which would answer from a commit index that a restart has set back.
func (q *reads) ready(now view) bool {
	if now.role == Leader {
		return q.ownTerm == now.term && now.commit >= q.ownIndex
	}
	return now.leader != 0
}

// appended notes the first entry of a leader's own term.
func (q *reads) appended(entries []*raftpb.Entry, now view) {
	if now.role != Leader || q.ownTerm == now.term {
		return
	}
	for _, e := range entries {
		if e.GetTerm() == now.term {
			q.ownTerm, q.ownIndex = now.term, e.GetIndex()
			return
		}
	}
}

// confirm takes raft's answer. It counts only for an attempt of the present batch, in the term and under the leader of
// that attempt. Any of its attempts will do: each was made after all reads of the batch had arrived.
func (q *reads) confirm(rs raft.ReadState, origin uint64, now view) (Reads, bool) {
	if q.asking == nil || q.term == 0 || q.term != now.term || q.leader != now.leader || len(rs.RequestCtx) != readIDLen ||
		binary.LittleEndian.Uint64(rs.RequestCtx) != origin {
		return Reads{}, false
	}
	if attempt := binary.LittleEndian.Uint64(rs.RequestCtx[8:]); attempt < q.first || attempt > q.counter {
		return Reads{}, false
	}
	done := Reads{Index: rs.Index, Values: q.asking}
	q.asking, q.term = nil, 0
	return done, true
}
