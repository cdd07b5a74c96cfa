package lock

import (
	"context"
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
	queue   []chan struct{} // who waits; closed when it is their turn
	suspect time.Time       // until then, a create may still be executed late
	swept   bool            // a sweeper runs
	looking bool            // it is the sweeper that has the turn
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
		return t.take(ctx, id)
	}
	defer t.mu.Unlock()
	if s.taken {
		return nil, nil
	}
	s.taken = true
	return &turn{table: t, id: id}, nil
}

// take waits for the turn; first come, first served. It gives up when ctx or
// the session ends.
func (t *slotTable) take(ctx context.Context, id slotID) (*turn, error) {
	t.mu.Lock()
	s := t.get(id)
	if !s.taken {
		s.taken = true
		t.mu.Unlock()
		return &turn{table: t, id: id}, nil
	}
	mine := make(chan struct{})
	s.queue = append(s.queue, mine)
	t.mu.Unlock()

	var err error
	select {
	case <-mine:
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
func (t *slotTable) leave(id slotID, s *slot, mine chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, w := range s.queue {
		if w == mine {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			return
		}
	}
	t.next(id, s)
}

// next hands the turn on. The caller holds mu and the turn.
func (t *slotTable) next(id slotID, s *slot) {
	s.looking = false
	if len(s.queue) > 0 {
		close(s.queue[0])
		s.queue = s.queue[1:]
		return
	}
	s.taken = false
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

// look marks the turn as that of a sweeper.
func (t *turn) look() {
	t.table.mu.Lock()
	defer t.table.mu.Unlock()
	t.table.slots[t.id].looking = true
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
