package pubsub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

// Batch is some messages of one partition, in order, that a member of a group
// handles together. It belongs to the loop that got it.
type Batch[T any] struct {
	Messages  []*Msg[T]
	Partition int

	worker     *worker
	deliveries []*delivery
	err        error
	done       bool
	end        chan error // capacity 1: how the loop has ended it
}

// errLeft: the loop did not end the batch: it is handled by who comes next.
var errLeft = errors.New("batch was left")

// Batches is Run for who handles many messages at once: it yields up to max of a
// partition, or what there is when the first of them has waited for so long; never
// more than 256. A batch counts as handled when the loop asks for the next one, and
// when Tx of the batch does; a loop that breaks leaves its last batch to others,
// unless Done was called.
//
// After [Batch.Fail] the messages of the batch come one by one, with the pauses and
// attempts of Run, and become dead letters one by one: it is not held against a
// message that it shared a batch. What is no T, and what is suspected to have
// killed a worker, is dealt with by itself as well.
//
// The last thing that is yielded is an error: that of ctx, or as with Run. When the
// loop ends, what was handled is stored, and the partitions are given back.
func (g *Group[T]) Batches(ctx context.Context, max int, wait time.Duration, opts ...RunOption) iter.Seq2[*Batch[T], error] {
	return func(yield func(*Batch[T], error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		conf := newRunConfig(opts)
		conf.batchMax, conf.batchWait = min(max, workerWindow), wait
		if max < 1 {
			conf.batchMax = 1
		}
		out := make(chan *Batch[T])
		conf.batch = func(ctx context.Context, ds []*delivery) error { return g.hand(ctx, out, ds) }
		single := func(ctx context.Context, d *delivery) error { return g.hand(ctx, out, []*delivery{d}) }
		ended := make(chan error, 1)
		go func() { ended <- g.group.run(ctx, single, conf) }()
		for {
			select {
			case b := <-out:
				more := yield(b, nil)
				if b.finish(more); !more {
					cancel()
					<-ended
					return
				}
			case err := <-ended:
				yield(nil, fmt.Errorf("group %q of topic %q: %w", g.name, g.group.topic.name, err))
				return
			}
		}
	}
}

// hand gives deliveries of a worker to the loop, and waits for their end.
func (g *Group[T]) hand(ctx context.Context, out chan<- *Batch[T], ds []*delivery) error {
	w := ds[0].worker
	b := &Batch[T]{Partition: w.partition, worker: w, deliveries: ds, end: make(chan error, 1)}
	for _, d := range ds {
		m, err := g.topic.msg(d.message)
		if err != nil {
			return Dead(err)
		}
		m.Attempt, m.cursor = d.attempt(), d
		b.Messages = append(b.Messages, m)
	}
	select {
	case out <- b:
	case <-w.reading.Done():
		return errLeft
	}
	select {
	case err := <-b.end:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finish ends the batch for the loop, which asks for more or not.
func (b *Batch[T]) finish(more bool) {
	switch {
	case b.err != nil:
		b.end <- b.err
	case more || b.done:
		b.end <- nil
	default:
		b.end <- errLeft
	}
}

// Context returns a context that ends, with [ErrLost] as its cause, when the
// partition is lost, and when the member has been told to stop for longer than its
// DrainTimeout.
func (b *Batch[T]) Context() context.Context { return b.worker.ctx }

// Done says that the batch is handled, for a loop that is about to break.
func (b *Batch[T]) Done() { b.done = true }

// Fail says that the batch was not handled: its messages are tried again, one by
// one.
func (b *Batch[T]) Fail(err error) {
	if err == nil {
		err = errors.New("batch failed")
	}
	b.err = err
}

// Tx runs fn in an optimistic transaction that also moves the group's cursor past
// all messages of the batch, as [Msg.Tx] does for one. The Tx of a message moves it
// past that message only.
func (b *Batch[T]) Tx(ctx context.Context, fn func(tx *client.Tx) error) error {
	return b.worker.commitTx(ctx, b.deliveries, fn)
}

// pool is the messages of a worker that wait for their batch.
type pool struct {
	waiting []*delivery   // in order
	more    chan struct{} // capacity 1: something was added
}

// gather lets a message wait for its batch.
func (w *worker) gather(d *delivery) {
	w.mu.Lock()
	w.pool.waiting = append(w.pool.waiting, d)
	w.mu.Unlock()
	notify(w.pool.more)
}

// serveBatches handles one batch after the other, until the worker ends or has to
// leave one.
func (w *worker) serveBatches() {
	for {
		ds := w.nextBatch()
		if ds == nil {
			return
		}
		w.handleBatch(ds)
		for _, d := range ds {
			if !d.isHandled() {
				return // nothing may come before it
			}
		}
	}
}

// nextBatch waits until there are enough messages, or the first has waited long
// enough. It returns nil when nothing is to be begun any more.
func (w *worker) nextBatch() []*delivery {
	conf := &w.member.conf
	var late <-chan time.Time
	over := conf.batchWait <= 0
	for {
		w.mu.Lock()
		n := len(w.pool.waiting)
		if n >= conf.batchMax || n > 0 && over {
			n = min(n, conf.batchMax)
			ds := append([]*delivery(nil), w.pool.waiting[:n]...)
			w.pool.waiting = append(w.pool.waiting[:0], w.pool.waiting[n:]...)
			w.mu.Unlock()
			return ds
		}
		w.mu.Unlock()
		if n > 0 && late == nil {
			timer := time.NewTimer(conf.batchWait)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-w.pool.more:
		case <-late:
			over = true
		case <-w.reading.Done():
			return nil
		}
	}
}

// handleBatch hands a batch out, and its messages one by one if it has failed.
func (w *worker) handleBatch(ds []*delivery) {
	select {
	case w.member.busy <- struct{}{}:
	case <-w.reading.Done():
		return
	}
	err := w.member.conf.batch(w.ctx, ds)
	<-w.member.busy
	for _, d := range ds {
		switch {
		case d.isHandled(): // by a Tx
		case err == nil:
			d.done(d.message.offset)
		case w.ctx.Err() != nil || errors.Is(err, errLeft):
			return
		default:
			if d.handle(); !d.isHandled() {
				return
			}
		}
	}
}
