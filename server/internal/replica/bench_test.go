package replica

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// BenchmarkPropose64 measures three replicas in one goroutine that commit 64 proposals of 64 bytes packed in one
// entry, without storage, wire or state machine. An operation is one proposal.
func BenchmarkPropose64(b *testing.B) {
	c := newCluster(b, 3, Config{MaxBatchesInFlight: 1})
	m := c.elect(1)
	data := make([]byte, 64)
	var wire []*raftpb.Message
	done := 0
	turn := func(m *member) (some bool) {
		for {
			w, ok := m.Work()
			if !ok {
				return some
			}
			some = true
			wire = append(wire, w.Send...)
			if w.Append != nil {
				m.Appended(w.Append)
			}
			if w.Apply != nil {
				for _, e := range w.Apply.Entries {
					done += len(e.Proposals)
					if e.Index%1000 == 0 {
						m.Checkpointed(Snapshot{Index: e.Index, Term: e.Term, ConfState: m.confs})
					}
				}
				m.Applied(w.Apply)
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if m.queue.len() < 63 {
			_ = m.Propose(&Proposal{Data: data})
			continue
		}
		_ = m.Propose(&Proposal{Data: data})
		for some := true; some; {
			some = false
			for _, m := range c.members {
				some = turn(m) || some
			}
			for _, msg := range wire {
				_ = c.at(msg.GetTo()).Step(msg)
			}
			wire = wire[:0]
		}
	}
	if done < b.N-128 {
		b.Fatalf("%d of %d proposals were committed", done, b.N)
	}
}
