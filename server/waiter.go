package server

import (
	"context"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// outcome is what a handler waits for. It is finished once: by the applier, by
// the loop with a definite error, or by the loop because it took too long.
type outcome struct {
	done     chan struct{} // capacity 1
	finished atomic.Bool
	response proto.Message // set before done
	err      error         // set before done
}

func (o *outcome) finish(response proto.Message, err error) {
	if o.finished.Swap(true) {
		return
	}
	o.response, o.err = response, err
	o.done <- struct{}{}
}

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

func newWaiter(c state.Command, data []byte) *waiter {
	w := &waiter{command: c}
	w.done = make(chan struct{}, 1)
	w.proposal = replica.Proposal{Data: data, Value: w}
	return w
}

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
