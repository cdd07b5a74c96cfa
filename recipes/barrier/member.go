package barrier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// member is one key of ours in a barrier, from before its creation until it is
// known to be gone.
type member struct {
	room *room
	id   string // "<lease>.<n>"; never used for another member
	key  string // proves that the member is there
	mark string // the key of its arrival in the present phase
	name string
	act  Action // nil when the barrier has none

	ctx context.Context // ends when the member is lost, leaves, or its barrier breaks
	end context.CancelCauseFunc

	// Protected by the room's mu.
	token   client.Revision // the key's create revision; zero until it is known, then immutable
	wait    *wait           // for the end of a phase; nil when it waits for none
	leaving bool            // it has left, and its key is deleted with those of all others
	absent  client.Revision // of the last roll that did not find the key, while token was zero
}

// wait is the wait for the end of one phase. It begins before the arrival is sent,
// so that the end is not missed, and may be taken up by another call when the first
// one's context has ended.
type wait struct {
	phase uint64
	over  chan struct{} // closed when the next two are final
	then  view          // the first record that was seen of a later phase
	err   error         // the phase is broken, or the member lost
}

// trip is the end of the phase, if it was a trip and its members are known.
func (w *wait) trip() *trip {
	if w.then.rec.Phase != w.phase+1 {
		return nil
	}
	return w.then.rec.Trip
}

// finishLocked ends the wait; only the first time counts.
func (w *wait) finishLocked(then view, err error) {
	select {
	case <-w.over:
	default:
		w.then, w.err = then, err
		close(w.over)
	}
}

// newMember returns a member that has no key yet.
func (r *room) newMember(ctx context.Context, o *options) *member {
	m := &member{room: r.again(), id: fmt.Sprintf("%s.%d", r.session.ID(), lastID.Add(1)), name: o.name, act: o.action}
	m.key, m.mark = r.keys.members+m.id, r.keys.arrivals+m.id
	m.ctx, m.end = context.WithCancelCause(context.WithoutCancel(ctx))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[m.id] = m
	if err := context.Cause(r.ctx); err != nil {
		m.loseLocked(err)
	}
	return m
}

// forget takes the member out of the room, once there is nothing to say to it.
func (m *member) forget() {
	r := m.room
	r.mu.Lock()
	_, there := r.members[m.id]
	delete(r.members, m.id)
	r.mu.Unlock()
	if there {
		r.leave()
	}
}

// loseLocked ends the member and its wait for a reason that is not its own.
func (m *member) loseLocked(reason error) {
	m.end(reason)
	if m.wait != nil {
		m.wait.finishLocked(view{}, reason)
	}
}

// observeLocked tells the member of the record that was seen last.
func (m *member) observeLocked() {
	r := m.room
	rec := r.seen.rec
	if rec == nil {
		if m.token != 0 && m.token < r.seen.at {
			m.loseLocked(&BrokenError{Name: r.name, Reason: reasonDeleted})
		}
		return
	}
	if m.wait != nil && rec.Phase > m.wait.phase {
		m.wait.finishLocked(r.seen, nil)
	}
	// What was seen last may be from before this member came.
	concerned := m.token != 0 && m.token < r.seen.at
	if m.wait != nil {
		concerned = rec.Phase >= m.wait.phase
	}
	if rec.Broken != nil && concerned {
		m.loseLocked(&BrokenError{
			Name: r.name, Generation: rec.generation(), Reason: rec.Broken.Reason, Action: rec.Broken.Action,
		})
	}
}

// expect begins to wait for the end of a phase, which is that of the newest record
// that is known.
func (m *member) expect(phase uint64) *wait {
	r := m.room
	r.mu.Lock()
	defer r.mu.Unlock()
	m.wait = &wait{phase: phase, over: make(chan struct{})}
	if err := context.Cause(m.ctx); err != nil && !m.leaving {
		m.wait.finishLocked(view{}, err)
	}
	m.observeLocked()
	return m.wait
}

// errMoved: the record is not the one that was expected.
var errMoved = errors.New("barrier has moved on")

// come makes the member's key, if the record is still that of v, and returns what
// there is then. It returns errMoved when it is not.
//
// The request does not end with the caller's context: should he give up, the answer
// is still needed to know what to undo. Nor can it be executed late, which would
// make a member of whom nobody knows: [client.ExactlyOnce] sees to both.
func (m *member) come(v view) (view, error) {
	r := m.room
	ctx, cancel := context.WithTimeout(r.session.Context(), resolveTimeout)
	defer cancel()
	runs := 0
	var staged []*client.Staged
	var token client.Revision
	err := r.client.Update(ctx, func(tx *client.Tx) error {
		if runs++; runs > 1 {
			return errMoved
		}
		tx.If(client.ModRevision(r.keys.record).Equal(v.rev))
		tx.Put(m.key, m.badge(), client.WithLease(r.session.ID()))
		tx.Put(r.keys.came, []byte(m.id))
		for _, op := range r.counts() {
			staged = append(staged, tx.Stage(op))
		}
		tx.AfterCommit(func(rev client.Revision) { token = rev })
		return nil
	}, client.ExactlyOnce())
	if err != nil {
		return view{}, err
	}
	r.mu.Lock()
	m.token = token
	m.observeLocked()
	if token <= m.absent {
		m.loseLocked(r.deleted())
	}
	r.mu.Unlock()
	results := make([]client.OpResult, len(staged))
	for i, s := range staged {
		if results[i] = s.Result(); results[i].Get == nil {
			return r.look(r.ctx, false) // the answer was lost, though not what it says
		}
	}
	after := view{rec: v.rec, rev: v.rev, at: token}
	r.count(&after, results)
	return after, nil
}

// arrive marks the member as arrived in the phase of its wait, and does what is due
// when it is the last one. It returns false when that phase is over. It can be
// repeated, and can not be late: the mark belongs to a record, by its revision, and is
// not taken back but with the member.
func (m *member) arrive(ctx context.Context, w *wait) (bool, error) {
	r := m.room
	for n := 0; ; n++ {
		v, _ := r.now()
		if v.rec == nil || v.rec.Phase != w.phase || v.rec.Broken != nil {
			return false, nil // the watch has told us, or is about to
		}
		res, err := r.client.Txn().
			If(client.ModRevision(r.keys.record).Equal(v.rev), m.isOurs()).
			Then(append([]client.Op{client.OpPut(m.mark, m.badge(), client.WithLease(r.session.ID()))}, r.counts()...)...).
			Else(client.OpGet(m.key, client.CountOnly())).
			Commit(ctx)
		switch {
		case err == nil && res.Succeeded:
			after := view{rec: v.rec, rev: v.rev, at: res.Revision}
			r.count(&after, res.Results[1:])
			r.settle(&after)
			return true, nil
		case err == nil:
			// The key is gone with the phase, if that is over: an attempt before this one was
			// executed, and completed it.
			gone := res.Results[0].Get.Count == 0
			var now view
			if now, err = r.look(ctx, false); err == nil && gone && now.rec != nil && now.rec.Phase == w.phase {
				return false, r.deleted()
			}
		case errors.Is(err, client.ErrLeaseNotFound):
			return false, &LostError{Name: r.name, Reason: client.ErrSessionRevoked, At: time.Now()}
		}
		switch {
		case ctx.Err() != nil:
			return false, retry.Why(ctx)
		case err != nil && !retry.Temporary(err):
			return false, err
		case err != nil && !retry.Backoff(ctx, n):
			return false, retry.Why(ctx)
		}
	}
}

func (m *member) badge() []byte {
	b, err := json.Marshal(badge{Name: m.name})
	if err != nil {
		panic(fmt.Sprintf("barrier: encode name %q: %v", m.name, err)) // a string
	}
	return b
}

// going is how a member goes.
type going uint8

const (
	goodbye going = iota // it has done its part, or never had one: it is not lost
	giveUp               // others count on it in vain
)

// remove deletes the member's key, again and again until an answer comes or the
// session ends and the lease takes the key along. Nobody has to be told: all watch
// the deletion. The member's context has ended before.
func (m *member) remove(how going) {
	defer m.forget()
	r, token := m.room, m.created()
	if token == 0 {
		return
	}
	counter := r.keys.left
	if how == giveUp && r.id.terms.OnLoss != Wait {
		counter = r.keys.gaveUp
	}
	// What it returns is of no use: an error means that the session has ended.
	ctx := r.session.Context()
	_ = retry.Do(ctx, func() error {
		_, err := r.client.Txn().
			If(client.CreateRevision(m.key).Equal(token)).
			Then(client.OpDelete(m.key), client.OpDelete(m.mark), client.OpPut(counter, []byte(m.id))).
			Commit(ctx)
		return err
	})
}

// depart removes the member in the background, once, and waits for that.
func (m *member) depart(ctx context.Context, once *sync.Once, gone chan struct{}) error {
	m.end(ErrLeft) // no effect on one that was lost
	once.Do(func() {
		go func() {
			defer close(gone)
			m.remove(goodbye)
		}()
	})
	select {
	case <-gone:
		if cause := context.Cause(m.ctx); cause != ErrLeft { //nolint:errorlint // it is that very value
			return fmt.Errorf("leave barrier %q: %w", m.room.name, cause)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("leave barrier %q: %w: %w", m.room.name, client.ErrUncertain, retry.Why(ctx))
	}
}

func (m *member) created() client.Revision {
	m.room.mu.Lock()
	defer m.room.mu.Unlock()
	return m.token
}

// phase returns the phase of the newest record that is known. If there is none, as
// somebody has deleted it, it waits: the member is about to hear of that.
func (m *member) phase(ctx context.Context) (uint64, error) {
	for {
		v, changed := m.room.now()
		switch {
		case m.ctx.Err() != nil:
			return 0, context.Cause(m.ctx)
		case v.rec != nil:
			return v.rec.Phase, nil
		}
		select {
		case <-changed:
		case <-m.ctx.Done():
		case <-ctx.Done():
			return 0, retry.Why(ctx)
		}
	}
}

// index returns the member's number in a trip, or -1.
func (m *member) index(t *trip) int {
	return slices.IndexFunc(t.Members, func(p place) bool { return p.ID == m.id })
}

// isOurs holds while the member's key is there.
func (m *member) isOurs() client.Compare { return client.CreateRevision(m.key).Equal(m.created()) }
