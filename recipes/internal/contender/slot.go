package contender

import (
	"context"
	"slices"
	"sync"
	"time"
)

// suspectFor is how long a create whose answer was lost may still be executed:
// longer than any server keeps a request, or any network a packet.
const suspectFor = 30 * time.Second

// slots are the queues inside this process. A session has one key for a name,
// so two goroutines that used it at once would both find themselves the holder;
// the slot of the key lets one at a time use it, in the order in which they
// came. It must be one table for the process: the objects of a recipe are
// independent of each other, and a session is shared by all of them. A slot
// that nobody uses takes no room.
var slots = &slotTable{slots: make(map[slotID]*slot)}

// slotID names a key, with the client's namespace, and its session.
type slotID struct {
	session lifetime
	key     string
}

// lifetime is what a slot needs of a session.
type lifetime interface {
	Context() context.Context
	Err() error
}

type slotTable struct {
	mu      sync.Mutex // protects everything in the slots and turns as well
	slots   map[slotID]*slot
	serials uint64
}

// Serial returns a number that no other call in this process gets: for the keys
// of recipes of which a session may have several under one name.
func Serial() uint64 { return slots.serial() }

func (t *slotTable) serial() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serials++
	return t.serials
}

type slot struct {
	queue   []*turn   // the first one uses the key, or waits for another slot
	suspect time.Time // until then, a create may still be executed late
	swept   bool      // a sweeper runs
}

// turn is the right to use the keys of some slots, or the wait for it. It stands
// in the queues of all of them from one moment on, so of any two turns, one is
// before the other in every queue that both are in: they never wait for each
// other.
type turn struct {
	table  *slotTable
	ids    []slotID
	look   bool          // it is a sweeper's, who only takes a look
	ahead  int           // protected by the table's mu: queues in which others are before it
	served chan struct{} // closed when there are none
	given  bool          // protected by the table's mu
}

func (t *slotTable) get(id slotID) *slot {
	s := t.slots[id]
	if s == nil {
		s = &slot{}
		t.slots[id] = s
	}
	return s
}

// try returns the turn, or nil if somebody has a slot or waits for it. A sweeper
// does not count: its look is waited for.
func (t *slotTable) try(ctx context.Context, ids []slotID) (*turn, error) {
	t.mu.Lock()
	for _, id := range ids {
		if s := t.slots[id]; s != nil && slices.ContainsFunc(s.queue, func(other *turn) bool { return !other.look }) {
			t.mu.Unlock()
			return nil, nil
		}
	}
	mine := t.join(ids, false)
	t.mu.Unlock()
	return mine.wait(ctx)
}

// take waits for the turn; first come, first served. It gives up when ctx or
// the session ends. look says that it is a sweeper who asks.
func (t *slotTable) take(ctx context.Context, ids []slotID, look bool) (*turn, error) {
	t.mu.Lock()
	mine := t.join(ids, look)
	t.mu.Unlock()
	return mine.wait(ctx)
}

// join puts a new turn at the end of all queues. The caller holds mu.
func (t *slotTable) join(ids []slotID, look bool) *turn {
	mine := &turn{table: t, ids: ids, look: look, served: make(chan struct{})}
	for _, id := range ids {
		s := t.get(id)
		if len(s.queue) > 0 {
			mine.ahead++
		}
		s.queue = append(s.queue, mine)
	}
	if mine.ahead == 0 {
		close(mine.served)
	}
	return mine
}

// wait returns the turn when it has come.
func (t *turn) wait(ctx context.Context) (*turn, error) {
	session := t.ids[0].session
	var err error
	select {
	case <-t.served:
		return t, nil
	default:
	}
	select {
	case <-t.served:
		return t, nil
	case <-ctx.Done():
		err = ctxError(ctx)
	case <-session.Context().Done():
		err = session.Err()
	}
	t.table.mu.Lock()
	defer t.table.mu.Unlock()
	t.leave()
	return nil, err
}

// leave takes the turn out of all queues, and lets those behind it move up. The
// caller holds mu.
func (t *turn) leave() {
	for _, id := range t.ids {
		s := t.table.slots[id]
		i := slices.Index(s.queue, t)
		s.queue = slices.Delete(s.queue, i, i+1)
		switch {
		case len(s.queue) == 0 && !s.swept:
			delete(t.table.slots, id)
		case len(s.queue) > 0 && i == 0:
			next := s.queue[0]
			if next.ahead--; next.ahead == 0 {
				close(next.served)
			}
		}
	}
}

// give gives the turn back. It returns the slots for which the caller has to
// start a sweeper: a create may still arrive, and none is running. Later calls
// do nothing.
func (t *turn) give() (sweep []slotID) {
	t.table.mu.Lock()
	defer t.table.mu.Unlock()
	if t.given {
		return nil
	}
	t.given = true
	for _, id := range t.ids {
		s := t.table.slots[id]
		if !s.swept && time.Now().Before(s.suspect) {
			s.swept = true
			sweep = append(sweep, id)
		}
	}
	t.leave()
	return sweep
}

// suspect notes that a create is under way whose answer was lost.
func (t *turn) suspect() {
	t.table.mu.Lock()
	defer t.table.mu.Unlock()
	for _, id := range t.ids {
		t.table.slots[id].suspect = time.Now().Add(suspectFor)
	}
}

// sweepUntil tells a sweeper how long to go on. It returns false, and counts
// the sweeper out, when that moment has passed.
func (t *slotTable) sweepUntil(id slotID) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.slots[id]
	if time.Now().Before(s.suspect) && id.session.Err() == nil {
		return s.suspect, true
	}
	s.swept = false
	if len(s.queue) == 0 {
		delete(t.slots, id)
	}
	return time.Time{}, false
}
