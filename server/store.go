package server

import (
	"sync"
	"sync/atomic"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// store gives many readers the machine that one applier writes.
//
// A view is taken lazily, when a reader asks and something was applied since
// the last one: taking one makes later writes copy the tree nodes that they
// touch, so none is taken while nobody reads.
type store struct {
	applied atomic.Uint64 // index; stored under mu, after the machine has it
	view_   atomic.Pointer[state.View]
	auth    authority // set under mu, as applied is

	mu      sync.Mutex // protects machine; held for one batch, one view, one slice of a sweep
	machine *state.Machine

	waitMu sync.Mutex // protects waits
	waits  []readWait
}

// readWait is a group of reads that may be served once index is applied.
type readWait struct {
	index uint64
	reads []any // *outcome
}

func newStore(m *state.Machine) *store {
	s := &store{machine: m}
	index, _ := m.Applied()
	s.applied.Store(index)
	s.auth.set(m.Auth())
	return s
}

// view returns a view of everything applied before the call.
func (s *store) view() *state.View {
	if v := s.view_.Load(); v != nil {
		return v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.machine.View()
	s.view_.Store(v)
	return v
}

// with runs f on the machine, alone.
func (s *store) with(f func(m *state.Machine)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.machine)
}

// advanced publishes that the machine has applied index; the caller holds mu.
// The stale view is dropped rather than kept for the next reader to replace:
// nobody may come, and it would hold on to all that was written since.
func (s *store) advanced(index uint64) {
	s.view_.Store(nil)
	s.auth.set(s.machine.Auth())
	s.applied.Store(index)
}

// packSize tells the packing how large the machine is.
func (s *store) packSize() packSize {
	s.mu.Lock()
	defer s.mu.Unlock()
	return packSize{live: s.machine.Size().Live, keys: s.machine.KeysHeld()}
}

// shrink makes the event window small, and shows it to who holds on to the large one.
func (s *store) shrink(refresh func(state.History)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machine.Shrink()
	s.view_.Store(nil)
	refresh(s.machine.History())
}

// pack moves some of the machine's versions to new memory, from a key on, and
// returns where to go on. The view is dropped, as it would hold on to the old one.
func (s *store) pack(from string) (next string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = s.machine.Pack(from, packKeys)
	s.view_.Store(nil)
	return next
}

// replace puts a machine restored from a received checkpoint in place.
func (s *store) replace(m *state.Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machine = m
	index, _ := m.Applied()
	s.advanced(index)
}

// wake lets reads go on: at once if index is applied, else when it is. The
// check and the registration are one step under waitMu, and release takes
// waitMu after applied has moved, so no group is left behind.
func (s *store) wake(index uint64, reads []any, later *completions) {
	s.waitMu.Lock()
	if s.applied.Load() < index {
		s.waits = append(s.waits, readWait{index, reads})
		s.waitMu.Unlock()
		return
	}
	s.waitMu.Unlock()
	finishReads(reads, later)
}

// release lets the reads go on whose index is applied now.
func (s *store) release(later *completions) {
	applied := s.applied.Load()
	s.waitMu.Lock()
	var ready []readWait
	rest := s.waits[:0]
	for _, w := range s.waits {
		if w.index <= applied {
			ready = append(ready, w)
		} else {
			rest = append(rest, w)
		}
	}
	clear(s.waits[len(rest):])
	s.waits = rest
	s.waitMu.Unlock()
	for _, w := range ready {
		finishReads(w.reads, later)
	}
}

func finishReads(reads []any, later *completions) {
	for _, r := range reads {
		r.(*outcome).finish(nil, nil, later)
	}
}
