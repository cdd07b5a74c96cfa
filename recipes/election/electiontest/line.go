package electiontest

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/election"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// witness notices two leaders at once, and a term that does not grow.
type witness struct {
	mu    sync.Mutex
	busy  bool          // protected by mu
	terms []fence.Token // protected by mu; in the order of leading
}

func (w *witness) lead(l *leadership, work func() error) error {
	w.mu.Lock()
	alone := !w.busy
	w.busy = true
	w.terms = append(w.terms, l.Term())
	w.mu.Unlock()
	err := work()
	w.mu.Lock()
	w.busy = false
	w.mu.Unlock()
	if !alone {
		return errors.New("two leaders at once")
	}
	return err
}

func (w *witness) check(t *testing.T, n int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Len(t, w.terms, n)
	for i := 1; i < len(w.terms); i++ {
		require.Greater(t, w.terms[i], w.terms[i-1], "terms grow from leader to leader")
	}
}

func nothing() error { return nil }

// Candidates lead in the order in which they came.
func testOrder(t *testing.T, h *harness) {
	const waiters = 5
	last := h.campaign(h.node(), "0")
	var line []*task[*leadership]
	for i := range waiters {
		line = append(line, h.stand(h.ctx, h.node(), strconv.Itoa(i+1), i+2))
	}
	for _, a := range line {
		a.stillWaits()
		h.resign(last)
		next := a.success()
		require.Greater(t, next.Term(), last.Term())
		last = next
	}
	h.resign(last)
	h.nothingLeft()
}

// Goroutines that share a session, and the Election or not, lead one after the
// other, each in a term of its own.
func testGoroutines(t *testing.T, h *harness) {
	const goroutines = 50
	shared := h.node()
	var w witness
	var wg sync.WaitGroup
	errs := make([]error, goroutines)
	for i := range goroutines {
		wg.Go(func() {
			e := shared
			if i%2 == 1 {
				e = election.New[string](h.c, "job")
			}
			l, err := e.Campaign(h.ctx, "me")
			if err == nil {
				err = errors.Join(w.lead(l, nothing), l.Resign(h.ctx))
			}
			errs[i] = err
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	w.check(t, goroutines)
	h.nothingLeft()
}

// One in the middle of the line leaves: the one behind must not take that for
// its turn.
func testMiddleLeaves(t *testing.T, h *harness) {
	first := h.campaign(h.node(), "1")
	ctx, cancel := context.WithCancel(h.ctx)
	middle := h.stand(ctx, h.node(), "2", 2)
	last := h.stand(h.ctx, h.node(), "3", 3)
	cancel()
	require.ErrorIs(t, middle.failure(), context.Canceled)
	h.awaitKeys("job/", 2)
	now, err := h.node().Leader(h.ctx)
	require.NoError(t, err)
	require.Equal(t, first.Term(), now.Term)
	last.stillWaits()
	h.resign(first)
	h.resign(last.success())
}

// A candidacy is one call, if nobody is before it, and so is a resignation. Who
// waits calls nobody; its turn costs one more, or two if the member that told of
// it does not show it at once.
func testCosts(t *testing.T, h *harness) {
	var w clienttest.Wire
	c := h.client(w.Config())
	_, err := c.Session(h.ctx)
	require.NoError(t, err)
	e := election.New[string](c, "job")
	calls := w.Calls()
	l := h.campaign(e, "me")
	require.Equal(t, 1, w.Calls()-calls)
	h.resign(l)
	require.Equal(t, 2, w.Calls()-calls)

	first := h.campaign(h.node(), "first")
	calls = w.Calls()
	waiter := h.stand(h.ctx, e, "waiter", 2)
	for i := range 5 { // others come and go
		ctx, cancel := context.WithCancel(h.ctx)
		other := h.stand(ctx, h.node(), strconv.Itoa(i), 3)
		cancel()
		require.ErrorIs(t, other.failure(), context.Canceled)
		h.awaitKeys("job/", 2)
	}
	require.Equal(t, 1, w.Calls()-calls)
	h.resign(first)
	l = waiter.success()
	require.Contains(t, []int{2, 3}, w.Calls()-calls)
	h.resign(l)
}

func testHandle(t *testing.T, h *harness) {
	l := h.campaign(h.node(), "me")
	require.Equal(t, "job", l.Name())
	kvs := h.awaitKeys("job/", 1)
	require.Equal(t, l.Key(), kvs[0].Key)
	require.Equal(t, "me", string(kvs[0].Value), "the proposal is the value, and nothing else")
	require.Equal(t, l.Term(), fence.Token(kvs[0].CreateRevision))
	carried, ok := fence.FromContext(l.Context(), "job")
	require.True(t, ok)
	require.Equal(t, l.Term(), carried)
	require.Positive(t, l.Remaining())
	h.resign(l)
	require.Equal(t, election.ErrResigned, h.ended(l))
	require.Zero(t, l.Remaining())
	require.ErrorIs(t, l.Proclaim(h.ctx, "still me"), election.ErrLost)
	h.nothingLeft()
}

func testOutlivesCampaign(t *testing.T, h *harness) {
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(h.ctx, key{}, "carried"))
	l, err := h.node().Campaign(ctx, "me")
	require.NoError(t, err)
	cancel()
	require.True(t, l.Valid())
	require.NoError(t, l.Context().Err())
	require.Equal(t, "carried", l.Context().Value(key{}))
	res, err := l.Txn().Then(client.OpPut("state", nil)).Commit(h.ctx)
	require.NoError(t, err)
	require.True(t, res.Succeeded)
	h.resign(l)
	_, err = h.node().Campaign(ctx, "me")
	require.ErrorIs(t, err, context.Canceled)
	h.nothingLeft()
}

// What a leader of old writes is refused, and that is not the same as a
// condition of its own that does not hold.
func testGuarded(t *testing.T, h *harness) {
	old := h.campaign(h.node(), "old")
	res, err := old.Txn().Then(client.OpPut("state", []byte("1"))).Commit(h.ctx)
	require.NoError(t, err)
	require.True(t, res.Succeeded)
	res, err = old.Txn().If(client.Missing("state")).Then(client.OpPut("state", []byte("2"))).Commit(h.ctx)
	require.NoError(t, err)
	require.False(t, res.Succeeded)
	late := old.Txn().Then(client.OpPut("state", []byte("3")))
	h.resign(old)
	next := h.campaign(h.node(), "next")
	for _, txn := range []*client.GuardedTxn{late, old.Txn().Then(client.OpPut("state", []byte("4")))} {
		_, err = txn.Commit(h.ctx)
		require.ErrorIs(t, err, election.ErrLost)
		require.ErrorIs(t, err, client.ErrGuardFailed)
	}
	kv, err := h.c.GetOne(h.ctx, "state")
	require.NoError(t, err)
	require.Equal(t, "1", string(kv.Value))
	h.resign(next)
}

// A proclaimed value is seen by all, in order, and the term stays.
func testProclaim(t *testing.T, h *harness) {
	l := h.campaign(h.node(), "0")
	o := h.observe(h.ctx, h.node())
	before := o.leads(l, "0")
	const n = 5
	for i := range n {
		require.NoError(t, l.Proclaim(h.ctx, strconv.Itoa(i+1)))
	}
	for i := range n {
		step := o.leads(l, strconv.Itoa(i+1))
		require.Greater(t, step.Revision, before.Revision)
		before = step
	}
	require.True(t, l.Valid())
	kvs := h.awaitKeys("job/", 1)
	require.NotZero(t, kvs[0].Lease, "the key stays with its lease")
	h.resign(l)
	o.vacant()
}

func testResignTwice(t *testing.T, h *harness) {
	l := h.campaign(h.node(), "me")
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { errs[i] = l.Resign(h.ctx) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	next := h.campaign(h.node(), "next")
	require.NoError(t, l.Resign(h.ctx))
	require.True(t, next.Valid())
	h.resign(next)
}

// upper is a codec that can be told from the others.
type upper struct{}

func (upper) Encode(v int) ([]byte, error) { return strconv.AppendInt([]byte("n="), int64(v), 10), nil }
func (upper) Decode(b []byte) (int, error) { return strconv.Atoi(string(b[2:])) }

// Strings and bytes are written as they are, other values as JSON, or by the
// codec that is given.
func testValues(t *testing.T, h *harness) {
	type address struct {
		Host string `json:"host"`
		Port int    `json:"port"`
	}
	check(h, election.New[string](h.c, "text"), `{"raw"`, `{"raw"`)
	check(h, election.New[[]byte](h.c, "bytes"), []byte{0, 255}, "\x00\xff")
	check(h, election.New[address](h.c, "json"), address{"a", 1}, `{"host":"a","port":1}`)
	check(h, election.New[int](h.c, "codec", election.WithCodec[int](upper{})), 7, "n=7")
	_, err := election.New[string](h.c, "wrong", election.WithCodec[int](upper{})).Campaign(h.ctx, "x")
	require.ErrorContains(t, err, "codec")
	_, err = election.New[func()](h.c, "wrong").Campaign(h.ctx, nil)
	var unsupported *json.UnsupportedTypeError
	require.ErrorAs(t, err, &unsupported)
	h.awaitKeys("wrong", 0)
}

func check[T any](h *harness, e *election.Election[T], v T, stored string) {
	h.t.Helper()
	l, err := e.Campaign(h.ctx, v)
	require.NoError(h.t, err)
	kv, err := h.c.GetOne(h.ctx, l.Key())
	require.NoError(h.t, err)
	require.Equal(h.t, stored, string(kv.Value))
	now, err := e.Leader(h.ctx)
	require.NoError(h.t, err)
	require.Equal(h.t, v, now.Value)
	require.NoError(h.t, l.Resign(h.ctx))
}
