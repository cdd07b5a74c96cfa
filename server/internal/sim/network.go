package sim

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// maxTransfer bounds how long a checkpoint is on its way, so that what began before everything was healed is over soon.
const maxTransfer = 500 * time.Millisecond

// network carries messages between members: late, twice, out of order or not at all, as the options say.
type network struct {
	s       *sim
	blocked map[[2]uint64]int              // cuts that hold on a link, by from and to
	healed  bool                           // for good
	last    map[[2]uint64][2]time.Duration // when the last message arrives, for links that keep the order, a stream each
}

func newNetwork(s *sim) *network {
	return &network{s: s, blocked: make(map[[2]uint64]int), last: make(map[[2]uint64][2]time.Duration)}
}

func (w *network) cut(from, to uint64)  { w.blocked[[2]uint64{from, to}]++ }
func (w *network) join(from, to uint64) { w.blocked[[2]uint64{from, to}]-- }

func (w *network) open(from, to uint64) bool { return w.healed || w.blocked[[2]uint64{from, to}] <= 0 }

// heal makes the network a good one: what is on its way still arrives late.
func (w *network) heal() {
	clear(w.blocked)
	w.healed = true
	w.s.Loss, w.s.Duplicate, w.s.TailChance = 0, 0, 0
}

func (w *network) delay() time.Duration {
	d := w.s.Delay/4 + w.s.around(w.s.Delay)
	if w.s.chance(w.s.TailChance) {
		d += w.s.around(w.s.Tail)
	}
	return d
}

// arrival draws when something sent now on a stream of a link arrives.
func (w *network) arrival(from, to uint64, stream int) time.Duration {
	at := w.s.now + w.delay()
	if !w.s.Reorder {
		link := w.last[[2]uint64{from, to}]
		at = max(at, link[stream]+1)
		link[stream] = at
		w.last[[2]uint64{from, to}] = link
	}
	return at
}

// send carries a raft message.
func (w *network) send(from *node, m *raftpb.Message) {
	s := w.s
	if t := m.GetType(); t == raftpb.MsgApp || t == raftpb.MsgHeartbeat {
		s.truth.leads(m.GetTerm(), from)
	}
	if m.GetType() == raftpb.MsgSnap {
		w.sendSnapshot(from, m)
		return
	}
	s.voted(from, m)
	s.Mutant.sent(from, m)
	to := s.nodes[m.GetTo()-1]
	if !w.open(from.id, to.id) || s.chance(s.Loss) {
		if s.chance(0.2) {
			epoch := from.epoch
			s.arriveAt(from, s.now+w.delay(), func() {
				if from.up && from.epoch == epoch {
					from.rep.ReportUnreachable(to.id)
					from.pump()
				}
			})
		}
		return
	}
	copies := 1
	if s.chance(s.Duplicate) {
		copies = 2
		s.counts.Repeated++
	}
	for copied := range copies {
		if copied > 0 {
			m = s.Mutant.repeated(m)
		}
		w.deliver(from.id, to, m)
	}
}

func (w *network) deliver(from uint64, to *node, m *raftpb.Message) {
	s := w.s
	stream := 1
	if t := m.GetType(); t == raftpb.MsgApp || t == raftpb.MsgProp {
		stream = 0
	}
	s.arriveAt(to, w.arrival(from, to.id, stream), func() {
		if !to.up || !w.open(from, to.id) {
			return
		}
		s.note("message", uint64(m.GetType()), from, to.id, m.GetTerm(), m.GetIndex(), m.GetCommit())
		if !to.welcome(from) || s.Mutant.answers(to, m) {
			return
		}
		_ = to.rep.Step(s.Mutant.arrived(to, m)) // what is refused is lost
		to.pump()
	})
}

// sendSnapshot streams the sender's durable checkpoint, which may be newer than the one that raft named.
func (w *network) sendSnapshot(from *node, m *raftpb.Message) {
	s := w.s
	to, ck, epoch := s.nodes[m.GetTo()-1], from.store, from.epoch
	m = proto.Clone(m).(*raftpb.Message)
	m.Snapshot.Metadata.Index, m.Snapshot.Metadata.Term, m.Snapshot.Metadata.ConfState = new(ck.index), new(ck.term), ck.conf
	takes := min(5*w.delay()+time.Duration(len(ck.rows))*10*time.Microsecond, maxTransfer)
	cut := s.chance(s.Loss * 2)
	// A checkpoint from before the receiver was a member is of no use to it. The server makes one first; here it is sent
	// with a later attempt.
	member := slices.Contains(ck.conf.GetVoters(), to.id) || slices.Contains(ck.conf.GetLearners(), to.id)
	if !member {
		from.save()
	}
	s.arriveAt(to, s.now+takes, func() {
		ok := to.up && !cut && w.open(from.id, to.id) && member && to.welcome(from.id)
		if ok {
			s.note("snapshot", from.id, to.id, ck.index, ck.term)
			to.received[ck.index] = ck // durable, but not installed
			_ = to.rep.Step(m)
			to.pump()
		}
		s.arriveAt(from, s.now+w.delay(), func() {
			if from.up && from.epoch == epoch {
				from.rep.ReportSnapshot(to.id, ok)
				from.pump()
			}
		})
	})
}

// call carries a small request between members, such as a renewal: fn runs on the other member if both ways are open.
func (w *network) call(from, to *node, fn func()) {
	if !w.open(from.id, to.id) || !w.open(to.id, from.id) || w.s.chance(w.s.Loss) {
		return
	}
	w.s.arriveAt(to, w.arrival(from.id, to.id, 1), func() {
		if to.up && w.open(from.id, to.id) {
			fn()
		}
	})
}
