package server

import (
	"errors"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

const (
	// expiryInterval is how often the leader looks for leases that have ended.
	expiryInterval = 50 * time.Millisecond
	// expiryBatch bounds the leases of one log entry: a few milliseconds of
	// applying, between which puts go on.
	expiryBatch = 1000
	// expiriesMax bounds the batches that are on their way through the log: one
	// may be applied while the next is committed. Of more, those that wait are
	// packed into one entry, and a put waits until all are applied: with four,
	// many leases ended a third sooner beside a busy disk, and the slowest put
	// took twice as long.
	expiriesMax = 2
)

// expiry is the proposed end of a batch of leases.
type expiry struct {
	term  uint64
	ids   []int64
	seen  uint64  // index of the log up to which the clock knew of grants
	w     *waiter // nil when it is to be proposed again
	maybe bool    // an earlier attempt may be in the log
}

// run expires leases while this member leads, until stop is closed.
func (l *lessor) run(stop <-chan struct{}) {
	ticker := time.NewTicker(expiryInterval)
	defer ticker.Stop()
	var pending []expiry // oldest first
	more := false        // leases are due that are not in pending
	for {
		for more && len(pending) < expiriesMax {
			var e expiry
			if e, more = l.expire(); e.w != nil {
				pending = append(pending, e)
			}
		}
		var tick <-chan time.Time // nobody wakes up where there is no lease to time
		if l.timing() || len(pending) > 0 {
			tick = ticker.C
		}
		var oldest <-chan struct{}
		if len(pending) > 0 && pending[0].w != nil {
			oldest = pending[0].w.done
		}
		select {
		case <-stop:
			return
		case <-l.begun:
		case <-tick:
			pending, more = l.again(pending), true
		case <-oldest:
			switch {
			case pending[0].w.err == nil:
				pending = pending[1:]
			case l.failed(&pending[0]):
				more = false // until the next tick
			default:
				pending, more = pending[1:], false
			}
		}
	}
}

// expire proposes the end of one batch of leases, and reports whether more are
// due. It returns the zero expiry when there is nothing to propose.
func (l *lessor) expire() (e expiry, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ready {
		return expiry{}, false
	}
	now := time.Now()
	ids := l.clock.Due(now, expiryBatch)
	next, ok := l.clock.Next()
	more = ok && !next.After(now)
	if len(ids) == 0 {
		return expiry{}, more
	}
	e = expiry{term: l.term, ids: ids, seen: l.seen}
	if !l.proposeExpiry(&e) {
		l.clock.Restore(ids)
		return expiry{}, false
	}
	l.s.meters.expired.Add(int64(len(ids)))
	return e, more
}

// failed deals with a batch whose proposal failed, and reports whether it is to
// be proposed again. If it surely is not in the log, its leases run on and are
// looked at anew. If it may be, it may still end them, so none of them is
// renewed any more.
func (l *lessor) failed(e *expiry) bool {
	sure := errors.Is(e.w.err, errStale) || errors.Is(e.w.err, rpc.ErrTooManyRequests)
	e.w, e.maybe = nil, e.maybe || !sure
	if e.maybe {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == e.term {
		l.clock.Restore(e.ids)
	}
	return false
}

// again proposes what is left of the batches that are to be proposed again. It
// drops those of another term: the clock has started anew since and knows
// nothing of them.
func (l *lessor) again(pending []expiry) []expiry {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := pending[:0]
	for _, e := range pending {
		if e.term != l.term || !l.ready {
			continue
		}
		if e.w == nil {
			e.ids = l.clock.Expiring(e.ids)
			if len(e.ids) == 0 {
				continue
			}
			l.proposeExpiry(&e)
		}
		kept = append(kept, e)
	}
	return kept
}

// proposeExpiry proposes a batch, in its term and in no other, unless the loop
// refuses it. It does not wait. The caller holds mu.
func (l *lessor) proposeExpiry(e *expiry) bool {
	c := state.Command{Kind: state.KindExpireLeases, Request: &state.ExpireLeases{IDs: e.ids, Seen: e.seen}}
	data, err := c.AppendTo(nil)
	if err != nil {
		panic(err) // the request is of the kind
	}
	w := newWaiter(c, data, nil)
	w.once, w.proposal.Term = true, e.term
	if l.s.loop.proposeLater(w) != nil {
		return false
	}
	e.w = w
	return true
}
