package pubsub

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

// delivery is a message in the window of a worker. What changes is protected by the
// worker's mu.
type delivery struct {
	message *message
	worker  *worker
	at      sequence.Position // behind the message's commit
	last    bool              // of its commit, in its partition

	handled  bool
	failures int
	crashes  int
}

func (d *delivery) attempt() int {
	d.worker.mu.Lock()
	defer d.worker.mu.Unlock()
	return d.failures + max(d.crashes, 1)
}

// handle calls the handler until it succeeds, gives up, or the worker ends.
func (d *delivery) handle() {
	w := d.worker
	conf := &w.member.conf
	for {
		select {
		case w.member.busy <- struct{}{}:
		case <-w.reading.Done():
			return
		}
		err := d.call()
		<-w.member.busy
		if d.isHandled() { // by Tx
			return
		}
		if err == nil {
			d.done(d.message.offset)
			return
		}
		if w.ctx.Err() != nil || errors.Is(err, errLeft) {
			return
		}
		w.mu.Lock()
		d.failures++
		n := d.failures
		w.mu.Unlock()
		var dead *deadError
		if errors.As(err, &dead) || n >= conf.maxAttempts {
			w.bury(d, err)
			return
		}
		notify(w.dirty)
		timer := time.NewTimer(conf.backoff(n))
		select {
		case <-timer.C:
		case <-w.reading.Done():
			timer.Stop()
			return
		}
	}
}

// call calls the handler, and makes an error of a panic.
func (d *delivery) call() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("handler panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return d.worker.member.handle(d.worker.ctx, d)
}

func (d *delivery) isHandled() bool {
	d.worker.mu.Lock()
	defer d.worker.mu.Unlock()
	return d.handled
}

func (d *delivery) done(Offset) {
	d.worker.mu.Lock()
	d.handled = true
	d.worker.mu.Unlock()
	d.worker.advance()
}

func (d *delivery) commit(ctx context.Context, _ Offset, fn func(tx *client.Tx) error) error {
	return d.worker.commitTx(ctx, []*delivery{d}, fn)
}

// commitTx runs fn in a transaction that makes deliveries handled.
func (w *worker) commitTx(ctx context.Context, ds []*delivery, fn func(tx *client.Tx) error) error {
	w.turn.Lock()
	defer w.turn.Unlock()
	if w.failure() != nil {
		return ErrLost
	}
	fence := w.snapshot()
	value := w.snapshot(ds...)
	err := w.slot.update(ctx, value.encode(), fence.encode(), fn)
	if err == nil {
		for _, d := range ds {
			d.done(d.message.offset)
		}
		return nil
	}
	if errors.Is(err, errMoved) || errors.Is(err, ErrLost) || errors.Is(err, client.ErrUncertain) {
		// Where the cursor is must be read again.
		w.fail(fmt.Errorf("%w", err))
		if !errors.Is(err, client.ErrUncertain) {
			err = errors.Join(ErrLost, err)
		}
	}
	return err
}

// advance moves the cursor past what was handled.
func (w *worker) advance() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.window) > 0 && w.window[0].handled {
		d := w.window[0]
		w.window[0] = nil
		w.window = w.window[1:]
		w.cur.After = d.message.offset
		if d.last {
			w.cur.Revision, w.cur.From = d.at.Revision, d.at.From
		}
		<-w.space
	}
	w.handled++
	notify(w.dirty)
}

// idle notes how far the reader is, when nothing is left to handle.
func (w *worker) idle(at sequence.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.window) == 0 && at.Revision > w.cur.Revision {
		w.cur.Revision, w.cur.From = at.Revision, at.From
	}
}

// snapshot returns the cursor as it is to be stored: with what was handled out of
// order, and with some more messages as if they were handled. The caller has the turn.
func (w *worker) snapshot(also ...*delivery) cursor {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cur.Seq++
	c := w.cur
	c.Acked, c.Failures, c.Crashes = nil, nil, nil
	for _, d := range w.window {
		o := d.message.offset
		if d.handled || slices.Contains(also, d) {
			c.Acked = append(c.Acked, o)
			continue
		}
		if d.failures > 0 {
			c.Failures = with(c.Failures, o, d.failures)
		}
		if d.crashes > 0 {
			c.Crashes = with(c.Crashes, o, d.crashes)
		}
	}
	w.keepLocked(&c)
	w.handled = 0
	return c
}

// keepLocked adds what the cursor that was found says of messages that were not
// read yet.
func (w *worker) keepLocked(c *cursor) {
	for _, o := range w.start.Acked {
		if o.Compare(w.reached) > 0 {
			c.Acked = append(c.Acked, o)
		}
	}
	later := func(from, to map[string]int) map[string]int {
		for text, n := range from {
			if o, err := ParseOffset(text); err == nil && o.Compare(w.reached) > 0 {
				to = with(to, o, n)
			}
		}
		return to
	}
	c.Failures = later(w.start.Failures, c.Failures)
	c.Crashes = later(w.start.Crashes, c.Crashes)
}

func with(m map[string]int, o Offset, n int) map[string]int {
	if m == nil {
		m = make(map[string]int)
	}
	m[o.String()] = n
	return m
}

// commit stores the cursor. It comes to its end whatever becomes of the handlers'
// context, as it has to be known what is stored.
func (w *worker) commit() error {
	w.turn.Lock()
	defer w.turn.Unlock()
	return w.slot.put(w.member.session.Context(), w.snapshot().encode())
}

// store stores the cursor when enough was handled or some time has passed, until
// the worker ends.
func (w *worker) store() {
	for {
		select {
		case <-w.dirty:
			w.wait()
		case <-w.check:
		case <-w.over:
			return
		}
		if w.failure() != nil {
			return
		}
		if err := w.commit(); err != nil {
			w.fail(err)
			return
		}
	}
}

// wait gives messages time to share a commit of the cursor.
func (w *worker) wait() {
	timer := time.NewTimer(commitPause)
	defer timer.Stop()
	for {
		w.mu.Lock()
		enough := w.handled >= commitMessages
		w.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-w.dirty:
		case <-timer.C:
			return
		case <-w.check:
			return
		case <-w.over:
			return
		}
	}
}
