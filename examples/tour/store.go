package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/recipes/fence"
)

// store is what the workers share: a number that each of them reads, thinks
// about, and writes one larger. It stands for a database or a file that knows
// nothing about locks. Two workers who do this at the same time lose a write.
//
// All that the store does for its safety is to ask the gate about the token
// that comes with a write.
type store struct {
	gate fence.Gate

	mu      sync.Mutex // protects what follows
	value   int
	journal []entry
	grown   chan struct{} // closed, and made anew, by each write
}

// entry is one write that the store took.
type entry struct {
	worker string
	token  fence.Token
	at     time.Time
}

func newStore() *store { return &store{grown: make(chan struct{})} }

func (s *store) read() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

// write sets the number, unless a later holder of the lock was here already.
func (s *store) write(worker string, token fence.Token, value int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.gate.Admit("number", token); err != nil {
		return fmt.Errorf("the store refuses: %w", err)
	}
	s.value = value
	s.journal = append(s.journal, entry{worker, token, time.Now()})
	close(s.grown)
	s.grown = make(chan struct{})
	return nil
}

// waitWrites returns once the store has taken n writes.
func (s *store) waitWrites(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		have, grown := len(s.journal), s.grown
		s.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return fmt.Errorf("wait for write %d, have %d: %w", n, have, context.Cause(ctx))
		}
	}
}

// snapshot returns what the store holds.
func (s *store) snapshot() (value int, journal []entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value, slices.Clone(s.journal)
}
