package pubsub

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// handler handles a delivery.
type handler func(ctx context.Context, d *delivery) error

// roster is who is in a group, and who has which partition.
type roster struct {
	members []string
	owners  map[int]owner
	moved   client.Revision // of the last seek
}

// owner is a claim on a partition.
type owner struct {
	member string
	token  client.Revision // create revision of its key
}

// desired returns the member that should have a partition.
func (r roster) desired(p int) string { return r.responsible(fmt.Sprintf("%02d", p)) }

// responsible returns the member for a thing: each one knows by itself, and few
// things change hands when one comes or goes.
func (r roster) responsible(thing string) string {
	best, most := "", uint64(0)
	for _, id := range r.members {
		h := fnv.New64a()
		h.Write([]byte(thing + " " + id))
		// FNV's high bits differ too little for texts that are nearly the same.
		n := h.Sum64() * 0x9e3779b97f4a7c15
		n ^= n >> 32
		if best == "" || n > most || n == most && id > best {
			best, most = id, n
		}
	}
	return best
}

// member is one Run in one session. Its fields are owned by the goroutine of run.
type member struct {
	group   *group
	session *client.Session
	handle  handler
	conf    runConfig
	id      string
	busy    chan struct{} // one element for each handler that runs
	workers map[int]*worker
	given   map[int]client.Revision // tokens of claims that are given back or lost
	ended   chan *worker
}

func newMember(g *group, s *client.Session, h handler, conf runConfig) *member {
	return &member{
		group: g, session: s, handle: h, conf: conf,
		// A session may be in a group more than once.
		id:      fmt.Sprintf("%s-%08x", s.ID(), rand.Uint32()),
		busy:    make(chan struct{}, conf.concurrency),
		workers: make(map[int]*worker), given: make(map[int]client.Revision), ended: make(chan *worker),
	}
}

// run works until ctx or the session ends, or something fails. Nothing of it runs
// when it returns.
func (m *member) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(m.session.Context(), func() { cancel(m.session.Err()) })
	rosters := make(chan roster)
	watched := make(chan error, 1)
	go func() { watched <- m.observe(ctx, rosters) }()
	defer func() {
		stop()
		cancel(err)
		for _, w := range m.workers {
			w.release()
		}
		for len(m.workers) > 0 {
			m.gone(<-m.ended)
		}
		<-watched
		m.leave()
	}()
	var seen roster
	for {
		select {
		case seen = <-rosters:
			m.reconcile(ctx, seen)
		case w := <-m.ended:
			m.gone(w)
			if fatal(w.err) {
				return w.err
			}
			m.reconcile(ctx, seen)
		case err := <-watched:
			watched <- err
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// fatal says that a worker's error is no other one's business to cure.
func fatal(err error) bool {
	return err != nil && !errors.Is(err, ErrLost) && !errors.Is(err, errMoved) && !retry.Unreached(err) &&
		!errors.Is(err, client.ErrUncertain) && !errors.Is(err, context.Canceled)
}

// reconcile starts and ends workers so that this member has what it should.
func (m *member) reconcile(ctx context.Context, r roster) {
	for p := range m.group.topic.partitions {
		w, o := m.workers[p], r.owners[p]
		mine := r.desired(p) == m.id
		switch {
		case w != nil && !mine:
			w.release()
		case w != nil && r.moved > w.moved:
			w.moved = r.moved
			notify(w.check)
		case w == nil && mine && o.member == "":
			m.start(ctx, p, 0, r.moved)
		case w == nil && o.member == m.id && o.token != m.given[p]:
			m.start(ctx, p, o.token, r.moved)
			if !mine {
				m.workers[p].release()
			}
		}
	}
}

func (m *member) start(ctx context.Context, p int, token, moved client.Revision) {
	w := newWorker(m, p, token, moved)
	m.workers[p] = w
	go func() {
		w.err = w.run(ctx)
		m.ended <- w
	}()
}

// gone notes that a worker has ended. The roster may still tell of its claim.
func (m *member) gone(w *worker) {
	delete(m.workers, w.partition)
	if w.given {
		m.given[w.partition] = w.token
	}
}

// leave deletes the member's key; the session's end would do it as well.
func (m *member) leave() {
	if m.session.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(m.session.Context(), durableTimeout)
	defer cancel()
	_, _ = m.group.topic.client.Delete(ctx, m.group.keys.member(m.id))
}

// join puts the member's key.
func (m *member) join(ctx context.Context) error {
	host, _ := os.Hostname() // only for people to read
	value := []byte(host + "/" + strconv.Itoa(os.Getpid()))
	for n := 0; ; n++ {
		_, err := m.group.topic.client.Put(ctx, m.group.keys.member(m.id), value, client.WithLease(m.session.ID()))
		if err == nil {
			return nil
		}
		// To put it once more does no harm.
		if !retry.Temporary(err) || !retry.Backoff(ctx, n) {
			return err
		}
	}
}

// observe keeps a roster up to date and hands it on after each change.
func (m *member) observe(ctx context.Context, out chan<- roster) error {
	for n := 0; ; n++ {
		if err := m.join(ctx); err != nil {
			return err
		}
		err := m.follow(ctx, out)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, client.ErrCompacted) && !errors.Is(err, errNotListed) && (!retry.Unreached(err) || !retry.Backoff(ctx, n)) {
			return err
		}
	}
}

// errNotListed: somebody has deleted the member's key.
var errNotListed = errors.New("member is not listed")

// follow reads the roster and watches it.
func (m *member) follow(ctx context.Context, out chan<- roster) error {
	first, end := m.group.keys.live()
	res, err := m.group.topic.client.Get(ctx, first, client.Range(end))
	if err != nil {
		return err
	}
	kvs := make(map[string]client.KV)
	for _, kv := range res.KVs {
		kvs[kv.Key] = kv
	}
	send := func() error {
		r := m.roster(kvs)
		if !slices.Contains(r.members, m.id) {
			return errNotListed
		}
		select {
		case out <- r:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := send(); err != nil {
		return err
	}
	for b, err := range m.group.topic.client.WatchBatches(ctx, first, client.Range(end), client.FromRevision(res.Revision+1)) {
		if err != nil {
			return err
		}
		for _, ev := range b.Events {
			if ev.Type == client.EventDelete {
				delete(kvs, ev.KV.Key)
			} else {
				kvs[ev.KV.Key] = ev.KV
			}
		}
		if len(b.Events) == 0 {
			continue
		}
		if err := send(); err != nil {
			return err
		}
	}
	return nil
}

// roster makes a roster of keys.
func (m *member) roster(kvs map[string]client.KV) roster { return m.group.roster(kvs) }

func (g *group) roster(kvs map[string]client.KV) roster {
	r := roster{owners: make(map[int]owner), moved: kvs[g.keys.moved()].ModRevision}
	for _, key := range slices.Sorted(maps.Keys(kvs)) {
		if id, ok := strings.CutPrefix(key, g.keys.members()); ok {
			r.members = append(r.members, id)
		}
		if p, ok := strings.CutPrefix(key, g.keys.owners()); ok {
			if n, err := strconv.Atoi(p); err == nil {
				r.owners[n] = owner{member: string(kvs[key].Value), token: kvs[key].CreateRevision}
			}
		}
	}
	return r
}
