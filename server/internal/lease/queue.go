package lease

// arity is the heap's fan-out. Four children of 24 bytes span two cache lines, and the tree is half as deep as a
// binary one: re-insertion at a million leases is about a third faster.
const arity = 4

// entry is one place in the heap. It carries the id so that equal deadlines have an order of their own, and so that
// comparing two entries does not touch their records.
type entry struct {
	at   int64 // not later than the record's deadline
	id   int64
	slot uint32
}

func (e entry) before(other entry) bool {
	return e.at < other.at || (e.at == other.at && e.id < other.id)
}

func (c *Clock) push(e entry) {
	c.queue = append(c.queue, e)
	i := len(c.queue) - 1
	for i > 0 {
		parent := (i - 1) / arity
		if !e.before(c.queue[parent]) {
			break
		}
		c.queue[i] = c.queue[parent]
		i = parent
	}
	c.queue[i] = e
}

// pop removes the first entry.
func (c *Clock) pop() {
	last := len(c.queue) - 1
	c.queue[0] = c.queue[last]
	c.queue = c.queue[:last]
	if last > 0 {
		c.down(0)
	}
}

// down moves the entry at i to its place below.
func (c *Clock) down(i int) {
	q := c.queue
	e := q[i]
	for {
		first := i*arity + 1
		if first >= len(q) {
			break
		}
		least := first
		for child := first + 1; child < min(first+arity, len(q)); child++ {
			if q[child].before(q[least]) {
				least = child
			}
		}
		if !q[least].before(e) {
			break
		}
		q[i] = q[least]
		i = least
	}
	q[i] = e
}

// heapify orders the queue in linear time.
func (c *Clock) heapify() {
	if len(c.queue) < 2 {
		return
	}
	for i := (len(c.queue) - 2) / arity; i >= 0; i-- {
		c.down(i)
	}
}

// sweep drops the entries of dead records. It is linear and runs when they are more than half of the heap, so a
// revocation pays a constant share of it.
func (c *Clock) sweep() {
	kept := c.queue[:0]
	for _, e := range c.queue {
		if c.records[e.slot].phase == dead {
			c.release(e.slot)
			continue
		}
		e.at = c.records[e.slot].deadline
		kept = append(kept, e)
	}
	c.queue = kept
	c.dead = 0
	c.heapify()
}
