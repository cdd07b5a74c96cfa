package queue

import (
	"context"
	"fmt"
	"iter"
)

// EnqueueSeq puts the items of a sequence into the queue, several to a key as a
// [Producer] does, and yields what became of each, in their order: its ID once it
// is durable, or why it was not enqueued, and then it goes on with the next. As
// many are under way as WithPending says; what has come to its end is yielded when
// the next item is asked for, and the rest behind the last one.
//
// When the loop breaks, or ctx ends, no more is taken from the sequence; what is
// under way is enqueued all the same. ctx's end makes its outcome
// [client.ErrUncertain].
func (q *Queue[T]) EnqueueSeq(ctx context.Context, items iter.Seq[Item[T]], opts ...ProducerOption) iter.Seq2[ID, error] {
	return q.enqueueSeq(ctx, items, nil, opts...)
}

// enqueueSeq is EnqueueSeq. put is nil but in tests.
func (q *Queue[T]) enqueueSeq(ctx context.Context, items iter.Seq[Item[T]], put func(context.Context, *request) (ID, error), opts ...ProducerOption) iter.Seq2[ID, error] {
	return func(yield func(ID, error) bool) {
		p, err := q.Producer(opts...)
		if err != nil {
			yield("", err)
			return
		}
		if put != nil {
			p.put = put
		}
		s := &stream[T]{ctx: ctx, p: p, yield: yield}
		s.run(items)
	}
}

// stream is one EnqueueSeq. It is owned by the loop's goroutine.
type stream[T any] struct {
	ctx     context.Context
	p       *Producer[T]
	yield   func(ID, error) bool
	sent    []*Pending // not yielded yet, in order
	stopped bool       // the loop wants no more
}

func (s *stream[T]) run(items iter.Seq[Item[T]]) {
	// What was taken is waited for: nothing runs on.
	defer func() { _ = s.p.Close(s.ctx) }()
	for it := range items {
		if s.ctx.Err() != nil {
			break
		}
		if s.makeRoom(); s.stopped {
			return
		}
		d, err := s.p.Send(s.ctx, it.Value, it.Opts...)
		if err != nil { // it has its place in the order like any other
			d = &Pending{done: make(chan struct{}), err: err}
			close(d.done)
		}
		s.sent = append(s.sent, d)
		if s.tell(false); s.stopped {
			return
		}
	}
	if s.tell(true); s.stopped {
		return
	}
	if s.ctx.Err() != nil {
		s.yield("", fmt.Errorf("enqueue in %q: %w", s.p.q.name, ctxError(s.ctx)))
	}
}

// makeRoom yields what has ended until one more may be under way.
func (s *stream[T]) makeRoom() {
	if len(s.sent) < s.p.o.pending {
		return
	}
	s.p.ship() // what waits for company may be all that there is
	for len(s.sent) >= s.p.o.pending && !s.stopped {
		s.next()
	}
}

// tell yields what has ended; all of it means: once it has.
func (s *stream[T]) tell(all bool) {
	if all {
		s.p.ship()
	}
	for len(s.sent) > 0 && !s.stopped {
		if !all {
			select {
			case <-s.sent[0].done:
			default:
				return
			}
		}
		s.next()
	}
}

// next waits for the first one that was sent, and yields it.
func (s *stream[T]) next() {
	d := s.sent[0]
	s.sent = s.sent[1:]
	id, err := d.Wait(s.ctx)
	s.stopped = !s.yield(id, err)
}
