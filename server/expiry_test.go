package server

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/internal/lease"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
)

// idleLessor leads in term 5 with leases that have all ended. Its loop takes
// proposals and does nothing with them.
func idleLessor(leases int) *lessor {
	s := &Server{loop: newLoop(nil, outputs{}, time.Millisecond, slog.New(slog.DiscardHandler))}
	l := newLessor(s, slog.New(slog.DiscardHandler))
	l.lead(5)
	var all []lease.Lease
	for i := range leases {
		all = append(all, lease.Lease{ID: int64(i + 1), TTL: time.Nanosecond})
	}
	l.clock.Promote(all, time.Now().Add(-time.Second))
	l.ready = true
	return l
}

// proposed returns what reached the loop.
func (l *lessor) proposed() (waiters []*waiter) {
	for _, in := range l.s.loop.inbox.take(nil) {
		waiters = append(waiters, in.propose)
	}
	return waiters
}

// Batches leave one after the other without waiting for the log, each bound to
// the term.
func TestExpiryProposesManyBatches(t *testing.T) {
	l := idleLessor(2*expiryBatch + 1)
	var pending []expiry
	for more := true; more; {
		var e expiry
		e, more = l.expire()
		pending = append(pending, e)
	}
	require.Len(t, pending, 3)
	require.Len(t, pending[2].ids, 1)
	for i, w := range l.proposed() {
		require.Same(t, pending[i].w, w)
		require.True(t, w.once)
		require.EqualValues(t, 5, w.proposal.Term)
	}
	_, ok := l.clock.Renew(1, time.Now())
	require.False(t, ok)
}

// A proposal that is surely not in the log lets its leases run on. One that may
// be there does not: an acknowledged renewal must not be followed by an end that
// was decided before it. Those leases are proposed again as long as they exist.
func TestExpiryThatFailed(t *testing.T) {
	for _, err := range []error{errStale, rpc.ErrTooManyRequests} {
		l := idleLessor(2)
		e, _ := l.expire()
		e.w.finish(nil, err, nil)
		require.False(t, l.failed(&e))
		_, ok := l.clock.Renew(1, time.Now())
		require.True(t, ok, "%v", err)
	}
	for _, err := range []error{rpc.ErrTimeout, rpc.ErrTimeoutLeaderFailed} {
		l := idleLessor(2)
		e, _ := l.expire()
		e.w.finish(nil, err, nil)
		require.True(t, l.failed(&e))
		_, ok := l.clock.Renew(1, time.Now())
		require.False(t, ok, "%v", err)
		l.proposed()

		l.clock.Revoke(1) // the first attempt took effect in part, or its owner revoked it
		pending := l.again([]expiry{e})
		require.Len(t, pending, 1)
		require.Equal(t, []int64{2}, pending[0].ids)
		require.Len(t, l.proposed(), 1)

		pending[0].w.finish(nil, errStale, nil) // says nothing about the first attempt
		require.True(t, l.failed(&pending[0]))
		l.clock.Revoke(2)
		require.Empty(t, l.again(pending))
		require.Empty(t, l.proposed())
	}
}

// Batches of a term that has passed are forgotten at once, whatever the log
// makes of them.
func TestExpiryOfAnotherTerm(t *testing.T) {
	l := idleLessor(1)
	e, _ := l.expire()
	l.lead(6)
	require.Empty(t, l.again([]expiry{e}))
}

// Nothing is tried when the loop refuses proposals; the leases are due again.
func TestExpiryRefused(t *testing.T) {
	l := idleLessor(1)
	l.s.loop.waiting.Store(waitingMax)
	e, more := l.expire()
	require.Zero(t, e)
	require.False(t, more)
	l.s.loop.waiting.Store(0)
	e, _ = l.expire()
	require.Equal(t, []int64{1}, e.ids)
}
