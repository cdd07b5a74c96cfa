package sim

import "time"

// event is something that happens at a time. One that belongs to a node waits while the node is paused, and is dropped
// if the node was restarted since, unless any is set.
type event struct {
	at    time.Duration
	seq   uint64 // order among events of one time
	node  *node
	epoch int
	any   bool
	run   func()
}

// schedule is virtual time: a heap of events by (at, seq).
type schedule struct {
	now    time.Duration
	seq    uint64
	events []event
}

func (s *schedule) push(e event) {
	s.seq++
	e.seq = s.seq
	s.insert(e)
}

func (e *event) before(f *event) bool { return e.at < f.at || e.at == f.at && e.seq < f.seq }

func (s *schedule) insert(e event) {
	s.events = append(s.events, e)
	h := s.events
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !h[i].before(&h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

// pop returns the next event at or before end.
func (s *schedule) pop(end time.Duration) (event, bool) {
	if len(s.events) == 0 || s.events[0].at > end {
		return event{}, false
	}
	h := s.events
	top := h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], event{}
	h = h[:last]
	s.events = h
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].before(&h[child]) {
			child++
		}
		if !h[child].before(&h[i]) {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	return top, true
}
