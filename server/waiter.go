package server

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/front"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// outcome is what a handler waits for, or what is told to one that does not
// wait. It is finished once: by the applier, by the loop with a definite error,
// or by the loop because it took too long.
type outcome struct {
	done     chan struct{}  // capacity 1; nil if to is set
	to       rpc.Completion // nil if a goroutine waits for done
	finished atomic.Bool
	response proto.Message // set before done
	err      error         // set before done
}

func newOutcome(to rpc.Completion) outcome {
	if to != nil {
		return outcome{to: to}
	}
	return outcome{done: make(chan struct{}, 1)}
}

// finish wakes the one who waits, or lists the outcome in later.
func (o *outcome) finish(response proto.Message, err error, later *completions) {
	if o.finished.Swap(true) {
		return
	}
	o.response, o.err = response, err
	if o.to != nil {
		later.list = append(later.list, o)
		return
	}
	o.done <- struct{}{}
}

// completions are outcomes that are to be told once no lock is held: the answers
// are encoded then, and written together, one write a connection.
type completions struct {
	list  []*outcome
	batch front.Batch
}

// tell answers all who are listed.
func (c *completions) tell() {
	for i, o := range c.list {
		c.list[i] = nil
		o.to.Done(o.response, o.err, &c.batch)
	}
	c.list = c.list[:0]
	c.batch.Flush()
}

// done tells all who are listed and puts c back. Its receiver may be nil.
func (c *completions) done() {
	if c != nil {
		c.tell()
		spareCompletions.Put(c)
	}
}

// spareCompletions serve one turn after the other.
var spareCompletions = sync.Pool{New: func() any { return new(completions) }}

// await waits for the outcome, or for the end of ctx: a handler's context ends
// with its call and with the member. There is no timer: the loop finishes what
// takes too long (see deadlines), and a request pays for nothing it does not
// use.
func (o *outcome) await(ctx context.Context) error {
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// waiter is a proposal on its way through the log, and the handler that waits
// for it.
type waiter struct {
	outcome
	proposal replica.Proposal
	command  state.Command
	// gone is set when the handler no longer waits: a proposal that is known
	// not to be in the log is then not proposed again.
	gone atomic.Bool
	// once marks a proposal that must not be proposed again in a later term:
	// the leader's own decisions.
	once bool
}

func newWaiter(c state.Command, data []byte, to rpc.Completion) *waiter {
	w := &waiter{command: c, outcome: newOutcome(to)}
	w.proposal = replica.Proposal{Data: data, Value: w}
	return w
}

// abandoned reports whether nobody wants the answer any more.
func (w *waiter) abandoned() bool { return w.gone.Load() || w.to != nil && w.to.Gone() }

// deadlines is the loop's list of those who wait, in the order in which they
// came. Almost all finish in that order too, so looking at the front now and
// then keeps it short.
type deadlines struct {
	waits []deadline
	head  int // waits[:head] are done with and empty
}

type deadline struct {
	who  *outcome
	tick uint64 // when it takes too long
}

func (d *deadlines) add(who *outcome, tick uint64) {
	d.waits = append(d.waits, deadline{who, tick})
}

// len returns how many are not finished.
func (d *deadlines) len() int {
	n := 0
	for _, w := range d.waits[d.head:] {
		if !w.who.finished.Load() {
			n++
		}
	}
	return n
}

// sweep drops the finished from the front and calls expire for those whose
// time is over.
func (d *deadlines) sweep(tick uint64, expire func(*outcome)) {
	for d.head < len(d.waits) {
		w := d.waits[d.head]
		if !w.who.finished.Load() {
			if w.tick > tick {
				break
			}
			expire(w.who)
		}
		d.waits[d.head] = deadline{}
		d.head++
	}
	if d.head > len(d.waits)/2 {
		rest := copy(d.waits, d.waits[d.head:])
		clear(d.waits[rest:])
		d.waits, d.head = d.waits[:rest], 0
	}
}
