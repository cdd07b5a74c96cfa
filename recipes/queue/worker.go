package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

const (
	eventsMax      = 256 // that wait for a worker's loop
	yieldsMax      = 64  // times that a loop lets others run before it sends something
	requestsMax    = 4   // transactions of a worker that are under way at once
	opsPerEnvelope = 100
	// upkeepEvery is how often a worker tidies up, and sweepEvery how often it
	// moves the marks, to what was seen sweepAfter ago.
	upkeepEvery = time.Second
	sweepEvery  = 5 * time.Second
	sweepAfter  = time.Minute
	// busyFor is how long a worker has more than it can do before it says so.
	busyFor = 20 * time.Millisecond
	// shortJobs is what a worker claims ahead, if its jobs are short.
	shortJobs      = 20 * time.Millisecond
	prefetchForMax = 256
)

// worker is one membership in the queue's fleet, from the making of its key until
// it has ended. One goroutine, the loop, owns its fields; others post functions
// to it.
type worker struct {
	q       *core
	opts    runOptions
	handler RawHandler
	id      string
	session *client.Session

	events  chan func()
	ended   chan struct{} // closed when the loop takes no more events
	tasks   sync.WaitGroup
	stop    <-chan struct{} // closed when the worker is to stop; nil once it knows
	life    context.Context // ends with the worker; for watches and requests
	kill    context.CancelCauseFunc
	jobsCtx context.Context // of handlers
	endJobs context.CancelCauseFunc

	fleet
	load
	outbox
	draining   bool
	drained    <-chan time.Time // when the time for that is over
	forgetting bool             // old shards
	wake       *time.Timer
}

// load is what a worker has to do.
type load struct {
	jobs     map[shard.Job]*jobRun // that run, or whose end is under way
	running  int
	average  time.Duration // of a job
	credit   float64       // of the rate
	refilled time.Time
	busy     time.Time // since when there is more than it can do
	flagged  time.Time
	samples  []sample
	swept    time.Time
}

// sample is a revision as it was seen at a time.
type sample struct {
	at  time.Time
	rev int64
}

// workOnce works until ctx ends or the session is lost.
func (q *core) workOnce(ctx context.Context, h RawHandler, o runOptions) error {
	s, err := q.session(ctx)
	if err != nil {
		return err
	}
	w := &worker{
		q: q, opts: o, handler: h, session: s, id: fmt.Sprintf("%s-%08x", s.ID(), rand.Uint32()),
		events: make(chan func(), eventsMax), ended: make(chan struct{}), wake: time.NewTimer(time.Hour),
	}
	w.jobs, w.credit, w.refilled = make(map[shard.Job]*jobRun), float64(o.burst), time.Now()
	w.stop = ctx.Done()
	w.life, w.kill = context.WithCancelCause(context.Background())
	w.jobsCtx, w.endJobs = context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(s.Context(), func() {
		lost := fmt.Errorf("%w: %w", ErrClaimLost, s.Err())
		w.endJobs(lost)
		w.kill(lost)
	})
	defer stop()
	defer w.wake.Stop()
	defer w.tasks.Wait()
	defer close(w.ended)
	defer w.endJobs(ErrClaimLost)
	defer w.kill(errAnew)
	if err := w.join(ctx); err != nil {
		return err
	}
	return w.loop(ctx)
}

// post gives the loop something to do. It returns false when the loop has ended.
func (w *worker) post(f func()) bool {
	select {
	case w.events <- f:
		return true
	case <-w.ended:
		return false
	}
}

// task starts a goroutine that ends with the worker.
func (w *worker) task(f func()) {
	w.tasks.Add(1)
	go func() {
		defer w.tasks.Done()
		f()
	}()
}

func (w *worker) loop(ctx context.Context) error {
	upkeep := time.NewTicker(upkeepEvery)
	defer upkeep.Stop()
	for {
		w.pump()
		for n := 0; n < yieldsMax && len(w.requests) > 0 && w.yield(); n++ {
			w.pump()
		}
		w.flush()
		if w.draining && w.finished() {
			if w.letGo() {
				return w.leave()
			}
			continue // the tokens are to be given back
		}
		select {
		case f := <-w.events:
			f()
			w.some()
		case <-w.wake.C:
		case <-upkeep.C:
			w.upkeep()
		case <-w.stop: // pump looks at it
		case <-w.drained:
			w.endJobs(fmt.Errorf("worker stops: %w", ctxError(ctx)))
		case <-w.life.Done():
			return w.die()
		}
	}
}

// yield lets handlers run before something is sent, and takes the events that come
// of that: the ends of short jobs then share a transaction. It says whether there
// were any.
func (w *worker) yield() bool {
	runtime.Gosched()
	if len(w.events) == 0 {
		return false
	}
	w.some()
	return true
}

// some takes more events that wait, before anything is done about them.
func (w *worker) some() {
	for range eventsMax {
		select {
		case f := <-w.events:
			f()
		default:
			return
		}
	}
}

// die ends the worker without the cluster: handlers are waited for, and nothing
// is written any more.
func (w *worker) die() error {
	cause := context.Cause(w.life)
	if !errors.Is(cause, ErrClaimLost) {
		cause = fmt.Errorf("%w: %w", ErrClaimLost, cause)
	}
	w.endJobs(cause)
	if w.opts.hooks.Lost != nil && w.running > 0 {
		w.opts.hooks.Lost(w.running)
	}
	for w.running > 0 {
		(<-w.events)()
	}
	for _, r := range w.jobs {
		r.lost = true
		close(r.over)
	}
	if w.session.Err() != nil {
		return fmt.Errorf("%w: %w", errAnew, cause)
	}
	return cause
}

// pump lets all shards go on: what has ended, what can start, what is to be sent.
// Nothing starts once the worker is to stop, whatever else has happened.
func (w *worker) pump() {
	select {
	case <-w.stop:
		w.stop = nil
		w.drain()
	default:
	}
	now := time.Now()
	ms := now.UnixMilli()
	budget := w.window()
	for _, s := range w.shards {
		w.collect(s)
		budget -= s.Claimed()
	}
	for w.startOne(ms) {
	}
	wake := int64(0)
	for _, s := range w.order {
		w.watchShard(s)
		if s.Foreign() { // which it may have learned of after the fleet's last change
			s.Gone(w.alive)
		}
		for _, r := range s.Next(ms, budget) {
			w.push(r)
		}
		if at := s.Wake(); at > 0 && (wake == 0 || at < wake) {
			wake = at
		}
	}
	w.watchBusy(now)
	w.setWake(now, wake)
}

// setWake sets the timer for what has to wait.
func (w *worker) setWake(now time.Time, at int64) {
	d := time.Hour
	if at > 0 {
		d = max(time.Millisecond, time.UnixMilli(at).Sub(now)+time.Millisecond/2)
	}
	if w.opts.rate > 0 && w.credit < 1 {
		d = min(d, time.Duration(float64(time.Second)*(1-w.credit)/w.opts.rate)+time.Millisecond)
	}
	if !w.busy.IsZero() {
		d = min(d, busyFor)
	}
	w.wake.Reset(d)
}

// window is how many jobs the worker claims in all.
func (w *worker) window() int {
	if w.opts.prefetch > 0 {
		return max(w.opts.prefetch, 1)
	}
	n := 2 * w.opts.concurrency
	if w.average > 0 && w.average < shortJobs {
		n = max(n, min(prefetchForMax, w.opts.concurrency*int(shortJobs/w.average)))
	}
	return n
}

// startOne starts a job, if there is one and a place for it.
func (w *worker) startOne(ms int64) bool {
	if w.draining || w.running >= w.opts.concurrency {
		return false
	}
	suspect := true
	for _, s := range w.order {
		suspect = suspect && !s.Suspect()
	}
	for i, s := range w.order {
		for _, j := range s.Deadly() {
			w.condemn(s, j)
		}
		j, ok := s.Start(ms, suspect, w.allow)
		if !ok {
			continue
		}
		// The next one is another shard's turn.
		w.order = append(append(w.order[:0:0], w.order[i+1:]...), w.order[:i+1]...)
		w.start(s, j, ms)
		return true
	}
	return false
}

// allow says whether the rate lets another job start, and counts it.
func (w *worker) allow(string) bool {
	if w.opts.rate == 0 {
		return true
	}
	now := time.Now()
	w.credit = min(float64(w.opts.burst), w.credit+now.Sub(w.refilled).Seconds()*w.opts.rate)
	w.refilled = now
	if w.credit < 1 {
		return false
	}
	w.credit--
	return true
}

// start runs a job on a goroutine of its own.
func (w *worker) start(s *shard.Shard, j shard.Job, ms int64) {
	r := newRun(w, s, j)
	w.jobs[j] = r
	if it := r.item; it.Expires > 0 && it.Expires < ms {
		r.cancel(nil)
		s.Settle(j, shard.End{Kind: shard.Done}, ms)
		return
	}
	w.running++
	if w.opts.hooks.Started != nil {
		w.opts.hooks.Started(r.raw, r.began.Sub(r.raw.Enqueued))
	}
	w.task(r.execute)
}

// condemn ends a job whose workers have died too often.
func (w *worker) condemn(s *shard.Shard, j shard.Job) {
	it := j.Item()
	w.jobs[j] = newRun(w, s, j)
	w.q.opts.log.Error("job has killed its workers", "queue", w.q.name, "job", it.Job, "crashes", it.Crashes)
	r := w.jobs[j]
	e := shard.End{Kind: shard.Dead, Error: fmt.Sprintf("%d workers died with it", it.Crashes)}
	e.Result = r.resultBytes(Result{Dead: true, Error: e.Error})
	w.running++ // it takes a place while it is ended
	w.task(func() {
		r.leaseResult(&e)
		w.post(func() {
			w.running--
			w.conclude(r, e)
		})
	})
}

// collect takes what has ended.
func (w *worker) collect(s *shard.Shard) {
	for _, j := range s.Ended {
		w.close(j, false)
	}
	for _, j := range s.Lost {
		w.close(j, true)
	}
	s.Ended, s.Lost = s.Ended[:0], s.Lost[:0]
}

func (w *worker) close(j shard.Job, lost bool) {
	r := w.jobs[j]
	if r == nil {
		return
	}
	delete(w.jobs, j)
	r.lost = lost
	if lost {
		r.cancel(ErrClaimLost)
	}
	close(r.over)
}

// upkeep is what a worker does once in a while.
func (w *worker) upkeep() {
	now := time.Now()
	w.samples = append(w.samples, sample{at: now, rev: int64(w.q.client.Seen())})
	for len(w.samples) > 1 && now.Sub(w.samples[1].at) > sweepAfter {
		w.samples = w.samples[1:]
	}
	for _, s := range w.order {
		s.Tidy()
	}
	if now.Sub(w.swept) > sweepEvery && now.Sub(w.samples[0].at) > sweepAfter {
		w.swept = now
		for _, s := range w.order {
			s.Sweep(w.samples[0].rev)
		}
	}
	w.settleShards()
	w.assign()
	if old := len(w.q.conf.Load().Old); old > 0 && !w.draining && !w.forgetting && w.rank(0, "") == 0 {
		w.forgetting = true
		w.task(func() {
			// What goes wrong is tried again a second later.
			if err := w.q.forgetShards(w.life); err != nil && !errors.Is(err, client.ErrConflict) && w.life.Err() == nil {
				w.q.opts.log.Warn("old shards", "queue", w.q.name, "error", err)
			}
			w.post(func() { w.forgetting = false })
		})
	}
}

// drain stops to claim and to start, and gives back what was not started.
func (w *worker) drain() {
	w.draining, w.drained = true, time.After(w.opts.drain)
	for _, s := range w.order {
		s.Drain()
	}
}

// finished says that nothing is left to be done or written.
func (w *worker) finished() bool {
	if w.running > 0 || w.underWay > 0 || len(w.requests) > 0 {
		return false
	}
	for _, s := range w.order {
		if !s.Idle() {
			return false
		}
	}
	return true
}

// letGo gives the tokens back, and says whether that was done before.
func (w *worker) letGo() bool {
	all := true
	for _, s := range w.order {
		if s.Owned() {
			s.Release()
			all = false
		}
	}
	return all
}

// leave removes the worker's key.
func (w *worker) leave() error {
	ctx, cancel := context.WithTimeout(w.life, reloadTimeout)
	defer cancel()
	for n := 0; ; n++ {
		_, err := w.q.client.Delete(ctx, shard.WorkerKey(w.id))
		if err == nil || !retry.Temporary(err) || !pause(ctx, n) {
			return nil // else it ends with its session
		}
	}
}
