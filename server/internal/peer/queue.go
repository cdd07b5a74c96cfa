package peer

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"
)

const (
	queueMessagesMax     = 4096
	queueBytesMax        = 64 << 20 // of entries, which raft's log holds as well; one message of any size always fits
	queueDownMessagesMax = 64       // while the session is down: the newest are kept

	messageOverheadBytes = 64
	entryOverheadBytes   = 16
)

// queue holds the messages that wait for one stream. Many goroutines put, one takes. mu protects all but ready.
type queue struct {
	mu      sync.Mutex
	waiting []*raftpb.Message // waiting[head:] are the queued ones
	head    int
	bytes   int
	up      bool

	ready chan struct{} // wakes the taker; capacity 1, so that a put never blocks and no wake-up is lost; never closed
}

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

// put queues m, or drops a message to stay within the bounds and returns false: m itself while the session is up (what
// waits is older and must not lose its order), the oldest while it is down (it is the stalest).
func (q *queue) put(m *raftpb.Message) bool {
	size := queueBytes(m)
	kept := true
	q.mu.Lock()
	n := len(q.waiting) - q.head
	if q.up {
		if n >= queueMessagesMax || n > 0 && q.bytes+size > queueBytesMax {
			q.mu.Unlock()
			return false
		}
	} else {
		for n > 0 && (n >= queueDownMessagesMax || q.bytes+size > queueBytesMax) {
			q.pop()
			n--
			kept = false
		}
	}
	q.compact()
	q.waiting = append(q.waiting, m)
	q.bytes += size
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return kept
}

// take appends queued messages to batch, at least one if there is any, and stops before limit bytes are passed.
func (q *queue) take(batch []*raftpb.Message, limit int) []*raftpb.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	total := 0
	for q.head < len(q.waiting) {
		size := queueBytes(q.waiting[q.head])
		if total > 0 && total+size > limit {
			break
		}
		total += size
		batch = append(batch, q.pop())
	}
	return batch
}

// reset drops everything that waits, how many it was, and notes whether a session is up.
func (q *queue) reset(up bool) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.waiting) - q.head
	q.waiting, q.head, q.bytes, q.up = nil, 0, 0, up
	return n
}

// open notes that a session is up; what waits stays.
func (q *queue) open() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.up = true
}

// pop requires that there is a message. mu is held.
func (q *queue) pop() *raftpb.Message {
	m := q.waiting[q.head]
	q.waiting[q.head] = nil
	q.head++
	q.bytes -= queueBytes(m)
	return m
}

// compact moves the queued messages to the front when the slice is full, or forgets the consumed part when nothing is
// queued, so that the slice never grows beyond twice its bound. mu is held.
func (q *queue) compact() {
	if q.head == len(q.waiting) || len(q.waiting) == cap(q.waiting) && q.head > len(q.waiting)/2 {
		n := copy(q.waiting, q.waiting[q.head:])
		clear(q.waiting[n:])
		q.waiting, q.head = q.waiting[:n], 0
	}
}

// queueBytes estimates what a message weighs in memory and on the wire, without walking every field of it.
func queueBytes(m *raftpb.Message) int {
	n := messageOverheadBytes + len(m.GetContext())
	for _, e := range m.GetEntries() {
		n += entryOverheadBytes + len(e.GetData())
	}
	return n
}
