package barrier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// roomLinger is how long a room outlives its last user, so that members who come
// again and again, as they do, find its watches in place.
const roomLinger = 10 * time.Second

// roomID names a room: the barrier with the client's namespace, the session of its
// members, and the terms on which they come.
type roomID struct {
	session *client.Session
	name    string
	terms   terms
}

// rooms are the barriers that are in use in this process. It must be one table:
// barrier objects of one name are independent of each other, and yet share the
// watches, so that a process of many members hears of a trip once.
var rooms = struct {
	mu  sync.Mutex // protects all, and the refs and idle of each room
	all map[roomID]*room
}{all: make(map[roomID]*room)}

// room is what this process knows of a barrier. Two watches keep it up to date:
// of the record, which tells all that was decided, and of the deletion of members'
// keys, which tells that something may have to be. Arrivals are not watched, so
// a phase costs each process one event, however many members there are: who arrives
// counts in the same transaction, and the one who completes the phase ends it.
type room struct {
	id      roomID
	client  *client.Client
	session *client.Session
	name    string // without the client's namespace
	keys    keys

	ctx   context.Context // ends with the session, or when the room is closed
	end   context.CancelCauseFunc
	ready chan struct{} // closed when the record was read for the first time, or can not be

	refs int         // protected by rooms.mu, as are the next two
	idle *time.Timer // closes the room
	stop func() bool // forgets the session

	mu      sync.Mutex // protects what follows, and what members say it does
	latest  view       // the newest record that is known; only its rec, rev and at count
	seen    view       // the record that members were told of last, likewise
	members map[string]*member
	changed chan struct{} // closed and replaced when the record changes or members go
	stage   *stage        // the action that runs here, or the last one that did
}

// keys are the names of a barrier's keys.
type keys struct {
	record   string // decides
	all      string // prefix of those below
	members  string // prefix; one a member, with its lease
	arrivals string // prefix; one a member that has arrived in this phase, with its lease
	counters string // prefix of the next three
	came     string // its version counts members
	left     string // its version counts those that left by themselves
	gaveUp   string // written by those that went in another way
}

func keysOf(name string) keys {
	all := name + "/g/"
	return keys{
		record: name + ".gen", all: all, members: all + "m/", arrivals: all + "a/",
		counters: all + "c/", came: all + "c/came", left: all + "c/left", gaveUp: all + "c/gaveup",
	}
}

// openRoom returns the barrier's room in this process, and counts as its user until
// leave. It waits until the room is ready, or ctx ends.
func openRoom(ctx context.Context, c *client.Client, s *client.Session, name string, t terms) (*room, error) {
	id := roomID{session: s, name: c.Prefix() + name, terms: t}
	rooms.mu.Lock()
	r := rooms.all[id]
	if r == nil {
		r = newRoom(c, id, name)
		rooms.all[id] = r
		go r.follow()
	}
	r.refs++
	if r.idle != nil {
		r.idle.Stop()
	}
	rooms.mu.Unlock()
	select {
	case <-r.ready:
		if r.ctx.Err() == nil {
			return r, nil
		}
		r.leave()
		return nil, context.Cause(r.ctx)
	case <-ctx.Done():
		r.leave()
		return nil, retry.Why(ctx)
	}
}

func newRoom(c *client.Client, id roomID, name string) *room {
	r := &room{
		id: id, client: c, session: id.session, name: name, keys: keysOf(name),
		ready: make(chan struct{}), changed: make(chan struct{}), members: make(map[string]*member),
	}
	r.ctx, r.end = context.WithCancelCause(context.Background())
	r.stop = context.AfterFunc(r.session.Context(), func() {
		r.fail(&LostError{Name: name, Reason: r.session.Err(), At: time.Now()})
	})
	return r
}

// again counts another user of a room that has one.
func (r *room) again() *room {
	rooms.mu.Lock()
	defer rooms.mu.Unlock()
	r.refs++
	return r
}

// leave counts a user out.
func (r *room) leave() {
	rooms.mu.Lock()
	defer rooms.mu.Unlock()
	r.refs--
	if r.refs > 0 {
		return
	}
	r.idle = time.AfterFunc(roomLinger, func() {
		rooms.mu.Lock()
		unused := r.refs == 0
		if unused {
			r.forgetLocked()
		}
		rooms.mu.Unlock()
		if unused {
			r.fail(context.Canceled)
		}
	})
}

// fail closes the room, and ends all who are in it for the reason.
func (r *room) fail(reason error) {
	rooms.mu.Lock()
	r.forgetLocked()
	rooms.mu.Unlock()
	r.end(reason)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members {
		m.loseLocked(reason)
	}
	r.announceLocked()
}

// forgetLocked takes the room out of the table: who comes now opens another.
func (r *room) forgetLocked() {
	if rooms.all[r.id] == r {
		delete(rooms.all, r.id)
	}
	r.stop()
	if r.idle != nil {
		r.idle.Stop()
	}
}

// announceLocked wakes all that wait for a change.
func (r *room) announceLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// now returns the newest record that is known, and what is closed when there may
// be a newer one or somebody has gone.
func (r *room) now() (view, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest, r.changed
}

// learn remembers a record that an answer told of. Members hear of it by the
// watch only, which misses none in between.
func (r *room) learn(v view) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.at > r.latest.at {
		r.latest = view{rec: v.rec, rev: v.rev, at: v.at}
	}
}

// follow watches the record for as long as there is a room.
func (r *room) follow() {
	var watched sync.WaitGroup
	defer watched.Wait()
	for n := 0; r.ctx.Err() == nil; n++ {
		v, err := r.look(r.ctx, false)
		if err != nil {
			r.refuse(err)
			break
		}
		r.observe(v.rec, v.rev, v.at)
		if n == 0 {
			// What is due is done before anybody comes, who would be among people that
			// are gone, and hear of their loss.
			r.settle(&v)
			r.open()
			watched.Go(func() { r.mind(v.at) })
		}
		if err := r.watchRecord(v.at); err != nil && !errors.Is(err, client.ErrCompacted) {
			if !retry.Temporary(err) {
				r.refuse(err)
				return
			}
			retry.Backoff(r.ctx, n)
		}
	}
}

// refuse closes the room because the cluster will not let us see it.
func (r *room) refuse(err error) {
	if r.ctx.Err() == nil {
		r.fail(fmt.Errorf("barrier %q: %w", r.name, err))
	}
	r.open()
}

// open lets those in who wait for the room.
func (r *room) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.ready:
	default:
		close(r.ready)
	}
}

// watchRecord tells the members of each change of the record after rev, in order.
func (r *room) watchRecord(rev client.Revision) error {
	for ev, err := range r.client.Watch(r.ctx, r.keys.record, client.FromRevision(rev+1)) {
		if err != nil {
			return err
		}
		rec := (*record)(nil)
		if ev.Type == client.EventPut {
			if rec, err = decodeRecord(r.name, ev.KV.Value); err != nil {
				return err
			}
		}
		r.observe(rec, ev.KV.ModRevision, ev.KV.ModRevision)
	}
	return nil
}

// observe tells the members of a change of the record at rev, which was seen at the
// revision at; rec is nil when there is none.
func (r *room) observe(rec *record, rev, at client.Revision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec == nil {
		rev = 0
	}
	if at > r.latest.at {
		r.latest = view{rec: rec, rev: rev, at: at}
	}
	r.seen = view{rec: rec, rev: rev, at: at}
	if r.stage != nil && r.stage.rev != rev {
		r.stage.end(ErrBroken)
	}
	for _, m := range r.members {
		m.observeLocked()
	}
	r.announceLocked()
}

// mind watches the members' keys from a revision on, and does what has to be done when
// one goes.
func (r *room) mind(rev client.Revision) {
	for n := 0; r.ctx.Err() == nil; n++ {
		err := r.watchMembers(rev)
		if r.ctx.Err() != nil {
			return
		}
		if err != nil && !errors.Is(err, client.ErrCompacted) && !retry.Temporary(err) {
			r.refuse(err)
			return
		}
		// What happened in between is gone: read instead.
		if !errors.Is(err, client.ErrCompacted) {
			retry.Backoff(r.ctx, n)
		}
		if rev, err = r.roll(); err != nil {
			r.refuse(err)
			return
		}
		r.settle(nil)
	}
}

// watchMembers looks after each deletion of members' keys after rev.
func (r *room) watchMembers(rev client.Revision) error {
	for b, err := range r.client.WatchBatches(r.ctx, r.keys.members, client.Prefix(), client.FromRevision(rev+1), client.WithoutPuts()) {
		if err != nil {
			return err
		}
		if r.vanished(b.Events) {
			r.settle(nil)
		}
	}
	return nil
}

// vanished ends those of our members whose keys were deleted. It returns false
// when there is nothing to look after: the end of a phase deletes the keys of those
// who wait for just that, in the transaction that changes the record. Which of the two
// watches tells of it first is open.
func (r *room) vanished(events []client.Event) (look bool) {
	var over client.Revision // at which a phase ended
	var lost []*member
	r.mu.Lock()
	for _, ev := range events {
		m := r.members[strings.TrimPrefix(ev.KV.Key, r.keys.members)]
		switch {
		case m == nil:
		case m.leaving:
			over = ev.KV.ModRevision
		default:
			lost = append(lost, m)
		}
	}
	r.announceLocked()
	seen := r.seen.rev
	r.mu.Unlock()
	if len(lost) > 0 {
		r.drop(lost, r.wiped(events))
	}
	return slices.ContainsFunc(events, func(ev client.Event) bool {
		return ev.KV.ModRevision != over && ev.KV.ModRevision != seen
	})
}

// wiped returns why members' keys are gone that were not about to be: the barrier was
// reset, if that is what the last change of the record did, or they were deleted.
func (r *room) wiped(events []client.Event) error {
	v, err := r.look(r.ctx, false)
	if err == nil && v.rec != nil && v.rec.Phase > 0 {
		for _, ev := range events {
			if ev.KV.ModRevision == v.rev {
				return &BrokenError{Name: r.name, Generation: generationOf(v.rec.Recipe, v.rec.Phase-1), Reason: reasonReset}
			}
		}
	}
	return r.deleted()
}

// drop ends members whose keys are gone.
func (r *room) drop(lost []*member, reason error) {
	r.mu.Lock()
	for _, m := range lost {
		m.loseLocked(reason)
	}
	r.announceLocked()
	r.mu.Unlock()
	for _, m := range lost {
		m.forget()
	}
}

// roll checks which of our members' keys are still there, and returns the revision
// at which they were. It takes the place of events that can not be had any more, so
// it has to find the deletion of each key that was made up to that revision. Hence
// it asks who is a member when it has the answer, and not before: a member that has
// come since the request was sent may be in what the watch has missed. One that does
// not know yet whether it has a key is told when it does.
func (r *room) roll() (client.Revision, error) {
	ours := r.keys.members + r.session.ID().String() + "."
	var res *client.GetResult
	err := retry.Do(r.ctx, func() (err error) {
		res, err = r.client.Get(r.ctx, ours, client.Prefix(), client.KeysOnly())
		return err
	})
	if err != nil {
		return 0, err
	}
	there := make(map[string]bool, len(res.KVs))
	for _, kv := range res.KVs {
		there[kv.Key] = true
	}
	var lost []*member
	r.mu.Lock()
	for _, m := range r.members {
		switch {
		case there[m.key] || m.leaving:
		case m.token == 0:
			m.absent = res.Revision
		case m.token <= res.Revision:
			lost = append(lost, m)
		}
	}
	r.mu.Unlock()
	r.drop(lost, r.deleted())
	return res.Revision, nil
}

// deleted is the loss of a member whose key is gone.
func (r *room) deleted() error {
	return &LostError{Name: r.name, Reason: ErrDeleted, At: time.Now()}
}
