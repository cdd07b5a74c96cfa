package interop_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/interop/harness"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

var (
	crashRounds = flag.Int("crash.rounds", 4, "`rounds` of the crash test, each with a kill -9 of a random member")
	crashSeed   = flag.Uint64("crash.seed", 0, "`seed` of the crash test; 0 for one of the clock")
)

const (
	crashWorkers  = 6
	keysInRound   = 5   // fresh keys each round, so that histories stay short enough to check
	opsBefore     = 150 // operations that must succeed before a kill
	opsWithout    = 150 // and while the member is away
	opTimeout     = 5 * time.Second
	roundTimeout  = time.Minute
	checkTimeout  = time.Minute
	crashLock     = "crash/lock"
	crashPrefix   = "crash/keys/"
	lockHoldsLeft = 3 // lock holds that must succeed in a round
)

// TestCrash kills a random one of three members, again and again, while our
// client reads, writes, compares-and-swaps, locks and watches. Afterwards the
// histories of all keys must be linearizable, every write that was acknowledged
// must be there, and every watch must have seen every change once and in order.
func TestCrash(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("go test -run %s -crash.rounds %d -crash.seed %d", t.Name(), *crashRounds, seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s := startSide(t, *subjectKind, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(*crashRounds)*roundTimeout)
	defer cancel()

	load := startLoad(t, ctx, s.cluster, seed)
	watches := startWatches(t, ctx, s.cluster)
	kills := map[bool]int{}
	for round := range *crashRounds {
		load.newRound()
		load.await(t, ctx, opsBefore, 0)
		leader, err := s.cluster.Leader(ctx)
		require.NoError(t, err)
		victim := rng.IntN(len(s.cluster.Members))
		kills[victim == leader]++
		require.NoError(t, s.cluster.Members[victim].Kill())
		load.await(t, ctx, opsWithout, lockHoldsLeft)
		require.NoError(t, s.cluster.Members[victim].Start(ctx), "round %d", round)
	}
	load.newRound()
	load.await(t, ctx, opsBefore, lockHoldsLeft)
	load.stop(t)
	t.Logf("killed the leader %d times, others %d times; %d operations, %d of them uncertain, %d lock holds, %d lost",
		kills[true], kills[false], len(load.history), load.uncertain, load.holds, load.lostHolds)
	load.checkLinearizable(t)
	events := watches.finish(t, ctx, s.cluster)
	load.checkAcknowledged(t, ctx, s.cluster, events)
}

// load is the work that goes on while members die.
type load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	origin time.Time

	mu        sync.Mutex
	changed   chan struct{}         // protected by mu; closed and replaced when something succeeded
	round     int                   // protected by mu
	successes int                   // protected by mu; in this round
	roundHold int                   // protected by mu; lock holds in this round
	history   []porcupine.Operation // protected by mu
	acked     []ackedWrite          // protected by mu
	uncertain int                   // protected by mu
	holds     int                   // protected by mu
	lostHolds int                   // protected by mu
	holder    int                   // protected by mu; 0 for nobody
	lastToken uint64                // protected by mu
	faults    []error               // protected by mu
}

// ackedWrite is a write whose success was reported.
type ackedWrite struct {
	key, value string
	revision   client.Revision
}

func startLoad(t *testing.T, ctx context.Context, c *harness.Cluster, seed uint64) *load {
	l := &load{origin: time.Now(), changed: make(chan struct{})}
	ctx, l.cancel = context.WithCancel(ctx)
	t.Cleanup(func() { l.cancel(); l.done.Wait() })
	for i := range crashWorkers {
		cli := newOurClient(t, c)
		rng := rand.New(rand.NewPCG(seed, uint64(i+1)))
		l.done.Go(func() { l.work(ctx, cli, i, rng) })
	}
	for i := range 2 {
		cli := newOurClient(t, c)
		l.done.Go(func() { l.lockWork(ctx, cli, i+1) })
	}
	return l
}

func newOurClient(t *testing.T, c *harness.Cluster, endpoints ...string) *client.Client {
	t.Helper()
	if len(endpoints) == 0 {
		endpoints = c.Endpoints()
	}
	cli, err := client.New(client.Config{Endpoints: endpoints})
	require.NoError(t, err)
	t.Cleanup(func() { cli.Close() })
	return cli
}

func (l *load) newRound() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.round++
	l.successes, l.roundHold = 0, 0
}

// await waits until so many more operations have succeeded.
func (l *load) await(t *testing.T, ctx context.Context, ops, holds int) {
	t.Helper()
	l.mu.Lock()
	ops += l.successes
	holds += l.roundHold
	for l.successes < ops || l.roundHold < holds {
		if len(l.faults) > 0 {
			break
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("the load stands still: %v", ctx.Err())
		}
		l.mu.Lock()
	}
	err := errors.Join(l.faults...)
	l.mu.Unlock()
	require.NoError(t, err)
}

func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.done.Wait()
	require.NoError(t, errors.Join(l.faults...))
}

// note records what came of something. The caller holds mu.
func (l *load) note() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// work does one operation after the other on the round's keys.
func (l *load) work(ctx context.Context, c *client.Client, worker int, rng *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		l.mu.Lock()
		key := fmt.Sprintf("%s%04d/%d", crashPrefix, l.round, rng.IntN(keysInRound))
		l.mu.Unlock()
		in := registerInput{key: key, op: registerOp(rng.IntN(3)), value: fmt.Sprintf("%d.%d", worker, n)}
		if in.op == swapOp {
			in.old = l.anyValue(key, rng)
		}
		opCtx, cancel := context.WithTimeout(ctx, opTimeout)
		call := time.Since(l.origin)
		out, rev, err := in.run(opCtx, c)
		returned := time.Since(l.origin)
		cancel()
		l.record(ctx, worker, in, out, rev, err, call, returned)
	}
}

// record keeps an operation whose effect is known, or may have been: one of
// unknown outcome stays open to the end of time. One that certainly had no
// effect, and a read without an answer, say nothing.
func (l *load) record(ctx context.Context, worker int, in registerInput, out registerOutput, rev client.Revision, err error, call, returned time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	op := porcupine.Operation{ClientId: worker, Input: in, Output: out, Call: int64(call), Return: int64(returned)}
	switch {
	case err == nil:
		l.successes++
		l.note()
		if in.op == writeOp || out.swapped {
			l.acked = append(l.acked, ackedWrite{in.key, in.value, rev})
		}
	case errors.Is(err, client.ErrUncertain):
		l.uncertain++
		op.Output = registerOutput{unknown: true}
		op.Return = int64(1<<63 - 1)
	case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrNoLeader), ctx.Err() != nil,
		errors.Is(err, context.DeadlineExceeded):
		return
	default:
		l.faults = append(l.faults, fmt.Errorf("%v %s: %w", in.op, in.key, err))
		l.note()
		return
	}
	l.history = append(l.history, op)
}

// anyValue picks a value that was written to the key lately.
func (l *load) anyValue(key string, rng *rand.Rand) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	const recent = 20
	for i := len(l.acked) - 1; i >= max(len(l.acked)-recent, 0); i-- {
		if l.acked[i].key == key && rng.IntN(3) > 0 {
			return l.acked[i].value
		}
	}
	return "none"
}

// lockWork takes the lock again and again and looks out for a second holder.
func (l *load) lockWork(ctx context.Context, c *client.Client, id int) {
	for ctx.Err() == nil {
		err := lock.New(c, crashLock).Do(ctx, func(ctx context.Context, held *lock.Held) error {
			l.enterLock(id, uint64(held.Token()))
			defer l.leaveLock()
			_, err := held.Txn().Then(client.OpPut(crashLock+".last", []byte(held.Key()))).Commit(ctx)
			return err
		})
		l.mu.Lock()
		switch {
		case err == nil:
			l.holds++
			l.roundHold++
		case errors.Is(err, lock.ErrLost):
			l.lostHolds++
		}
		l.note()
		l.mu.Unlock()
	}
}

func (l *load) enterLock(id int, token uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder != 0 {
		l.faults = append(l.faults, fmt.Errorf("%d and %d hold the lock at once", l.holder, id))
	}
	if token <= l.lastToken {
		l.faults = append(l.faults, fmt.Errorf("token %d after %d", token, l.lastToken))
	}
	l.holder, l.lastToken = id, token
}

func (l *load) leaveLock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder = 0
}
