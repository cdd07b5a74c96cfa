package server

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// waiter is a proposal on its way through the log, and the handler that waits
// for it. It is finished at most once: by the applier with the result, or by
// the loop with a definite error.
type waiter struct {
	proposal replica.Proposal
	command  state.Command
	// gone is set when the handler no longer waits: a proposal that is known
	// not to be in the log is then not proposed again.
	gone atomic.Bool
	// once marks a proposal that must not be proposed again in a later term:
	// the leader's own decisions.
	once bool

	done     chan struct{} // capacity 1
	response proto.Message
	err      error
}

func newWaiter(c state.Command, data []byte) *waiter {
	w := &waiter{command: c, done: make(chan struct{}, 1)}
	w.proposal = replica.Proposal{Data: data, Value: w}
	return w
}

func (w *waiter) finish(response proto.Message, err error) {
	w.response, w.err = response, err
	w.done <- struct{}{}
}

// readWaiter is a linearizable read and the handler that waits for it.
type readWaiter struct {
	done chan struct{} // capacity 1
	err  error
}

func (r *readWaiter) finish(err error) {
	r.err = err
	r.done <- struct{}{}
}

// timers are reused: a request's timer is almost never reached.
var timers = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}}

// await waits until done, the caller's context, the request timeout or the
// member's end.
func (s *Server) await(ctx context.Context, done <-chan struct{}) error {
	t := timers.Get().(*time.Timer)
	t.Reset(s.requestTimeout)
	defer func() {
		t.Stop()
		timers.Put(t)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.stopped.Done():
		return rpc.ErrStopped
	case <-t.C:
		if !s.HasLeader() {
			return rpc.ErrTimeoutLeaderFailed
		}
		return rpc.ErrTimeout
	}
}
