package queue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

// Delivery is a job that was pulled: who has it ends it by one of its methods. It
// stays claimed until then, as long as the worker lives.
type Delivery[T any] struct {
	Job[T]
	// Err is set when the value could not be decoded: the job can only be ended.
	Err error

	ends  chan pullEnd // takes one
	ended atomic.Bool
}

// pullEnd is how a delivery is ended.
type pullEnd struct {
	err  error // as of a handler
	done chan error
}

// Context returns a context that ends, with a cause, when the job must not go on.
func (d *Delivery[T]) Context() context.Context { return d.run.ctx }

// Ack ends the job as done, with what was staged in its transaction, and returns
// nil once that is in the store.
//
// Errors: [ErrClaimLost]; client.ErrConflict when a condition of the transaction
// did not hold: the job is given back then; and those of ctx, which leave the
// outcome open.
func (d *Delivery[T]) Ack(ctx context.Context) error { return d.end(ctx, nil) }

// Nack gives the job back to be run again after a time, as a failed attempt. It
// goes to the dead letters if that was its last.
func (d *Delivery[T]) Nack(ctx context.Context, cause error, after time.Duration) error {
	if cause == nil {
		cause = errors.New("not acknowledged")
	}
	return d.end(ctx, Retry(cause, after))
}

// Dead sends the job to the dead letters.
func (d *Delivery[T]) Dead(ctx context.Context, cause error) error { return d.end(ctx, Discard(cause)) }

// Return gives the job back as if it had not been claimed.
func (d *Delivery[T]) Return(ctx context.Context) error { return d.end(ctx, errGiveBack) }

func (d *Delivery[T]) end(ctx context.Context, err error) error {
	e := pullEnd{err: err, done: make(chan error, 1)}
	if d.ended.Swap(true) {
		return fmt.Errorf("end job %s: %w", d.ID, ErrClosed)
	}
	d.ends <- e
	select {
	case err := <-e.done:
		if err != nil {
			return fmt.Errorf("end job %s: %w", d.ID, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end job %s: %w", d.ID, ctxError(ctx))
	}
}

// Jobs yields jobs as they come, until ctx ends or the loop breaks. What was
// yielded and not ended by then is given back, and so is what was claimed ahead.
// With the default WithConcurrency, as many deliveries can be open at once. The
// last thing yielded is an error, if there is one: see Run.
func (q *Queue[T]) Jobs(ctx context.Context, opts ...RunOption) iter.Seq2[*Delivery[T], error] {
	return func(yield func(*Delivery[T], error) bool) {
		o, err := newRunOptions(opts)
		if err != nil {
			yield(nil, fmt.Errorf("pull from queue %q: %w", q.name, err))
			return
		}
		o.drain = 0
		ctx, cancel := context.WithCancel(ctx)
		out := make(chan *Delivery[T])
		failed := make(chan error, 1)
		go func() { failed <- q.work(ctx, q.puller(out), o) }()
		defer func() {
			cancel()
			<-failed
		}()
		for {
			select {
			case d := <-out:
				if !yield(d, nil) {
					return
				}
			case err := <-failed:
				failed <- err
				if err == nil {
					err = ctxError(ctx)
				}
				yield(nil, err)
				return
			}
		}
	}
}

// puller is a handler that hands each job out and waits for its end.
func (q *Queue[T]) puller(out chan<- *Delivery[T]) RawHandler {
	return func(ctx context.Context, j *RawJob) error {
		d := &Delivery[T]{Job: Job[T]{RawJob: j}, ends: make(chan pullEnd, 1)}
		if d.Value, d.Err = q.codec.Decode(j.Payload); d.Err != nil {
			d.Err = fmt.Errorf("decode: %w", d.Err)
		}
		select {
		case out <- d:
		case <-ctx.Done():
			return errGiveBack
		}
		select {
		case e := <-d.ends:
			j.run.pulled = e.done
			return e.err
		case <-ctx.Done():
			if d.ended.Swap(true) {
				(<-d.ends).done <- context.Cause(ctx)
			}
			return errGiveBack
		}
	}
}

// report tells who ended a delivery what came of it, once it is known.
func (r *jobRun) report(err error, e *shard.End) {
	switch done := r.pulled; {
	case done == nil:
	case e == nil:
		done <- err
	case e.Kind == shard.Return && err != nil && !errors.Is(err, errGiveBack):
		done <- err
	default:
		select {
		case <-r.over:
		case <-r.worker.ended:
			done <- ErrClaimLost
			return
		}
		if r.lost {
			done <- ErrClaimLost
			return
		}
		done <- nil
	}
}

// Receive returns up to n jobs: it waits for the first, and for more no longer
// than a short time. They must be ended before ctx ends, which gives back the rest;
// so does the function returned, which must be called.
func (q *Queue[T]) Receive(ctx context.Context, n int, opts ...RunOption) ([]*Delivery[T], func(), error) {
	o, err := newRunOptions(append(opts[:len(opts):len(opts)], WithConcurrency(n)))
	if err != nil {
		return nil, nil, fmt.Errorf("receive from queue %q: %w", q.name, err)
	}
	o.drain = 0
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan *Delivery[T])
	failed := make(chan error, 1)
	go func() { failed <- q.work(ctx, q.puller(out), o) }()
	closer := func() {
		cancel()
		failed <- <-failed
	}
	var got []*Delivery[T]
	var more <-chan time.Time
	for len(got) < n {
		select {
		case d := <-out:
			got = append(got, d)
			if more == nil {
				timer := time.NewTimer(receiveMore)
				defer timer.Stop()
				more = timer.C
			}
			continue
		case <-more:
		case err := <-failed:
			failed <- err
			if err == nil {
				err = ctxError(ctx)
			}
			cancel()
			return nil, nil, err
		}
		break
	}
	return got, closer, nil
}

// receiveMore is how long Receive waits for more than one job.
const receiveMore = 20 * time.Millisecond
