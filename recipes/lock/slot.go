package lock

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
// came. It must be one table for the process: Lock objects of one name are
// independent of each other, and a session is shared by all of them. A slot
// that nobody uses takes no room.
var slots = &slotTable{slots: make(map[slotID]*slot)}

// slotID names the key: the lock's name with the client's namespace, and the
// session.
type slotID struct {
	session lifetime
	name    string
}

// lifetime is what a slot needs of a session.
type lifetime interface {
	Context() context.Context
	Err() error
}

type slotTable struct {
	mu    sync.Mutex // protects everything in the slots as well
	slots map[slotID]*slot
}

type slot struct {
	taken   bool
	queue   []waiter
	suspect time.Time // until then, a create may still be executed late
	swept   bool      // a sweeper runs
	looking bool      // it is the sweeper that has the turn
}

// waiter is somebody who waits for the turn.
type waiter struct {
	served chan struct{} // closed when it is their turn
	look   bool          // a sweeper
}

// turn is the right to use the key of a slot.
type turn struct {
	table *slotTable
	id    slotID
	once  sync.Once
}

func (t *slotTable) get(id slotID) *slot {
	s := t.slots[id]
	if s == nil {
		s = &slot{}
		t.slots[id] = s
	}
	return s
}

// try returns the turn, or nil if somebody has it. A sweeper does not count: it
// only takes a look, which is waited for.
func (t *slotTable) try(ctx context.Context, id slotID) (*turn, error) {
	t.mu.Lock()
	s := t.get(id)
	if s.looking && len(s.queue) == 0 {
		t.mu.Unlock()
		return t.take(ctx, id, false)
	}
	defer t.mu.Unlock()
	if s.taken {
		return nil, nil
	}
	s.taken = true
	return &turn{table: t, id: id}, nil
}

// take waits for the turn; first come, first served. It gives up when ctx or
// the session ends. look says that it is a sweeper who asks.
func (t *slotTable) take(ctx context.Context, id slotID, look bool) (*turn, error) {
	t.mu.Lock()
	s := t.get(id)
	if !s.taken {
		s.taken, s.looking = true, look
		t.mu.Unlock()
		return &turn{table: t, id: id}, nil
	}
	mine := waiter{served: make(chan struct{}), look: look}
	s.queue = append(s.queue, mine)
	t.mu.Unlock()

	var err error
	select {
	case <-mine.served:
		return &turn{table: t, id: id}, nil
	case <-ctx.Done():
		err = ctxError(ctx)
	case <-id.session.Context().Done():
		err = id.session.Err()
	}
	t.leave(id, s, mine)
	return nil, err
}

// leave takes a waiter out of the queue; a turn that came meanwhile goes on to
// the next.
func (t *slotTable) leave(id slotID, s *slot, mine waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(s.queue, mine); i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
		return
	}
	t.next(id, s)
}

// next hands the turn on. The caller holds mu and the turn.
func (t *slotTable) next(id slotID, s *slot) {
	if len(s.queue) > 0 {
		s.looking = s.queue[0].look
		close(s.queue[0].served)
		s.queue = slices.Delete(s.queue, 0, 1)
		return
	}
	s.taken, s.looking = false, false
	if !s.swept {
		delete(t.slots, id)
	}
}

// give gives the turn back. It returns true when the caller has to start a
// sweeper: a create may still arrive, and none is running. Later calls do
// nothing.
func (t *turn) give() (sweep bool) {
	t.once.Do(func() {
		t.table.mu.Lock()
		defer t.table.mu.Unlock()
		s := t.table.slots[t.id]
		sweep = !s.swept && time.Now().Before(s.suspect)
		s.swept = s.swept || sweep
		t.table.next(t.id, s)
	})
	return sweep
}

// suspect notes that a create is under way whose answer was lost.
func (t *turn) suspect() {
	t.table.mu.Lock()
	defer t.table.mu.Unlock()
	t.table.slots[t.id].suspect = time.Now().Add(suspectFor)
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
	if !s.taken {
		delete(t.slots, id)
	}
	return time.Time{}, false
}
