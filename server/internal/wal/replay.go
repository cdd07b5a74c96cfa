package wal

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// replay is the log as far as it was read.
type replay struct {
	base    Base
	entries []*raftpb.Entry // contiguous from base.Index+1
	hard    hardState
	wrote   bool   // hard was set
	next    uint64 // number of the next batch
	synced  uint64 // the highest batch that is known to have been durable
	chain   uint32
}

func (r *replay) last() Base {
	if n := len(r.entries); n > 0 {
		return Base{Index: r.entries[n-1].GetIndex(), Term: r.entries[n-1].GetTerm()}
	}
	return r.base
}

// begin goes on to a segment. The oldest one is taken at its word, as everything before it was released. A reason is
// given when the segment does not continue what was read.
func (r *replay) begin(h *segmentHeader, oldest bool) (reason string) {
	switch {
	case oldest:
		r.next, r.base = h.batch, h.base
	case h.batch != r.next || h.previous != r.chain:
		return fmt.Sprintf("the segment begins with batch %d and does not continue the one before, which ends before batch %d",
			h.batch, r.next)
	case h.reset:
		r.base, r.entries = h.base, nil
	case h.base.Index > r.last().Index:
		return fmt.Sprintf("the segment begins after entry %d, and the one before ends with entry %d", h.base.Index, r.last().Index)
	case h.base.Index < r.base.Index:
		r.base, r.entries = h.base, nil
	default:
		r.entries = r.entries[:h.base.Index-r.base.Index]
		if last := r.last(); last != h.base {
			return fmt.Sprintf("the segment begins after entry %d of term %d, which has term %d in the one before",
				h.base.Index, h.base.Term, last.Term)
		}
	}
	r.chain = h.chain
	r.synced = h.batch // a segment gets its name after its first batch was durable
	return ""
}

// apply takes in a batch that verified. A reason is given when it makes no sense all the same.
func (r *replay) apply(f *frame, payload []byte, h *segmentHeader) (reason string) {
	entries, reason := decodeEntries(payload, f)
	if reason != "" {
		return reason
	}
	if f.synced >= f.batch {
		return fmt.Sprintf("batch %d says that batch %d was durable before it", f.batch, f.synced)
	}
	if f.count > 0 {
		if f.first <= h.base.Index || f.first > r.last().Index+1 {
			return fmt.Sprintf("batch %d has entries from %d, which do not join a log of %d to %d",
				f.batch, f.first, h.base.Index+1, r.last().Index)
		}
		r.entries = append(r.entries[:f.first-r.base.Index-1], entries...)
	}
	if f.hasHard {
		r.hard, r.wrote = f.hard, true
	}
	r.synced = max(r.synced, f.synced)
	r.next++
	return ""
}
