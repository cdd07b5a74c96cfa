package peer

import "go.etcd.io/raft/v3/raftpb"

const (
	queueMessagesMax     = 4096
	queueBytesMax        = 64 << 20 // of entries, which raft's log holds as well; one message of any size always fits
	queueDownMessagesMax = 64       // while the session is down: the newest are kept

	messageOverheadBytes = 64
	entryOverheadBytes   = 16
)

// item is a message to be encoded, or a frame that is already.
type item struct {
	m     *raftpb.Message
	frame []byte
}

func (i item) bytes() int {
	if i.m == nil {
		return messageOverheadBytes + len(i.frame)
	}
	return queueBytes(i.m)
}

// queue holds what waits for one stream, which protects it.
type queue struct {
	waiting []item // waiting[head:] are the queued ones
	head    int
	bytes   int
}

func (q *queue) len() int { return len(q.waiting) - q.head }

// put queues i, or drops something to stay within the bounds and returns false: i itself while the session is up (what
// waits is older and must not lose its order), the oldest while it is down (it is the stalest).
func (q *queue) put(i item, up bool) bool {
	size := i.bytes()
	kept := true
	n := q.len()
	if up {
		if n >= queueMessagesMax || n > 0 && q.bytes+size > queueBytesMax {
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
	q.waiting = append(q.waiting, i)
	q.bytes += size
	return kept
}

// take returns the next frame, or appends queued messages to batch, at least one if there is any, and stops before limit
// bytes are passed.
func (q *queue) take(batch []*raftpb.Message, limit int) ([]*raftpb.Message, []byte) {
	total := 0
	for q.len() > 0 {
		next := q.waiting[q.head]
		if next.m == nil {
			if len(batch) == 0 {
				return batch, q.pop().frame
			}
			break
		}
		size := next.bytes()
		if total > 0 && total+size > limit {
			break
		}
		total += size
		batch = append(batch, q.pop().m)
	}
	return batch, nil
}

// reset drops everything that waits, and returns how many it was.
func (q *queue) reset() int {
	n := q.len()
	*q = queue{}
	return n
}

// pop requires that there is an item.
func (q *queue) pop() item {
	i := q.waiting[q.head]
	q.waiting[q.head] = item{}
	q.head++
	q.bytes -= i.bytes()
	return i
}

// compact moves the queued messages to the front when the slice is full, or forgets the consumed part when nothing is
// queued, so that the slice never grows beyond twice its bound.
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
