package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

const (
	// A worker that could take a shard lets those go first that come before it in
	// the order of the shard: so one asks, and not all.
	stealStep = 5 * time.Millisecond
	orphanGap = 200 * time.Millisecond
)

// fleet is what a worker knows of the others, and its own part. It belongs to the
// loop.
type fleet struct {
	shards  map[int]*shard.Shard
	order   []*shard.Shard // the same, in the order of their turns
	tokens  map[int]shard.Token
	workers map[string]bool
	follows map[int]context.CancelFunc // watches of owned shards
	peeks   map[int]context.CancelFunc // watches of others' journals
	asked   map[int]time.Time          // when a take was put off until
	paused  bool
}

// badge is the value of a worker's key, for people to read.
type badge struct {
	Host        string    `json:"host"`
	PID         int       `json:"pid"`
	Concurrency int       `json:"concurrency"`
	Since       time.Time `json:"since"`
}

// join makes the worker's key and reads what the fleet has agreed on.
func (w *worker) join(ctx context.Context) error {
	w.shards, w.tokens, w.workers = make(map[int]*shard.Shard), make(map[int]shard.Token), make(map[string]bool)
	w.follows, w.peeks, w.asked = make(map[int]context.CancelFunc), make(map[int]context.CancelFunc), make(map[int]time.Time)
	host, _ := os.Hostname() // only for people to read
	value, err := json.Marshal(badge{Host: host, PID: os.Getpid(), Concurrency: w.opts.concurrency, Since: time.Now().UTC()})
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		_, err = w.q.client.Put(ctx, shard.WorkerKey(w.id), value, client.WithLease(w.session.ID()))
		if err == nil {
			break
		}
		if !retry.Temporary(err) || !pause(ctx, n) {
			return err
		}
	}
	rev, err := w.survey(ctx)
	if err != nil {
		return err
	}
	w.task(func() { w.followFleet(rev) })
	return nil
}

// survey reads everything that the fleet has agreed on.
func (w *worker) survey(ctx context.Context) (client.Revision, error) {
	res, err := w.q.client.Get(ctx, shard.ManagePrefix, client.Prefix())
	if err != nil {
		return 0, err
	}
	clear(w.tokens)
	clear(w.workers)
	w.paused = false
	for _, kv := range res.KVs {
		if err := w.note(client.Event{KV: kv}); err != nil {
			return 0, err
		}
	}
	w.settleShards()
	w.changed(true)
	return res.Revision, nil
}

// followFleet keeps up with it.
func (w *worker) followFleet(rev client.Revision) {
	for {
		for batch, err := range w.q.client.WatchBatches(w.life, shard.ManagePrefix, client.Prefix(), client.FromRevision(rev+1)) {
			if err != nil {
				if !errors.Is(err, client.ErrCompacted) {
					w.post(func() { w.kill(fmt.Errorf("watch the fleet: %w", err)) })
					return
				}
				break
			}
			rev = batch.Revision
			if len(batch.Events) > 0 && !w.post(func() { w.hear(batch.Events) }) {
				return
			}
		}
		done := make(chan struct{})
		if !w.post(func() {
			defer close(done)
			var err error
			if rev, err = w.survey(w.life); err != nil {
				w.kill(err)
			}
		}) {
			return
		}
		select {
		case <-done:
		case <-w.ended:
			return
		}
		if w.life.Err() != nil {
			return
		}
	}
}

// hear takes what has changed in the fleet.
func (w *worker) hear(events []client.Event) {
	members := false
	for _, ev := range events {
		members = members || strings.HasPrefix(ev.KV.Key, shard.WorkerPrefix)
		if err := w.note(ev); err != nil {
			w.kill(err)
			return
		}
	}
	w.changed(members)
}

// note takes one key of the fleet's.
func (w *worker) note(ev client.Event) error {
	key, put := ev.KV.Key, ev.Type == client.EventPut
	switch {
	case key == shard.ConfigKey && put:
		if _, err := w.q.configure(ev.KV.Value, int64(ev.KV.ModRevision)); err != nil {
			return err
		}
		w.settleShards()
	case key == shard.PauseKey:
		w.paused = put
	case key == shard.PurgeKey && put:
		for _, s := range w.order {
			s.Restart(int64(ev.KV.ModRevision))
			w.unfollow(s.N)
		}
	case strings.HasPrefix(key, shard.TokenPrefix):
		t := shard.ParseToken(kvOf(ev.KV))
		if !put {
			t = shard.Token{Mod: int64(ev.KV.ModRevision)}
		}
		n := shard.ShardOf(key)
		w.tokens[n] = t
		if s := w.shards[n]; s != nil {
			s.Moved(t)
		}
	case strings.HasPrefix(key, shard.WorkerPrefix):
		if worker := shard.Record(key); put {
			w.workers[worker] = true
		} else {
			delete(w.workers, worker)
			if worker == w.id {
				return fmt.Errorf("%w: the worker's key is gone", errAnew)
			}
		}
	case strings.HasPrefix(key, shard.CancelPrefix) && put:
		w.cancelled(shard.Record(key))
	}
	return nil
}

// settleShards makes a Shard of each number that the configuration names.
func (w *worker) settleShards() {
	conf := w.q.conf.Load()
	limits := shard.Limits{Lanes: conf.Lanes, Crashes: w.q.opts.maxCrashes, Group: w.opts.groupLimit, Weights: w.opts.weights}
	numbers := conf.all()
	for _, n := range numbers {
		if w.shards[n] == nil {
			w.shards[n] = shard.New(n, w.id, limits)
			w.order = append(w.order, w.shards[n])
		}
		w.shards[n].HoldGroups = !conf.oldest(n)
	}
	for _, n := range slices.Sorted(maps.Keys(w.shards)) {
		s := w.shards[n]
		if slices.Contains(numbers, n) || !s.Idle() {
			continue
		}
		if s.Owned() {
			s.Release() // the next time round it is idle again
		} else {
			delete(w.shards, n)
			w.order = slices.DeleteFunc(w.order, func(o *shard.Shard) bool { return o == s })
		}
	}
}

// changed acts on what was noted. members says that the fleet itself has changed,
// so that shards find their homes anew.
func (w *worker) changed(members bool) {
	for _, s := range w.order {
		s.Paused = w.paused
		s.Gone(w.alive)
	}
	if members {
		w.goHome()
	}
	w.assign()
}

// alive says whether a worker's session lives.
func (w *worker) alive(worker string) bool { return w.workers[worker] }

// goHome takes the shards that this worker is the first for.
func (w *worker) goHome() {
	for _, s := range w.order {
		t := w.tokens[s.N]
		if !s.Owned() && t.Worker != w.id && w.rank(s.N, "") == 0 && !w.draining {
			s.Take(t, t.Worker != "" && !w.workers[t.Worker])
		}
	}
}

// rank returns how many live workers come before this one in the order of a
// shard; one that is named is left out.
func (w *worker) rank(n int, without string) (rank int) {
	mine := hash(w.id, fmt.Sprint(n))
	for worker := range w.workers {
		if worker != w.id && worker != without && cmp.Compare(hash(worker, fmt.Sprint(n)), mine) > 0 {
			rank++
		}
	}
	return rank
}

// assign takes shards that nobody has, in turn, and those of workers that have too
// much to do, if this one has nothing. It also keeps the watches of what it has.
func (w *worker) assign() {
	now := time.Now()
	idle := w.idle()
	for _, s := range w.order {
		w.watchShard(s)
		if s.Owned() || w.draining {
			continue
		}
		t := w.tokens[s.N]
		switch {
		case t.Worker == "" || !w.workers[t.Worker]:
			w.takeAfter(s, t, now, time.Duration(w.rank(s.N, ""))*orphanGap)
		case t.Flagged && idle && t.Worker != w.id:
			w.takeAfter(s, t, now, time.Duration(w.rank(s.N, t.Worker))*stealStep)
			idle = false
		default:
			delete(w.asked, s.N)
		}
	}
}

// takeAfter takes a shard at once, or in a while if it is still to be had.
func (w *worker) takeAfter(s *shard.Shard, t shard.Token, now time.Time, d time.Duration) {
	at, waiting := w.asked[s.N]
	switch {
	case d == 0 || waiting && !now.Before(at):
		delete(w.asked, s.N)
		s.Take(t, t.Worker != "" && !w.workers[t.Worker])
	case !waiting:
		w.asked[s.N] = now.Add(d)
		time.AfterFunc(d+time.Millisecond, func() { w.post(w.assign) })
	}
}

// idle says that there is nothing to do for this worker.
func (w *worker) idle() bool {
	if w.running >= w.opts.concurrency || w.paused {
		return false
	}
	for _, s := range w.order {
		if s.Backlog() > 0 || s.Claimed() > 0 {
			return false
		}
	}
	return true
}

// watchBusy offers a shard to others once there is more to do than this worker
// can, for some time.
func (w *worker) watchBusy(now time.Time) {
	var most *shard.Shard
	if w.running >= w.opts.concurrency && len(w.workers) > 1 && !w.paused {
		for _, s := range w.order {
			if s.Owned() && s.Backlog() > 0 && (most == nil || s.Backlog() > most.Backlog()) {
				most = s
			}
		}
	}
	switch {
	case most == nil:
		w.busy = time.Time{}
	case w.busy.IsZero():
		w.busy = now
	case now.Sub(w.busy) >= busyFor && now.Sub(w.flagged) >= 5*busyFor:
		w.flagged = now
		most.Flag()
	}
}

// cancelled ends the runs of a job, and drops it where it waits.
func (w *worker) cancelled(job string) {
	for _, s := range w.order {
		for _, j := range s.Cancelled(job) {
			if r := w.jobs[j]; r != nil {
				r.cancel(ErrCancelled)
			}
		}
	}
}
