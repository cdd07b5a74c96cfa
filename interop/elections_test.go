package interop_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/interop/harness"
	"github.com/latchkey-go/latchkey/recipes/election"
)

const electionName = "interop/leader"

func ourClient(t testing.TB, endpoints []string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Endpoints: endpoints})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func ourElection(t testing.TB, endpoints []string, opts ...election.Option) *election.Election[string] {
	t.Helper()
	return election.New[string](ourClient(t, endpoints), electionName, opts...)
}

func etcdSession(t *testing.T, s *side) (*clientv3.Client, *concurrency.Session) {
	t.Helper()
	cli, err := s.cluster.Client()
	require.NoError(t, err)
	t.Cleanup(func() { cli.Close() })
	// It notices that it has ended when it renews, after a third of this.
	session, err := concurrency.NewSession(cli, concurrency.WithTTL(6))
	require.NoError(t, err)
	return cli, session
}

// line waits until there are n candidates.
func line(ctx context.Context, t testing.TB, c *client.Client, n int) []client.KV {
	t.Helper()
	for {
		res, err := c.Get(ctx, electionName+"/", client.Prefix(), client.Ascending(client.ByCreateRevision))
		require.NoError(t, err)
		if len(res.KVs) == n {
			return res.KVs
		}
		for _, err := range c.Watch(ctx, electionName+"/", client.Prefix(), client.FromRevision(res.Revision+1)) {
			require.NoError(t, err)
			break
		}
	}
}

type campaigned struct {
	l   *election.Leadership[string]
	err error
}

func campaign(ctx context.Context, e *election.Election[string], value string) <-chan campaigned {
	result := make(chan campaigned, 1)
	go func() {
		l, err := e.Campaign(ctx, value)
		result <- campaigned{l, err}
	}()
	return result
}

// TestElectionsTakePart lets our candidates, concurrency.Election and the command
// etcdctl elect stand for one election, on either server: they wait for each
// other, in the order in which they came, and see each other lead.
func TestElectionsTakePart(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) { testElectionsTakePart(t, startSide(t, kind, 1)) })
	}
}

func testElectionsTakePart(t *testing.T, s *side) {
	ctx := testContext(t)
	c := ourClient(t, s.cluster.Endpoints())
	ours := election.New[string](c, electionName)
	seen := watchElection(ctx, t, s)

	l, err := ours.Campaign(ctx, "ours")
	require.NoError(t, err)
	require.Equal(t, l.Key(), seen.leads("ours").Key)

	// concurrency.Election sees our leader, and waits for it.
	_, session := etcdSession(t, s)
	theirs := concurrency.NewElection(session, electionName)
	leader, err := theirs.Leader(ctx)
	require.NoError(t, err)
	require.Equal(t, "ours", string(leader.Kvs[0].Value))
	elected := make(chan error, 1)
	go func() { elected <- theirs.Campaign(ctx, "concurrency") }()
	line(ctx, t, c, 2)

	// So does etcdctl, and then one of ours, whose priority does not help.
	candidate, err := newCtl(t, s).start(ctx, ctlStep{args: "elect " + electionName + " etcdctl"})
	require.NoError(t, err)
	line(ctx, t, c, 3)
	last := campaign(ctx, ourElection(t, s.cluster.Endpoints(), election.WithPriority(9)), "last")
	line(ctx, t, c, 4)
	require.Empty(t, elected)

	require.NoError(t, l.Resign(ctx))
	require.NoError(t, <-elected)
	now := seen.leads("concurrency")
	require.EqualValues(t, theirs.Rev(), now.Term)
	require.False(t, now.Ours)
	require.ErrorIs(t, ours.RequestStepDown(ctx, ""), election.ErrUnheard)

	require.NoError(t, theirs.Resign(ctx))
	seen.leads("etcdctl")
	printed, err := candidate.read(2)
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(printed, "\netcdctl\n"), printed)

	require.NoError(t, candidate.interrupt())
	got := <-last
	require.NoError(t, got.err)
	seen.leads("last")
	require.NoError(t, got.l.Proclaim(ctx, "proclaimed"))
	seen.leads("proclaimed")
	require.NoError(t, got.l.Resign(ctx))
	require.True(t, (<-seen.observed).Vacant)
	require.NoError(t, seen.listener.interrupt())
}

// electionWatch sees who leads in two ways: by our Observe, and by etcdctl.
type electionWatch struct {
	t        *testing.T
	observed chan election.Leader[string]
	listener *runningCtl
}

func watchElection(ctx context.Context, t *testing.T, s *side) *electionWatch {
	t.Helper()
	w := &electionWatch{t: t, observed: make(chan election.Leader[string])}
	var err error
	w.listener, err = newCtl(t, s).start(ctx, ctlStep{args: "elect -l " + electionName})
	require.NoError(t, err)
	e := ourElection(t, s.cluster.Endpoints())
	go func() {
		for leader, err := range e.Observe(ctx) {
			if err != nil {
				return
			}
			select {
			case w.observed <- leader:
			case <-ctx.Done():
				return
			}
		}
	}()
	require.True(t, (<-w.observed).Vacant)
	return w
}

// leads expects both to see the leader with the value next. etcdctl skips values
// that it is too slow to see, so it is waited for each time.
func (w *electionWatch) leads(value string) election.Leader[string] {
	w.t.Helper()
	leader := <-w.observed
	require.Equal(w.t, value, leader.Value)
	printed, err := w.listener.read(2)
	require.NoError(w.t, err)
	require.Equal(w.t, leader.Key+"\n"+value+"\n", printed)
	return leader
}

// TestEtcdElectsAPhantom shows the bug that electiontest's case
// Phantom/charts-326 repeats with our client: concurrency.Election finds a
// candidate the leader whose session has ended while it waited.
func TestEtcdElectsAPhantom(t *testing.T) {
	s := startSide(t, string(harness.Etcd), 1)
	ctx := testContext(t)
	c := ourClient(t, s.cluster.Endpoints())
	ours := election.New[string](c, electionName)
	first, err := ours.Campaign(ctx, "first")
	require.NoError(t, err)
	cli, session := etcdSession(t, s)
	elected := make(chan error, 1)
	go func() { elected <- concurrency.NewElection(session, electionName).Campaign(ctx, "phantom") }()
	line(ctx, t, c, 2)
	_, err = cli.Revoke(ctx, session.Lease())
	require.NoError(t, err)
	<-session.Done()
	line(ctx, t, c, 1)
	require.Empty(t, elected, "it has not noticed")
	require.NoError(t, first.Resign(ctx))
	require.NoError(t, <-elected, "etcd's client has no phantom any more: say so in docs/recipes/election.md")
	_, err = ours.Leader(ctx)
	require.ErrorIs(t, err, election.ErrNoLeader, "nobody leads in truth")
}

// TestEtcdDoesNotTellVacancies shows why Observe is not etcd's: between two
// leaders there was none for a while, and concurrency.Election does not say so.
func TestEtcdDoesNotTellVacancies(t *testing.T) {
	s := startSide(t, string(harness.Etcd), 1)
	ctx := testContext(t)
	ours := ourElection(t, s.cluster.Endpoints())
	_, session := etcdSession(t, s)
	theirs := concurrency.NewElection(session, electionName).Observe(ctx)
	seen := watchElection(ctx, t, s)
	for _, value := range []string{"a", "b"} {
		l, err := ours.Campaign(ctx, value)
		require.NoError(t, err)
		seen.leads(value)
		require.Equal(t, value, string((<-theirs).Kvs[0].Value), "the next thing that it says")
		require.NoError(t, l.Resign(ctx))
		require.True(t, (<-seen.observed).Vacant)
	}
	require.NoError(t, seen.listener.interrupt())
}

// BenchmarkHandOver measures, on three members, how long nobody leads between a
// leader who resigns and the next in line: with our recipe and with
// concurrency.Election, on etcd and on Latchkey.
//
//	go test -run '^$' -bench HandOver -benchtime 500x .
func BenchmarkHandOver(b *testing.B) {
	for _, kind := range kinds() {
		cluster, err := harness.Start(b.Context(), harness.Config{Kind: harness.Kind(kind), Members: 3})
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, cluster.Close()) })
		b.Run(kind+"/election", func(b *testing.B) {
			handOver(b, cluster, func() standFunc {
				e := ourElection(b, cluster.Endpoints())
				return func(ctx context.Context) (resignFunc, error) {
					l, err := e.Campaign(ctx, "x")
					if err != nil {
						return nil, err
					}
					return l.Resign, nil
				}
			})
		})
		b.Run(kind+"/concurrency", func(b *testing.B) {
			handOver(b, cluster, func() standFunc {
				cli, err := cluster.Client()
				require.NoError(b, err)
				b.Cleanup(func() { cli.Close() })
				session, err := concurrency.NewSession(cli)
				require.NoError(b, err)
				e := concurrency.NewElection(session, electionName)
				return func(ctx context.Context) (resignFunc, error) { return e.Resign, e.Campaign(ctx, "x") }
			})
		})
	}
}

type (
	standFunc  func(ctx context.Context) (resignFunc, error)
	resignFunc func(ctx context.Context) error
)

// handOver lets two nodes lead in turn, and reports how long it takes from the
// call to resign until the other one leads.
func handOver(b *testing.B, cluster *harness.Cluster, node func() standFunc) {
	ctx, c := b.Context(), ourClient(b, cluster.Endpoints())
	nodes := []standFunc{node(), node()}
	resign, err := nodes[0](ctx)
	require.NoError(b, err)
	type elected struct {
		resign resignFunc
		err    error
		at     time.Time
	}
	var took []time.Duration
	for i := 1; b.Loop(); i++ {
		waits := make(chan elected, 1)
		go func() {
			resign, err := nodes[i%2](ctx)
			waits <- elected{resign, err, time.Now()}
		}()
		line(ctx, b, c, 2)
		begin := time.Now()
		require.NoError(b, resign(ctx))
		next := <-waits
		require.NoError(b, next.err)
		took = append(took, next.at.Sub(begin))
		resign = next.resign
	}
	require.NoError(b, resign(ctx))
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
