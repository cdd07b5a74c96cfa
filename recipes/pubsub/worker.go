package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

const (
	// A worker stores its cursor when so many messages were handled, or that long
	// after the first of them.
	commitMessages = 64
	commitPause    = 50 * time.Millisecond
	// workerWindow bounds the messages of a partition that were read and are not
	// below the cursor: beyond, a worker waits for the oldest.
	workerWindow = 256
)

// worker handles one partition, as long as this member owns it.
type worker struct {
	member *member
	share

	ctx     context.Context // of handlers: ends when the partition is lost
	cancel  context.CancelCauseFunc
	reading context.Context // ends when nothing more is to be begun
	stop    context.CancelFunc

	check chan struct{} // capacity 1: look whether the cursor was moved
	dirty chan struct{} // capacity 1: there is something to store
	space chan struct{} // one element for each message in the window
	over  chan struct{} // closed when no handler runs any more

	turn sync.Mutex // one transaction with the cursor at a time; protects slot
	slot slot

	mu       sync.Mutex // protects what follows
	released bool
	progress
	lineups  map[string]*lineup
	pool     pool
	handlers sync.WaitGroup
	careful  int // messages that are to be begun one by one, as one of them may have killed a worker
}

// share is a worker's part of the topic.
type share struct {
	partition int
	token     client.Revision // create revision of the owner's key; zero before it is ours
	moved     client.Revision // the latest seek that it knows of; owned by the member
	err       error           // why run returned; readable then, as given is
	given     bool            // the claim is given back, or lost
}

// progress is how far a worker has come.
type progress struct {
	start   cursor      // as it was found
	reached Offset      // of the last message that was begun
	cur     cursor      // without what the window has
	window  []*delivery // begun and not all handled, in order
	handled int         // since the cursor was stored
}

// lineup is the messages of one key, which are handled one at a time.
type lineup struct{ queue []*delivery }

func newWorker(m *member, p int, token, moved client.Revision) *worker {
	return &worker{
		member: m, share: share{partition: p, token: token, moved: moved},
		check: make(chan struct{}, 1), dirty: make(chan struct{}, 1), space: make(chan struct{}, workerWindow),
		over:    make(chan struct{}),
		lineups: make(map[string]*lineup), pool: pool{more: make(chan struct{}, 1)},
	}
}

// release lets the worker end in peace. It may be called before run, and often.
func (w *worker) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.released = true; w.stop != nil {
		w.stop()
	}
}

// errDrained: the time for handlers to end was over.
var errDrained = errors.New("time for handlers to end is over")

// run owns the partition from the claim to the release.
func (w *worker) run(ctx context.Context) error {
	w.ctx, w.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	lost := context.AfterFunc(w.member.session.Context(), func() { w.cancel(ErrLost) })
	defer lost()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	w.mu.Lock()
	w.reading, w.stop = reading, stop
	if w.released {
		stop()
	}
	w.mu.Unlock()
	failed := context.AfterFunc(w.ctx, stop)
	defer failed()

	err := w.claim(reading)
	if err == nil {
		err = w.work()
	}
	if w.token != 0 && !errors.Is(err, ErrLost) && !errors.Is(err, errMoved) {
		failed := w.leave(err == nil)
		w.given = failed == nil
		err = errors.Join(err, failed)
	}
	w.given = w.given || errors.Is(err, ErrLost)
	return err
}

// work handles messages until the worker is released, which is no error, or has
// failed. No handler runs when it returns.
func (w *worker) work() error {
	defer w.cancel(ErrLost)
	if err := w.open(w.reading); err != nil {
		return err
	}
	stored := make(chan struct{})
	go func() {
		defer close(stored)
		w.store()
	}()
	if w.member.conf.batch != nil {
		w.handlers.Go(w.serveBatches)
	}
	err := w.read()
	w.stop()
	w.drain()
	// A commit that is under way comes to its end: what the store says of the cursor
	// must be known for the last one.
	close(w.over)
	<-stored
	if cause := w.failure(); cause != nil {
		err = cause
	}
	return err
}

// failure returns why the worker has failed, or nil.
func (w *worker) failure() error {
	if cause := context.Cause(w.ctx); !errors.Is(cause, errDrained) {
		return cause
	}
	return nil
}

// claim makes the owner's key, unless the worker goes on with one.
func (w *worker) claim(ctx context.Context) error {
	m := w.member
	key := m.group.keys.owner(w.partition)
	for n := 0; w.token == 0; n++ {
		res, err := m.group.topic.client.Txn().
			If(client.Missing(key), client.Exists(m.group.keys.member(m.id))).
			Then(client.OpPut(key, []byte(m.id), client.WithLease(m.session.ID()))).
			Else(client.OpGet(key)).Commit(ctx)
		switch {
		case err == nil && res.Succeeded:
			w.token = res.Revision
		case err == nil:
			kvs := res.Results[0].Get.KVs
			if len(kvs) == 0 || string(kvs[0].Value) != m.id {
				return ErrLost
			}
			w.token = kvs[0].CreateRevision // by an attempt before
		case !retry.Temporary(err) || !retry.Backoff(ctx, n):
			return err
		}
	}
	return nil
}

// open reads the cursor and marks it as in use. One that was left in use belonged to
// a worker that died: one of its messages may be why.
func (w *worker) open(ctx context.Context) error {
	g := w.member.group
	w.slot = slot{
		client: g.topic.client, key: g.keys.cursor(w.partition),
		guard: []client.Compare{client.CreateRevision(g.keys.owner(w.partition)).Equal(w.token)},
	}
	for n := 0; ; n++ {
		res, err := g.topic.client.Get(ctx, w.slot.key)
		if err == nil && len(res.KVs) == 0 {
			return fmt.Errorf("cursor of partition %d: %w", w.partition, errMoved)
		}
		if err == nil {
			w.slot.mod = res.KVs[0].ModRevision
			w.cur, err = parseCursor(res.KVs[0].Value)
		}
		if err == nil {
			break
		}
		if !retry.Unreached(err) || !retry.Backoff(ctx, n) {
			return err
		}
	}
	if w.cur.Open {
		w.careful = workerWindow
	}
	w.start = w.cur
	w.cur.Owner = w.member.id
	next := w.cur
	next.Open = true
	next.Seq++
	if err := w.slot.put(ctx, next.encode()); err != nil {
		return err
	}
	w.cur.Open, w.cur.Seq = true, next.Seq
	return nil
}

// leave gives the partition back. In peace, the cursor is stored with it, in one
// step.
func (w *worker) leave(peace bool) error {
	ctx, cancel := context.WithTimeout(w.member.session.Context(), durableTimeout)
	defer cancel()
	key := w.member.group.keys.owner(w.partition)
	if !peace {
		_, err := w.member.group.topic.client.Txn().
			If(client.CreateRevision(key).Equal(w.token)).Then(client.OpDelete(key)).Commit(ctx)
		return err
	}
	w.turn.Lock()
	defer w.turn.Unlock()
	next := w.snapshot()
	next.Open = false
	return w.slot.put(ctx, next.encode(), client.OpDelete(key))
}

// fail ends the worker.
func (w *worker) fail(err error) {
	w.cancel(err)
}

// read hands out the partition's messages in order, until there is a reason to
// stop; nil when the worker was released.
func (w *worker) read() error {
	g := w.member.group
	start := w.start
	reader := sequence.NewReader(g.topic.client, g.topic.keys.one(w.partition))
	for b, err := range reader.Read(w.reading, start.position()) {
		if w.reading.Err() != nil {
			return nil
		}
		if err != nil {
			return feedError(err)
		}
		messages := decodeBatch(b.Entries)
		for i, m := range messages {
			m.partition = w.partition
			d := &delivery{message: m, worker: w, at: sequence.Position{Revision: m.offset.Revision, From: b.Position.From}}
			d.last = i+1 == len(messages) || messages[i+1].offset.Revision != m.offset.Revision
			d.failures = start.Failures[m.offset.String()]
			d.crashes = start.Crashes[m.offset.String()]
			group, redriven := m.header[headerGroup]
			d.handled = start.handled(m.offset) || redriven && group != g.name
			if !w.begin(d) {
				return nil
			}
		}
		w.idle(b.Position)
	}
	return nil
}

// begin lets a message be handled, when there is room in the window. It returns
// false when nothing is to be begun any more.
func (w *worker) begin(d *delivery) bool {
	select {
	case w.space <- struct{}{}:
	case <-w.reading.Done():
		return false
	}
	w.mu.Lock()
	w.window = append(w.window, d)
	w.reached = d.message.offset
	careful := w.careful > 0 && !d.handled
	if careful {
		w.careful--
	}
	w.mu.Unlock()
	switch {
	case d.handled:
		w.advance()
	case careful:
		return w.beginCarefully(d)
	case w.member.conf.batch != nil:
		w.gather(d)
	default:
		w.lineUp(d)
	}
	return w.reading.Err() == nil
}

// beginCarefully handles a message alone, and stores before that it has begun: if
// the process dies now, the next one knows with what.
func (w *worker) beginCarefully(d *delivery) bool {
	if d.crashes >= crashesMax {
		w.bury(d, ErrCrashed)
		return w.reading.Err() == nil
	}
	w.mu.Lock()
	d.crashes++
	w.mu.Unlock()
	if err := w.commit(); err != nil {
		w.fail(err)
		return false
	}
	w.handlers.Add(1)
	w.serve(&lineup{queue: []*delivery{d}}, "")
	w.mu.Lock()
	d.crashes = 0
	w.mu.Unlock()
	return w.reading.Err() == nil
}

// lineUp puts a message behind those of its key.
func (w *worker) lineUp(d *delivery) {
	key := "k" + d.message.key
	if d.message.key == "" {
		key = d.message.offset.String() // it need not wait for any other
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.lineups[key]; l != nil {
		l.queue = append(l.queue, d)
		return
	}
	l := &lineup{queue: []*delivery{d}}
	w.lineups[key] = l
	w.handlers.Add(1)
	go w.serve(l, key)
}

// serve handles the messages of a key, one after the other.
func (w *worker) serve(l *lineup, key string) {
	defer w.handlers.Done()
	for {
		w.mu.Lock()
		if len(l.queue) == 0 || w.reading.Err() != nil {
			delete(w.lineups, key)
			w.mu.Unlock()
			return
		}
		d := l.queue[0]
		l.queue = l.queue[1:]
		w.mu.Unlock()
		d.handle()
		if !d.isHandled() {
			// The worker is ending. Nothing of this key comes before d: its line stays, and
			// nobody serves it, even if reading goes on for a moment.
			return
		}
	}
}

// drain waits for the handlers that run, and ends their context when it takes too
// long.
func (w *worker) drain() {
	timer := time.AfterFunc(w.member.conf.drain, func() { w.cancel(errDrained) })
	w.handlers.Wait()
	timer.Stop()
}
