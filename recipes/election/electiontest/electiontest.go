// Package electiontest holds what package election promises on top of any server
// that speaks the etcd v3 API. It is test support: the tests of Latchkey's server
// run it against their members, and the interop tests against etcd.
package electiontest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/election"
)

// caseTimeout bounds one case, so that what would wait for ever fails.
const caseTimeout = 2 * time.Minute

// Run runs all cases against the cluster at endpoints. Each case uses keys of
// its own, named after it, and leaves other keys alone; history is compacted on
// the way. A case that repeats a bug of another implementation has its name.
func Run(t *testing.T, endpoints []string) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h *harness)
	}{
		{"Line/Order", testOrder},
		{"Line/Goroutines", testGoroutines},
		{"Line/MiddleLeaves", testMiddleLeaves},
		{"Line/Costs", testCosts},
		{"Handle", testHandle},
		{"Handle/OutlivesCampaign", testOutlivesCampaign},
		{"Handle/GuardedTransactions", testGuarded},
		{"Handle/Proclaim", testProclaim},
		{"Handle/ResignTwice", testResignTwice},
		{"Handle/Values", testValues},
		{"Loss/KeyDeleted", testKeyDeleted},
		{"Loss/RecordDeleted", testRecordDeleted},
		{"Loss/SessionClosed", testSessionClosed},
		{"Loss/ProcessDies", testProcessDies},
		{"Phantom/charts-326", testPhantom},
		{"Phantom/CURATOR-644", testLostWhileCampaigning},
		{"Phantom/CURATOR-696", testForeignKey},
		{"Phantom/BothGoneUnseen", testBothGoneUnseen},
		{"Orphan/etcd-21128", testCancelAnywhere},
		{"Orphan/etcd-6681", testResignWhileCampaigning},
		{"Orphan/CURATOR-79", testCancelInFlight},
		{"Observe/trillian-1387", testObserveVacancy},
		{"Observe/etcd-18163", testObserveBatch},
		{"Observe/etcd-7815", testObserveCompacted},
		{"Observe/Terms", testObserveTerms},
		{"Observe/Network", testObserveNetwork},
		{"Observe/Undecodable", testObserveUndecodable},
		{"Observe/EtcdCandidate", testEtcdCandidate},
		{"Observe/Leader", testLeader},
		{"Run/Requeue", testRunRequeue},
		{"Run/client-go-728", testRunWaits},
		{"Run/Results", testRunResults},
		{"Run/Loss", testRunLoss},
		{"Run/Session", testRunSession},
		{"Run/Panic", testRunPanic},
		{"StepDown/Request", testStepDown},
		{"StepDown/Withdrawn", testStepDownWithdrawn},
		{"StepDown/NotHeard", testStepDownNotHeard},
		{"StepDown/LaterTerm", testStepDownLaterTerm},
		{"StepDown/Compacted", testStepDownCompacted},
		{"HandOver/Named", testHandOver},
		{"HandOver/Request", testHandOverRequest},
		{"HandOver/Gone", testHandOverGone},
		{"Priority/Converges", testPriority},
		{"Priority/Preempts", testPreempt},
		{"Priority/NamedIsNotPreempted", testNamedIsNotPreempted},
		{"Priority/Observed", testPriorityObserved},
		{"Health/Gate", testHealth},
		{"Identity/Restart", testRestart},
		{"Identity/Twice", testIdentityTwice},
		{"Answers/EveryOneDropped", testEveryAnswerDropped},
		{"Answers/CreateLate", testCreateLate},
		{"Answers/ResignLate", testResignLate},
		{"History/Compacted", testCompacted},
		{"Chaos", testChaos},
		{"Names/Invalid", testInvalidNames},
		{"Names/Nested", testNested},
		{"Names/Conflicts", testConflicts},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, newHarness(t, endpoints))
		})
	}
}

// Short forms of the types that cases use most.
type (
	elections  = election.Election[string]
	leadership = election.Leadership[string]
	leader     = election.Leader[string]
)

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
		namespace: "electiontest/" + strings.TrimPrefix(t.Name(), "Test") + "/",
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

func (h *harness) session(c *client.Client, opts ...client.SessionOption) *client.Session {
	h.t.Helper()
	s, err := c.NewSession(h.ctx, opts...)
	require.NoError(h.t, err)
	return s
}

// node is another process that stands for the election "job".
func (h *harness) node(opts ...election.Option) *elections {
	return election.New[string](h.client(client.Config{}), "job", opts...)
}

func (h *harness) campaign(e *elections, value string) *leadership {
	h.t.Helper()
	l, err := e.Campaign(h.ctx, value)
	require.NoError(h.t, err)
	require.True(h.t, l.Valid())
	return l
}

func (h *harness) resign(l *leadership) {
	h.t.Helper()
	require.NoError(h.t, l.Resign(h.ctx))
	require.False(h.t, l.Valid())
}

// task is a call on a goroutine of its own.
type task[T any] struct {
	h      *harness
	done   chan struct{}
	result T
	err    error
}

func start[T any](h *harness, f func() (T, error)) *task[T] {
	a := &task[T]{h: h, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.result, a.err = f()
	}()
	return a
}

// stand campaigns, and returns when it waits in the line as the n-th key.
func (h *harness) stand(ctx context.Context, e *elections, value string, n int) *task[*leadership] {
	h.t.Helper()
	a := start(h, func() (*leadership, error) { return e.Campaign(ctx, value) })
	h.awaitKeys("job/", n)
	return a
}

func (a *task[T]) wait() (T, error) {
	a.h.t.Helper()
	select {
	case <-a.done:
	case <-a.h.ctx.Done():
		a.h.t.Fatal("the call did not return")
	}
	return a.result, a.err
}

func (a *task[T]) success() T {
	a.h.t.Helper()
	result, err := a.wait()
	require.NoError(a.h.t, err)
	return result
}

func (a *task[T]) failure() error {
	a.h.t.Helper()
	_, err := a.wait()
	require.Error(a.h.t, err)
	return err
}

// stillWaits fails if the call has returned.
func (a *task[T]) stillWaits() {
	a.h.t.Helper()
	select {
	case <-a.done:
		a.h.t.Fatalf("the call returned: %v, %v", a.result, a.err)
	default:
	}
}

// await reads the keys below a prefix, and again after each change, until ok is
// satisfied. It returns them, the oldest first.
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

// nothingLeft waits until no key of the election is left, of whatever kind.
func (h *harness) nothingLeft() {
	h.t.Helper()
	h.awaitKeys("job", 0)
}

// compact forgets all history up to now.
func (h *harness) compact() {
	h.t.Helper()
	res, err := h.c.Put(h.ctx, "other", nil)
	require.NoError(h.t, err)
	require.NoError(h.t, h.c.Compact(h.ctx, res.Revision))
}

// ended waits for the end of the handle's context and returns why it ended.
func (h *harness) ended(l *leadership) error {
	h.t.Helper()
	select {
	case <-l.Context().Done():
	case <-h.ctx.Done():
		h.t.Fatal("the loss was not noticed")
	}
	return context.Cause(l.Context())
}

func (h *harness) lostReason(err error) error {
	h.t.Helper()
	require.ErrorIs(h.t, err, election.ErrLost)
	var lost *election.LostError
	require.ErrorAs(h.t, err, &lost)
	return lost.Reason
}

// observed is a loop over Observe that hands its steps out one by one.
type observed struct {
	h     *harness
	steps chan leader
	end   chan error
}

func (h *harness) observe(ctx context.Context, e *elections) *observed {
	o := &observed{h: h, steps: make(chan leader), end: make(chan error, 1)}
	go func() {
		for step, err := range e.Observe(ctx) {
			if err != nil {
				o.end <- err
				return
			}
			select {
			case o.steps <- step:
			case <-h.ctx.Done():
				return
			}
		}
	}()
	return o
}

func (o *observed) next() leader {
	o.h.t.Helper()
	select {
	case step := <-o.steps:
		return step
	case err := <-o.end:
		o.h.t.Fatalf("Observe ended: %v", err)
	case <-o.h.ctx.Done():
		o.h.t.Fatal("nothing was observed")
	}
	return leader{}
}

// leads expects the next step to be the leadership, with the value.
func (o *observed) leads(l *leadership, value string) leader {
	o.h.t.Helper()
	step := o.next()
	require.False(o.h.t, step.Vacant)
	require.Equal(o.h.t, value, step.Value)
	require.Equal(o.h.t, l.Term(), step.Term)
	require.Equal(o.h.t, l.Key(), step.Key)
	return step
}

func (o *observed) vacant() {
	o.h.t.Helper()
	step := o.next()
	require.True(o.h.t, step.Vacant, "%v", step)
	require.Zero(o.h.t, step.Term)
}
