// Package barriertest holds what package barrier promises on top of any server that
// speaks the etcd v3 API. It is test support: the tests of Latchkey's server run it
// against their members, and the interop tests against etcd.
package barriertest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/barrier"
)

// caseTimeout bounds one case, so that what would wait for ever fails. It is far more than the longest one takes,
// which is some seconds, as the machine may be busy with other things.
const caseTimeout = 2 * time.Minute

// Run runs all cases against the cluster at endpoints. Each case uses keys of its own,
// named after it, and leaves other keys alone; history is compacted on the way.
func Run(t *testing.T, endpoints []string) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h *harness)
	}{
		{"Gate/HoldOpenWait", testGate},
		{"Gate/Session", testGateSession},
		{"Gate/LateRequests", testGateLate},
		{"Gate/MissedEventOfEtcd16223", testGateMissedEvent},
		{"Gate/WatchThatEndsIsNoEvent", testGateCompacted},
		{"Latch/CountDown", testLatch},
		{"Latch/RetryCountsOnceP27", testLatchLostAnswers},
		{"Latch/Reset", testLatchReset},
		{"Latch/Concurrent", testLatchConcurrent},
		{"Double/Rounds", testDoubleRounds},
		{"Double/OfEtcd14603", testDoubleTooMany},
		{"Double/FastMemberOfErrTooManyClients", testDoubleFastMember},
		{"Double/EarlyOfGH1290", testDoubleNeverEarly},
		{"Double/StaleReady", testDoubleAllDie},
		{"Double/LeaveTimeoutOfCurator233And536", testDoubleLeaveTimeout},
		{"Double/Handle", testDoubleHandle},
		{"Double/Thousand", testDoubleThousand},
		{"Cyclic/Generations", testCyclicGenerations},
		{"Cyclic/AwaitGoesOn", testCyclicAwaitGoesOn},
		{"Cyclic/Busy", testCyclicBusy},
		{"Cyclic/Full", testCyclicFull},
		{"Cyclic/Reset", testCyclicReset},
		{"Cyclic/KillsP26", testCyclicKills},
		{"Cyclic/LastOneLost", testCyclicLastOneLost},
		{"Action/RunsOnce", testActionOnce},
		{"Action/ActorDies", testActionActorDies},
		{"Action/Fails", testActionFails},
		{"Phaser/Phases", testPhaser},
		{"Phaser/Observer", testPhaserObserver},
		{"Loss/Gathering", testLossGathering},
		{"Loss/Inside", testLossInside},
		{"Loss/BetweenRounds", testLossBetweenRounds},
		{"Loss/OwnKey", testLossOwnKey},
		{"Loss/EveryStep", testLossEveryStep},
		{"Cancel/Enter", testCancelEnter},
		{"Cancel/Anywhere", testCancelAnywhere},
		{"Answers/EveryOneDropped", testEveryAnswerDropped},
		{"Answers/EnterLate", testEnterLate},
		{"Answers/LeaveLost", testLeaveAnswerLost},
		{"Network/Cut", testNetworkCut},
		{"History/Compacted", testCompacted},
		{"History/CompactedBeforeKnown", testCompactedBeforeKnown},
		{"History/CompactedWhileLooking", testCompactedWhileLooking},
		{"Terms/Conflict", testConflict},
		{"Terms/Invalid", testInvalid},
		{"Record/Deleted", testRecordDeleted},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, newHarness(t, endpoints))
		})
	}
}

// policies are all there are.
var policies = []barrier.LossPolicy{barrier.Break, barrier.Wait, barrier.Shrink}

// harness is what a case works with.
type harness struct {
	t         *testing.T
	ctx       context.Context
	endpoints []string
	namespace string
	c         *client.Client // the case's first client
}

func newHarness(t *testing.T, endpoints []string) *harness {
	ctx, cancel := context.WithTimeout(t.Context(), caseTimeout)
	t.Cleanup(cancel)
	h := &harness{
		t:         t,
		ctx:       ctx,
		endpoints: endpoints,
		namespace: "barriertest/" + strings.TrimPrefix(t.Name(), "Test") + "/",
	}
	h.c = h.client(client.Config{})
	_, err := h.c.Delete(ctx, "", client.Prefix())
	require.NoError(t, err)
	return h
}

// client returns another client of the cluster, in the case's namespace.
func (h *harness) client(cfg client.Config) *client.Client {
	cfg.Endpoints = h.endpoints
	cfg.Namespace = h.namespace
	c, err := client.New(cfg)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { require.NoError(h.t, c.Close()) })
	return c
}

// process is a client with a session that can die.
type process struct {
	h *harness
	c *client.Client
	s *client.Session
}

func (h *harness) process() *process { return h.processOn(client.Config{}) }

func (h *harness) processOn(cfg client.Config) *process {
	h.t.Helper()
	c := h.client(cfg)
	s, err := c.Session(h.ctx)
	require.NoError(h.t, err)
	return &process{h, c, s}
}

// die makes the process one that has died a TTL ago: its lease is revoked by somebody
// else, and it never says anything again.
func (p *process) die() {
	p.h.t.Helper()
	require.NoError(p.h.t, p.h.c.Revoke(p.h.ctx, p.s.ID()))
}

// call is a call on a goroutine of its own.
type call[T any] struct {
	h      *harness
	done   chan struct{}
	result T
	err    error
}

func start[T any](h *harness, f func() (T, error)) *call[T] {
	a := &call[T]{h: h, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.result, a.err = f()
	}()
	return a
}

// none makes a function with no result one for start.
func none(f func(context.Context) error, ctx context.Context) func() (struct{}, error) {
	return func() (struct{}, error) { return struct{}{}, f(ctx) }
}

func (a *call[T]) wait() (T, error) {
	a.h.t.Helper()
	select {
	case <-a.done:
	case <-a.h.ctx.Done():
		a.h.t.Fatal("the call did not return")
	}
	return a.result, a.err
}

func (a *call[T]) success() T {
	a.h.t.Helper()
	result, err := a.wait()
	require.NoError(a.h.t, err)
	return result
}

func (a *call[T]) failure() error {
	a.h.t.Helper()
	_, err := a.wait()
	require.Error(a.h.t, err)
	return err
}

// stillWaits fails if the call has returned.
func (a *call[T]) stillWaits() {
	a.h.t.Helper()
	select {
	case <-a.done:
		a.h.t.Fatalf("the call returned: %v, %v", a.result, a.err)
	default:
	}
}

// await reads the keys below a prefix, and again after each change, until ok is
// satisfied.
func (h *harness) await(prefix string, ok func([]client.KV) bool) []client.KV {
	h.t.Helper()
	for {
		res, err := h.c.Get(h.ctx, prefix, client.Prefix(), client.Ascending(client.ByCreateRevision))
		require.NoError(h.t, err, "while waiting for the keys of %q", prefix)
		if ok(res.KVs) {
			return res.KVs
		}
		for _, err := range h.c.Watch(h.ctx, prefix, client.Prefix(), client.FromRevision(res.Revision+1)) {
			if err != nil && h.ctx.Err() == nil {
				require.ErrorIs(h.t, err, client.ErrCompacted)
			}
			break
		}
	}
}

// awaitKeys waits until there are n keys below a prefix.
func (h *harness) awaitKeys(prefix string, n int) []client.KV {
	h.t.Helper()
	return h.await(prefix, func(kvs []client.KV) bool { return len(kvs) == n })
}

// happened waits until something that a channel tells of has happened.
func (h *harness) happened(c <-chan struct{}) {
	h.t.Helper()
	select {
	case <-c:
	case <-h.ctx.Done():
		h.t.Fatal("what the case waits for did not happen")
	}
}

// ended waits for the end of a handle's context and returns why it ended.
func (h *harness) ended(ctx context.Context) error {
	h.t.Helper()
	select {
	case <-ctx.Done():
	case <-h.ctx.Done():
		h.t.Fatal("the context did not end")
	}
	return context.Cause(ctx)
}

// died checks that a handle of a process that has died has ended. With the policy Break
// it may learn first that the others have noticed.
func (h *harness) died(ctx context.Context) {
	h.t.Helper()
	if err := h.ended(ctx); !errors.Is(err, barrier.ErrBroken) {
		require.ErrorIs(h.t, err, barrier.ErrLost)
	}
}

// forget compacts all history there is.
func (h *harness) forget() {
	h.t.Helper()
	res, err := h.c.Put(h.ctx, "other", nil)
	require.NoError(h.t, err)
	require.NoError(h.t, h.c.Compact(h.ctx, res.Revision))
}

func (h *harness) enter(p *process, name string, n int, opts ...barrier.Option) *call[*barrier.Inside] {
	d := barrier.NewDouble(p.c, name, n, append([]barrier.Option{barrier.WithSession(p.s)}, opts...)...)
	return start(h, func() (*barrier.Inside, error) { return d.Enter(h.ctx) })
}

func (h *harness) joinCyclic(p *process, name string, n int, opts ...barrier.Option) *barrier.Party {
	h.t.Helper()
	b := barrier.NewCyclic(p.c, name, n, append([]barrier.Option{barrier.WithSession(p.s)}, opts...)...)
	party, err := b.Join(h.ctx)
	require.NoError(h.t, err)
	return party
}

func (h *harness) awaitTrip(p *barrier.Party) *call[barrier.Arrival] {
	return start(h, func() (barrier.Arrival, error) { return p.Await(h.ctx) })
}

func (h *harness) leave(in *barrier.Inside) *call[struct{}] { return start(h, none(in.Leave, h.ctx)) }
