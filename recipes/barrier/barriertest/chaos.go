package barriertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/recipes/barrier"
)

const (
	chaosMembers     = 3
	chaosGenerations = 60
	// chaosKillPart is how many steps there are to one death, on average.
	chaosKillPart = 12
)

// ledger is what the members of a cyclic barrier have done, to be compared with what they
// were told.
type ledger struct {
	ctx  context.Context // ends when there were enough generations, or something is wrong
	stop context.CancelFunc

	mu      sync.Mutex          // protects what follows
	began   map[string]int      // by member: how many rounds it has finished, and so awaited the end of
	rosters map[uint64][]string // by generation
	trips   map[string]int      // by member: how many generations had it as a member
	kills   int
	fault   error
}

func (l *ledger) faultf(format string, args ...any) {
	if l.fault == nil {
		l.fault = fmt.Errorf(format, args...)
	}
}

// saw notes what a member was told.
func (l *ledger) saw(name string, a barrier.Arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.Members[a.Index] != name {
		l.faultf("generation %d: %s is not %d of %v", a.Generation, name, a.Index, a.Members)
	}
	if known, ok := l.rosters[a.Generation]; !ok {
		l.rosters[a.Generation] = a.Members
		for _, m := range a.Members {
			if l.trips[m]++; l.trips[m] > l.began[m] {
				l.faultf("generation %d is early: %s has not arrived", a.Generation, m)
			}
		}
	} else if fmt.Sprint(known) != fmt.Sprint(a.Members) {
		l.faultf("generation %d: %v and %v", a.Generation, known, a.Members)
	}
	if len(l.rosters) >= chaosGenerations || l.fault != nil {
		l.stop()
	}
}

func (l *ledger) killed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kills++
}

// Members die at every step: before they arrive, while they wait, right after, and while
// the last one completes the generation. No generation is complete early, all agree on it,
// and it goes on and on: with Wait and Break others take the place of the dead.
func testCyclicKills(t *testing.T, h *harness) {
	for _, policy := range policies {
		l := &ledger{began: make(map[string]int), rosters: make(map[uint64][]string), trips: make(map[string]int)}
		var wg sync.WaitGroup
		errs := make([]error, chaosMembers)
		l.ctx, l.stop = context.WithCancel(h.ctx)
		for i := range chaosMembers {
			seed := rand.New(rand.NewPCG(uint64(i), uint64(policy)))
			wg.Go(func() { errs[i] = h.live(l, seed, i, policy) })
		}
		wg.Wait()
		require.NoError(t, h.ctx.Err(), "policy %s: stuck after %d generations", policy, len(l.rosters))
		require.NoError(t, errors.Join(append(errs, l.fault)...), "policy %s", policy)
		require.Greater(t, l.kills, 4, "policy %s", policy)
		t.Logf("%s: %d generations, %d killed", policy, len(l.rosters), l.kills)
	}
}

// live is one worker: it comes, dies, and comes again as somebody else.
func (h *harness) live(l *ledger, r *rand.Rand, worker int, policy barrier.LossPolicy) error {
	c := h.process().c
	for life := 0; l.ctx.Err() == nil; life++ {
		s, err := c.NewSession(h.ctx)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("w%d.%d", worker, life)
		err = h.work(l, r, &process{h, c, s}, name, policy)
		if l.ctx.Err() == nil && !errors.Is(err, barrier.ErrLost) && !errors.Is(err, barrier.ErrBroken) {
			return fmt.Errorf("%s: %w", name, err)
		}
		_ = s.Close(h.ctx) // it may be dead
	}
	return nil
}

// work is one life.
func (h *harness) work(l *ledger, r *rand.Rand, p *process, name string, policy barrier.LossPolicy) error {
	b := barrier.NewCyclic(p.c, "job-"+policy.String(), chaosMembers,
		barrier.WithSession(p.s), barrier.WithMember(name), barrier.WithOnLoss(policy))
	party, err := b.Join(l.ctx)
	if err != nil {
		return err
	}
	var killed sync.WaitGroup
	defer killed.Wait()
	for dying := false; ; {
		if !dying && r.IntN(chaosKillPart) == 0 {
			dying = true
			l.killed()
			killed.Go(func() { p.die() })
			if r.IntN(2) == 0 {
				killed.Wait()
			}
		}
		l.mu.Lock()
		l.began[name]++
		l.mu.Unlock()
		a, err := party.Await(l.ctx)
		if err != nil {
			_ = party.Leave(h.ctx) // what it says is known
			return err
		}
		l.saw(name, a)
	}
}
