package electiontest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/election"
)

// chaosNode is a process that stands again and again, and writes down that it
// leads.
type chaosNode struct {
	link *clienttest.Link
	c    *client.Client
}

// lead appends the term to the log, in a transaction of the term, until it has
// to stop.
func (n *chaosNode) lead(ctx context.Context, l *leadership) error {
	for i := 0; ; i++ {
		key := fmt.Sprintf("log/%020d/%06d", l.Term(), i)
		_, err := l.Txn().Then(client.OpPut(key, nil), client.OpPut("last", nil)).Commit(context.WithoutCancel(ctx))
		if err != nil && !errors.Is(err, client.ErrUncertain) && !errors.Is(err, client.ErrUnavailable) {
			if errors.Is(err, election.ErrLost) {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		default:
		}
	}
}

// All that can happen happens, in an order drawn from a seed. The terms in the
// log never go back, every one of them was observed, and observed terms grow.
func testChaos(t *testing.T, h *harness) {
	const nodes, disasters = 4, 60
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	ctx, stop := context.WithCancel(h.ctx)
	var wg sync.WaitGroup
	errs := make([]error, nodes)
	all := make([]*chaosNode, nodes)
	for i := range nodes {
		n := &chaosNode{link: clienttest.NewLink()}
		n.c = h.client(client.Config{Dialer: n.link.Dial})
		all[i] = n
		e := election.New[string](n.c, "job", election.WithPriority(i/2), election.WithIdentity(strconv.Itoa(i)))
		wg.Go(func() { errs[i] = e.Run(ctx, strconv.Itoa(i), n.lead) })
	}
	o := h.observe(h.ctx, h.node())
	seen := make(map[uint64]bool)
	now := leader{Candidate: election.Candidate{}, Vacant: true}
	follow := func() leader { // until somebody leads that has not led before
		for {
			step := o.next()
			if step.Vacant {
				continue
			}
			if step.Term == now.Term {
				continue // as before, after a compaction
			}
			require.Greater(t, step.Term, now.Term, "observed terms grow")
			seen[uint64(step.Term)] = true
			return step
		}
	}
	kinds := make(map[int]int)
	for range disasters {
		now = follow()
		kind := random.IntN(6)
		kinds[kind]++
		h.disaster(kind, now, all[random.IntN(nodes)])
	}
	now = follow()
	stop()
	wg.Wait()
	for _, err := range errs {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Len(t, kinds, 6, "every kind of disaster")
	h.awaitKeys("job/", 0)
	h.checkLog(seen)
}

// disaster ends the leadership in one way or another.
func (h *harness) disaster(kind int, now leader, bystander *chaosNode) {
	h.t.Helper()
	e := h.node()
	switch kind {
	case 0:
		_, err := h.c.Delete(h.ctx, now.Key)
		require.NoError(h.t, err)
	case 1:
		if err := h.c.Revoke(h.ctx, now.Lease); err != nil {
			require.ErrorIs(h.t, err, client.ErrLeaseNotFound)
		}
	case 2:
		err := e.RequestStepDown(h.ctx, "chaos")
		require.True(h.t, err == nil || errors.Is(err, election.ErrNoLeader), "%v", err)
	case 3:
		err := e.RequestHandOver(h.ctx, strconv.Itoa((int(now.Value[0]-'0')+1)%4), "chaos")
		if errors.Is(err, election.ErrNoCandidate) || errors.Is(err, election.ErrNoLeader) {
			h.disaster(0, now, bystander)
			return
		}
		require.NoError(h.t, err)
	case 4: // and the connections of one break as well
		bystander.link.Cut()
		h.disaster(2, now, bystander)
	case 5: // and history is forgotten
		h.disaster(1, now, bystander)
		h.compact()
	}
}

// checkLog reads what the leaders have written: keys are ordered by their terms,
// so their revisions must be too.
func (h *harness) checkLog(seen map[uint64]bool) {
	h.t.Helper()
	res, err := h.c.Get(h.ctx, "log/", client.Prefix())
	require.NoError(h.t, err)
	last, terms := client.Revision(0), 0
	var term uint64
	for _, kv := range res.KVs {
		require.Greater(h.t, kv.ModRevision, last, "%s was written after a later term began", kv.Key)
		last = kv.ModRevision
		if t, err := strconv.ParseUint(kv.Key[4:24], 10, 64); err == nil && t != term {
			term = t
			terms++
		}
	}
	h.t.Logf("%d entries of %d terms, %d terms observed", len(res.KVs), terms, len(seen))
	require.Greater(h.t, terms, len(seen)/4, "leaders had the time to write")
}
