package electiontest

import (
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/election"
)

// That nobody leads is said at once, even if nobody ever did, and again when the
// leader has left.
func testObserveVacancy(t *testing.T, h *harness) {
	o := h.observe(h.ctx, h.node())
	o.vacant()
	l := h.campaign(h.node(), "me")
	o.leads(l, "me")
	h.resign(l)
	o.vacant()
	_, err := h.node().Leader(h.ctx)
	require.ErrorIs(t, err, election.ErrNoLeader)
}

// Many changes of many candidates come in one batch, or in one revision, and not
// in the order of the line: only those of the leader count.
func testObserveBatch(t *testing.T, h *harness) {
	first := h.campaign(h.node(), "first")
	// Keys are ordered by their leases; let the leader's be neither the first
	// nor the last, if it can be.
	var line []*task[*leadership]
	for i := range 4 {
		line = append(line, h.stand(h.ctx, h.node(), "waiter", i+2))
	}
	o := h.observe(h.ctx, h.node())
	seen := o.leads(first, "first")
	kvs := h.awaitKeys("job/", 5)
	// The loop is not at it, so the changes gather.
	const rounds = 20
	for i := range rounds {
		value := []byte(strconv.Itoa(i))
		for n := range kvs { // the last one in line is the last to be written
			_, err := h.c.Put(h.ctx, kvs[n].Key, value, client.KeepLease())
			require.NoError(t, err)
		}
		txn := h.c.Txn()
		for n := range kvs {
			txn = txn.Then(client.OpPut(kvs[len(kvs)-1-n].Key, append(value, '+'), client.KeepLease()))
		}
		_, err := txn.Commit(h.ctx)
		require.NoError(t, err)
	}
	for i := range rounds {
		for _, value := range []string{strconv.Itoa(i), strconv.Itoa(i) + "+"} {
			step := o.leads(first, value)
			require.Greater(t, step.Revision, seen.Revision)
			seen = step
		}
	}
	last := first
	for _, a := range line {
		h.resign(last)
		last = a.success()
		o.leads(last, strconv.Itoa(rounds-1)+"+")
	}
	h.resign(last)
	o.vacant()
}

// The leader changes while it can not be seen, and history is compacted before it
// can: the observer goes on with what is.
func testObserveCompacted(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	o := h.observe(h.ctx, election.New[string](h.client(client.Config{Dialer: link.Dial}), "job"))
	o.vacant()
	first := h.campaign(h.node(), "first")
	o.leads(first, "first")

	restore := link.Down()
	h.resign(first)
	second := h.campaign(h.node(), "second")
	h.compact()
	restore()
	o.leads(second, "second")

	// Nothing has changed, but what was seen last is compacted all the same.
	restore = link.Down()
	h.compact()
	restore()
	require.NoError(t, second.Proclaim(h.ctx, "third"))
	o.leads(second, "third")

	restore = link.Down()
	h.resign(second)
	h.compact()
	restore()
	o.vacant()
}

// Each leader is observed, in the order of the terms, and no vacancy where there
// was none.
func testObserveTerms(t *testing.T, h *harness) {
	const leaders = 6
	o := h.observe(h.ctx, h.node())
	o.vacant()
	last := h.campaign(h.node(), "0")
	for i := range leaders {
		next := h.stand(h.ctx, h.node(), strconv.Itoa(i+1), 2)
		h.resign(last)
		o.leads(last, strconv.Itoa(i))
		last = next.success()
	}
	o.leads(last, strconv.Itoa(leaders))
	h.resign(last)
	o.vacant()

	ctx, cancel := context.WithCancel(h.ctx)
	ends := h.observe(ctx, h.node())
	ends.vacant()
	cancel()
	require.ErrorIs(t, <-ends.end, context.Canceled)
}

// Connections break again and again: nothing is missed, and nothing told twice.
func testObserveNetwork(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	o := h.observe(h.ctx, election.New[string](h.client(client.Config{Dialer: link.Dial}), "job"))
	o.vacant()
	const terms = 8
	cuts := 0
	for i := range terms {
		cuts += link.Cut()
		l := h.campaign(h.node(), strconv.Itoa(i))
		o.leads(l, strconv.Itoa(i))
		cuts += link.Cut()
		h.resign(l)
		o.vacant()
	}
	require.Greater(t, cuts, terms, "connections that were cut")
}

// A value that can not be decoded is told with its leader, and the loop goes on.
func testObserveUndecodable(t *testing.T, h *harness) {
	s := h.session(h.c)
	key := "job/" + s.ID().String()
	_, err := h.c.Put(h.ctx, key, []byte("no number"), client.WithLease(s.ID()))
	require.NoError(t, err)
	e := election.New[int](h.c, "job")
	now, err := e.Leader(h.ctx)
	var undecodable *client.DecodeError
	require.ErrorAs(t, err, &undecodable)
	require.Equal(t, key, now.Key)
	steps := 0
	for step, err := range e.Observe(h.ctx) {
		steps++
		if steps == 1 {
			require.ErrorAs(t, err, &undecodable)
			require.Equal(t, key, undecodable.Key)
			require.Equal(t, key, step.Key)
			require.Equal(t, "no number", string(step.Proposal))
			_, err := h.c.Put(h.ctx, key, []byte("7"), client.KeepLease())
			require.NoError(t, err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, 7, step.Value)
		break
	}
	require.Equal(t, 2, steps)
}

// A candidate of etcd's clients is a key with a value, and no more. It leads, is
// seen, and waits like others.
func testEtcdCandidate(t *testing.T, h *harness) {
	s := h.session(h.c)
	key := "job/" + s.ID().String()
	o := h.observe(h.ctx, h.node())
	o.vacant()
	res, err := h.c.Put(h.ctx, key, []byte("etcd"), client.WithLease(s.ID()))
	require.NoError(t, err)
	step := o.next()
	require.Equal(t, "etcd", step.Value)
	require.EqualValues(t, res.Revision, step.Term)
	require.Equal(t, s.ID().String(), step.ID)
	require.False(t, step.Ours)

	ours := h.stand(h.ctx, h.node(election.WithPriority(9)), "ours", 2)
	ours.stillWaits()
	_, err = h.c.Delete(h.ctx, key)
	require.NoError(t, err)
	l := ours.success()
	o.leads(l, "ours")
	_, err = h.c.Put(h.ctx, key, []byte("etcd again"), client.WithLease(s.ID()))
	require.NoError(t, err)
	h.resign(l)
	require.Equal(t, "etcd again", o.next().Value)
}

func testLeader(t *testing.T, h *harness) {
	e := h.node(election.WithIdentity("a"))
	_, err := e.Leader(h.ctx)
	require.ErrorIs(t, err, election.ErrNoLeader)
	none, err := e.Candidates(h.ctx)
	require.NoError(t, err)
	require.Empty(t, none)

	l := h.campaign(e, "me")
	waiter := h.stand(h.ctx, h.node(election.WithPriority(3), election.WithPreempt()), "waiter", 2)
	now, err := h.node().Leader(h.ctx)
	require.NoError(t, err)
	require.Equal(t, "me", now.Value)
	require.Equal(t, "a", now.ID)
	require.Equal(t, l.Term(), now.Term)
	require.NotZero(t, now.Revision)

	line, err := h.node().Candidates(h.ctx)
	require.NoError(t, err)
	require.Len(t, line, 2)
	require.Equal(t, now.Candidate, line[0])
	second := line[1]
	require.Equal(t, second.Lease.String(), second.ID)
	require.Equal(t, "job/"+second.ID, second.Key)
	require.Equal(t, election.Candidate{
		ID: second.ID, Key: second.Key, Lease: second.Lease, Term: second.Term,
		Proposal: []byte("waiter"), Priority: 3, Preempts: true, Ours: true,
	}, second)
	h.resign(l)
	h.resign(waiter.success())
}
