package server

import "sync"

// mailbox hands values from many goroutines to one. The slice holds, the
// channel wakes: a burst of puts costs one wake-up, and take returns all that
// waits, which is what makes every boundary of the server a batch boundary.
type mailbox[T any] struct {
	wake chan struct{} // capacity 1: a coalesced signal; never closed

	mu    sync.Mutex // protects the fields below
	items []T
	due   bool // something was put or added since the last take
	woken bool // a signal was sent since the last take
}

func newMailbox[T any]() *mailbox[T] {
	return &mailbox[T]{wake: make(chan struct{}, 1)}
}

// put never blocks. Bounds are kept by those who fill the box: a proposal
// queue, raft's in-flight limits, a peer's stream.
func (m *mailbox[T]) put(item T) {
	m.add(item)
	m.rouse()
}

// add puts a value and leaves it to the caller that it is taken, or that the
// receiver is roused.
func (m *mailbox[T]) add(item T) {
	m.mu.Lock()
	m.items = append(m.items, item)
	m.due = true
	m.mu.Unlock()
}

// rouse wakes the receiver if something was put or added that it has not taken,
// and it was not woken for that before.
func (m *mailbox[T]) rouse() {
	m.mu.Lock()
	wake := m.due && !m.woken
	m.woken = m.woken || wake
	m.mu.Unlock()
	if wake {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

// leave puts a value for which the receiver need not wake up: it finds it with
// the next one, or when its clock ticks.
func (m *mailbox[T]) leave(item T) {
	m.mu.Lock()
	m.items = append(m.items, item)
	m.mu.Unlock()
}

// empty reports whether nothing waits.
func (m *mailbox[T]) empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items) == 0
}

// only reports whether one thing waits, for which f is true.
func (m *mailbox[T]) only(f func(T) bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items) == 1 && f(m.items[0])
}

// isDue reports whether something was put or added that was not taken.
func (m *mailbox[T]) isDue() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.due
}

// take returns what waits and keeps buf for the next values, so that two
// slices serve for ever. The result is valid until it is passed as buf.
func (m *mailbox[T]) take(buf []T) []T {
	clear(buf)
	m.mu.Lock()
	items := m.items
	m.items, m.due, m.woken = buf[:0], false, false
	m.mu.Unlock()
	return items
}
