package lease

import (
	"math"
	"time"
)

// staleStepsMax bounds the early heap entries that one call of Due moves, at about 0.2 us each. After a promotion all
// leases of one time to live stand at the same instant, and moving a million of them at once would hold up the caller
// for a large part of a second.
const staleStepsMax = 8192

// Lease is a lease as the replicated machine knows it: its id and its time to live.
type Lease struct {
	ID  int64
	TTL time.Duration
}

// Clock tells which leases have run out. Its zero value is not usable; call New. It is not safe for concurrent use:
// the goroutine that leads owns it.
//
// Invariants:
//   - byID[r.id] is the slot of r for every running or expiring record, and for no other.
//   - A running record has exactly one heap entry, and entry.at <= record.deadline.
//   - An expiring record has no heap entry. A dead record has exactly one.
//   - dead is the number of dead records; a slot in free has no heap entry and no id.
type Clock struct {
	running bool      // between Promote and Demote
	base    time.Time // deadlines are nanoseconds since base, which keeps its monotonic reading
	byID    map[int64]uint32
	records []record
	free    []uint32 // slots of records to be used again
	queue   []entry  // 4-ary min-heap by (at, id)
	dead    int
}

type phase uint8

const (
	vacant phase = iota
	live
	expiring
	dead
)

// record is 32 bytes, so that a million leases take 32 MB here, 24 MB in the heap and about 25 MB in the map.
type record struct {
	id       int64
	ttl      int64 // nanoseconds
	deadline int64 // nanoseconds since base
	phase    phase
}

// New returns an empty clock that ignores everything until it is promoted.
func New() *Clock {
	return &Clock{}
}

// Promote begins a leadership at the time now: the clock holds exactly the given leases, and each gets its full time
// to live from now on, because the renewals that the previous leader acknowledged are not known here. It is linear in
// the number of leases. Ids must not repeat; the caller may change the slice afterwards.
func (c *Clock) Promote(leases []Lease, now time.Time) {
	*c = Clock{
		running: true,
		base:    now,
		byID:    make(map[int64]uint32, len(leases)),
		records: make([]record, 0, len(leases)),
		queue:   make([]entry, 0, len(leases)),
	}
	for _, l := range leases {
		at := later(0, l.TTL)
		c.byID[l.ID] = uint32(len(c.records))
		c.queue = append(c.queue, entry{at: at, id: l.ID, slot: uint32(len(c.records))})
		c.records = append(c.records, record{id: l.ID, ttl: int64(l.TTL), deadline: at, phase: live})
	}
	c.heapify()
}

// Demote ends a leadership: the clock forgets all leases and ignores everything until the next Promote.
func (c *Clock) Demote() {
	*c = Clock{}
}

// Len returns the number of leases that are running or expiring.
func (c *Clock) Len() int {
	return len(c.byID)
}

// Grant starts a lease at the time now. A lease of that id that exists already is replaced.
func (c *Clock) Grant(id int64, ttl time.Duration, now time.Time) {
	if !c.running {
		return
	}
	c.Revoke(id)
	r := record{id: id, ttl: int64(ttl), deadline: later(c.since(now), ttl), phase: live}
	slot := uint32(len(c.records))
	if n := len(c.free); n > 0 {
		slot = c.free[n-1]
		c.free = c.free[:n-1]
		c.records[slot] = r
	} else {
		c.records = append(c.records, r)
	}
	c.byID[id] = slot
	c.push(entry{at: r.deadline, id: id, slot: slot})
}

// Revoke forgets a lease, because it was revoked or because its expiry was applied. Unknown ids are ignored.
func (c *Clock) Revoke(id int64) {
	slot, ok := c.byID[id]
	if !ok {
		return
	}
	delete(c.byID, id)
	r := &c.records[slot]
	if r.phase == expiring {
		c.release(slot)
		return
	}
	r.phase = dead
	c.dead++
	if c.dead > len(c.queue)/2 {
		c.sweep()
	}
}

// Renew gives a lease its full time to live from now on and returns that time to live. It returns false when the
// lease is unknown or was named by Due already: its end may be in the log, so the renewal must not be acknowledged.
func (c *Clock) Renew(id int64, now time.Time) (ttl time.Duration, ok bool) {
	slot, ok := c.byID[id]
	if !ok {
		return 0, false
	}
	r := &c.records[slot]
	if r.phase != live {
		return 0, false
	}
	ttl = time.Duration(r.ttl)
	r.deadline = max(r.deadline, later(c.since(now), ttl))
	return ttl, true
}

// Remaining returns how long a lease has still to run at the time now: zero when its deadline has passed or its end
// was named by Due. It returns false when the lease is unknown.
func (c *Clock) Remaining(id int64, now time.Time) (time.Duration, bool) {
	slot, ok := c.byID[id]
	if !ok {
		return 0, false
	}
	r := &c.records[slot]
	if r.phase == expiring {
		return 0, true
	}
	return time.Duration(max(0, r.deadline-c.since(now))), true
}

// Due returns at most limit ids of leases whose deadline is not after now, in the order of deadline, then id, and marks
// them as expiring. It may return fewer than are due, to bound its work; then Next is not after now.
func (c *Clock) Due(now time.Time, limit int) []int64 {
	if len(c.queue) == 0 || limit <= 0 {
		return nil
	}
	var ids []int64
	at := c.since(now)
	for steps := 0; len(c.queue) > 0 && len(ids) < limit && steps < staleStepsMax; {
		top := c.queue[0]
		if top.at > at {
			break
		}
		switch r := &c.records[top.slot]; {
		case r.phase == dead:
			c.pop()
			c.dead--
			c.release(top.slot)
			steps++
		case r.deadline > top.at:
			// The lease was renewed since its entry was queued. It goes back even when the new deadline has passed
			// as well, so that ids come out in the order of their deadlines.
			c.queue[0].at = r.deadline
			c.down(0)
			steps++
		default:
			c.pop()
			r.phase = expiring
			ids = append(ids, top.id)
		}
	}
	return ids
}

// Restore makes leases run again that Due named, with the deadlines that they had, because the entry that named them
// will never be applied. Due names them again at once unless they are renewed first. Other ids are ignored.
func (c *Clock) Restore(ids []int64) {
	for _, id := range ids {
		slot, ok := c.byID[id]
		if !ok || c.records[slot].phase != expiring {
			continue
		}
		c.records[slot].phase = live
		c.push(entry{at: c.records[slot].deadline, id: id, slot: slot})
	}
}

// Expiring returns those of the leases that Due named and that were neither restored nor revoked since, in the order
// given.
func (c *Clock) Expiring(ids []int64) []int64 {
	var out []int64
	for _, id := range ids {
		if slot, ok := c.byID[id]; ok && c.records[slot].phase == expiring {
			out = append(out, id)
		}
	}
	return out
}

// Next returns a time before which Due returns nothing; Due may return nothing at that time too, because renewals do
// not move it. It returns false when no lease is running.
func (c *Clock) Next() (time.Time, bool) {
	if len(c.queue) == 0 {
		return time.Time{}, false
	}
	return c.base.Add(time.Duration(c.queue[0].at)), true
}

// since returns t in nanoseconds since the base. A time before the base counts as the base.
func (c *Clock) since(t time.Time) int64 {
	return max(0, int64(t.Sub(c.base)))
}

// later returns at+ttl, or the end of time when that overflows.
func later(at int64, ttl time.Duration) int64 {
	if int64(ttl) > math.MaxInt64-at {
		return math.MaxInt64
	}
	return at + int64(ttl)
}

func (c *Clock) release(slot uint32) {
	c.records[slot] = record{}
	c.free = append(c.free, slot)
}
