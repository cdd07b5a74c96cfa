package replica

import (
	"bytes"
	"encoding/binary"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// reads gathers linearizable reads and has one batch of them confirmed at a time.
type reads struct {
	waiting []any // arrived since the batch on its way was asked for

	asking  []any // the batch on its way; nil when there is none
	id      []byte
	counter uint64 // of attempts, for fresh ids
	term    uint64 // of the attempt; 0: it has yet to be made
	leader  uint64
	sent    uint64 // tick of the attempt

	// firstTerm and first tell the index of the first entry that this member appended as leader, and in which term.
	firstTerm, first uint64
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
	if q.asking != nil && (q.term != now.term || q.leader != now.leader || r.ticks-q.sent >= r.readTimeout()) {
		q.term = 0
	}
	if q.asking == nil && len(q.waiting) > 0 {
		q.asking, q.waiting, q.term = q.waiting, nil, 0
	}
	if q.asking == nil || q.term != 0 || !q.ready(now) {
		return
	}
	q.counter++
	q.id = binary.LittleEndian.AppendUint64(make([]byte, 0, 16), r.cfg.Origin)
	q.id = binary.LittleEndian.AppendUint64(q.id, q.counter)
	q.term, q.leader, q.sent = now.term, now.leader, r.ticks
	r.node.ReadIndex(q.id)
}

func (r *Replica) readTimeout() uint64 { return uint64(max(1, r.cfg.ElectionTicks/2)) }

// ready tells whether the leader can be asked: there is one, and if it is this member, then an entry of its term is
// committed. Before that a leader does not know all that is committed. Raft checks the same, except in a cluster of
// one voter, which would answer from a commit index that a restart has set back.
func (q *reads) ready(now view) bool {
	if now.role == Leader {
		return q.firstTerm == now.term && now.commit >= q.first
	}
	return now.leader != 0
}

// appended notes the first entry of a leader's own term.
func (q *reads) appended(entries []*raftpb.Entry, now view) {
	if now.role != Leader || q.firstTerm == now.term {
		return
	}
	for _, e := range entries {
		if e.GetTerm() == now.term {
			q.firstTerm, q.first = now.term, e.GetIndex()
			return
		}
	}
}

// confirm takes raft's answer. It counts only for the newest attempt, in its own term and under the same leader.
func (q *reads) confirm(rs raft.ReadState, now view) (Reads, bool) {
	if q.asking == nil || q.term == 0 || q.term != now.term || q.leader != now.leader || !bytes.Equal(q.id, rs.RequestCtx) {
		return Reads{}, false
	}
	done := Reads{Index: rs.Index, Values: q.asking}
	q.asking, q.term = nil, 0
	return done, true
}
