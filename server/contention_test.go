package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/api/v3electionpb"
	"github.com/latchkey-go/latchkey/api/v3lockpb"
	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// contest is a cluster whose lock and election services are used, one client
// of each for every member.
type contest struct {
	t         *testing.T
	ctx       context.Context
	cluster   *servertest.Cluster
	client    *client.Client
	locks     []v3lockpb.LockClient
	elections []v3electionpb.ElectionClient
}

func newContest(t *testing.T, members int) *contest {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	c := &contest{t: t, ctx: ctx, cluster: servertest.New(t, members)}
	c.client = c.cluster.Client()
	for _, endpoint := range c.cluster.Endpoints() {
		conn, err := grpc.NewClient("passthrough:///"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		c.locks = append(c.locks, v3lockpb.NewLockClient(conn))
		c.elections = append(c.elections, v3electionpb.NewElectionClient(conn))
	}
	return c
}

func (c *contest) lease() int64 {
	c.t.Helper()
	info, err := c.client.Grant(c.ctx, time.Minute)
	require.NoError(c.t, err)
	return int64(info.ID)
}

// key waits until the key exists and returns it.
func (c *contest) key(name string) client.KV {
	c.t.Helper()
	kv, err := c.client.GetOne(c.ctx, name)
	if err == nil {
		return kv
	}
	require.ErrorIs(c.t, err, client.ErrNotFound)
	for ev, err := range c.client.Watch(c.ctx, name, client.FromRevision(1)) {
		require.NoError(c.t, err)
		if ev.Type == client.EventPut {
			return ev.KV
		}
	}
	return client.KV{}
}

func (c *contest) keysBelow(name string) int64 {
	c.t.Helper()
	res, err := c.client.Get(c.ctx, name+"/", client.Prefix(), client.CountOnly())
	require.NoError(c.t, err)
	return res.Count
}

// result is what a call in the background came to.
type result[R any] struct {
	response R
	err      error
}

func begin[R any](call func() (R, error)) <-chan result[R] {
	done := make(chan result[R], 1)
	go func() {
		response, err := call()
		done <- result[R]{response, err}
	}()
	return done
}

func (c *contest) lock(ctx context.Context, member int, name string, lease int64) <-chan result[*v3lockpb.LockResponse] {
	return begin(func() (*v3lockpb.LockResponse, error) {
		return c.locks[member].Lock(ctx, &v3lockpb.LockRequest{Name: []byte(name), Lease: lease})
	})
}

func (c *contest) campaign(ctx context.Context, name, value string, lease int64) <-chan result[*v3electionpb.CampaignResponse] {
	return begin(func() (*v3electionpb.CampaignResponse, error) {
		return c.elections[0].Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte(name), Value: []byte(value), Lease: lease})
	})
}

// Contenders on all members get the lock in the order in which they came, one at a time.
func TestLockServiceServesInOrder(t *testing.T) {
	c := newContest(t, 3)
	const contenders = 6
	var waiting [contenders]<-chan result[*v3lockpb.LockResponse]
	var keys [contenders]string
	for i := range contenders {
		lease := c.lease()
		keys[i] = fmt.Sprintf("jobs/%x", lease)
		waiting[i] = c.lock(c.ctx, i%3, "jobs", lease)
		c.key(keys[i])
	}
	for i := range contenders {
		got := <-waiting[i]
		require.NoError(t, got.err)
		require.Equal(t, keys[i], string(got.response.Key))
		require.NotZero(t, got.response.Header.Revision)
		for _, other := range waiting[i+1:] {
			require.Empty(t, other, "one holder at a time")
		}
		_, err := c.locks[(i+1)%3].Unlock(c.ctx, &v3lockpb.UnlockRequest{Key: got.response.Key})
		require.NoError(t, err)
	}
	require.Zero(t, c.keysBelow("jobs"))
}

// One who leaves the middle of the line lets nobody pass who was not due.
func TestLockServiceSurvivesAGapInTheLine(t *testing.T) {
	c := newContest(t, 1)
	first := <-c.lock(c.ctx, 0, "jobs", c.lease())
	require.NoError(t, first.err)
	impatient, leave := context.WithCancel(c.ctx)
	defer leave()
	middle := c.lease()
	left := c.lock(impatient, 0, "jobs", middle)
	c.key(fmt.Sprintf("jobs/%x", middle))
	last := c.lease()
	waiting := c.lock(c.ctx, 0, "jobs", last)
	c.key(fmt.Sprintf("jobs/%x", last))

	leave()
	require.Equal(t, codes.Canceled, status.Code((<-left).err))
	for ev, err := range c.client.Watch(c.ctx, fmt.Sprintf("jobs/%x", middle), client.FromRevision(1), client.WithoutPuts()) {
		require.NoError(t, err)
		require.Equal(t, client.EventDelete, ev.Type, "who gave up leaves no key")
		break
	}
	require.Empty(t, waiting)
	_, err := c.locks[0].Unlock(c.ctx, &v3lockpb.UnlockRequest{Key: first.response.Key})
	require.NoError(t, err)
	require.NoError(t, (<-waiting).err)
}

// Whose lease ends in the line hears of it at once, and not when it is its turn.
func TestContendersWhoseLeaseEnds(t *testing.T) {
	c := newContest(t, 1)
	held := <-c.lock(c.ctx, 0, "jobs", c.lease())
	require.NoError(t, held.err)
	led := <-c.campaign(c.ctx, "leader", "first", c.lease())
	require.NoError(t, led.err)

	lease := c.lease()
	waiting := c.lock(c.ctx, 0, "jobs", lease)
	running := c.campaign(c.ctx, "leader", "second", lease)
	c.key(fmt.Sprintf("jobs/%x", lease))
	c.key(fmt.Sprintf("leader/%x", lease))
	require.NoError(t, c.client.Revoke(c.ctx, client.LeaseID(lease)))
	require.EqualError(t, (<-waiting).err, "rpc error: code = Unknown desc = mutex: session is expired")
	require.EqualError(t, (<-running).err, "rpc error: code = Unknown desc = election: session is expired")
	require.EqualValues(t, 1, c.keysBelow("jobs"))
}

// Without a lease the server makes one, which a call that fails takes away again.
func TestLockServiceMakesALease(t *testing.T) {
	c := newContest(t, 1)
	held := <-c.lock(c.ctx, 0, "jobs", 0)
	require.NoError(t, held.err)
	kv := c.key(string(held.response.Key))
	require.Equal(t, fmt.Sprintf("jobs/%x", int64(kv.Lease)), kv.Key)
	info, err := c.client.TimeToLive(c.ctx, kv.Lease)
	require.NoError(t, err)
	require.Equal(t, time.Minute, info.Granted)

	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	left := c.lock(ctx, 0, "jobs", 0)
	for ev, err := range c.client.Watch(c.ctx, "jobs/", client.Prefix(), client.FromRevision(1)) {
		require.NoError(t, err)
		if ev.KV.Key != kv.Key && ev.Type == client.EventPut {
			cancel()
		}
		if ev.KV.Key != kv.Key && ev.Type == client.EventDelete {
			break
		}
	}
	require.Error(t, (<-left).err)
	leases, err := c.client.Leases(c.ctx)
	require.NoError(t, err)
	require.Equal(t, []client.LeaseID{kv.Lease}, leases)
}

// The service and our recipe keep each other out.
func TestLockServiceExcludesTheRecipe(t *testing.T) {
	c := newContest(t, 1)
	held, err := lock.New(c.client, "jobs").Acquire(c.ctx)
	require.NoError(t, err)
	lease := c.lease()
	waiting := c.lock(c.ctx, 0, "jobs", lease)
	c.key(fmt.Sprintf("jobs/%x", lease))
	require.NoError(t, held.Release(c.ctx))
	require.NoError(t, (<-waiting).err)
	_, err = lock.New(c.client, "jobs").TryAcquire(c.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
}

// A member that stops does not keep those who wait, and not their keys either.
func TestLockServiceEndsWithItsMember(t *testing.T) {
	c := newContest(t, 3)
	held := <-c.lock(c.ctx, 1, "jobs", c.lease())
	require.NoError(t, held.err)
	lease := c.lease()
	waiting := c.lock(c.ctx, 0, "jobs", lease)
	c.key(fmt.Sprintf("jobs/%x", lease))
	c.cluster.Stop(0)
	require.Equal(t, codes.Unavailable, status.Code((<-waiting).err))
	require.EqualValues(t, 1, c.keysBelow("jobs"))
}

func TestElectionService(t *testing.T) {
	c := newContest(t, 1)
	name := []byte("leader")
	_, err := c.elections[0].Leader(c.ctx, &v3electionpb.LeaderRequest{Name: name})
	require.EqualError(t, err, "rpc error: code = Unknown desc = election: no leader")
	observed, err := c.elections[0].Observe(c.ctx, &v3electionpb.LeaderRequest{Name: name})
	require.NoError(t, err)
	see := func(want string) {
		t.Helper()
		got, err := observed.Recv()
		require.NoError(t, err)
		require.Equal(t, want, string(got.Kv.Value))
		require.GreaterOrEqual(t, got.Header.Revision, got.Kv.ModRevision)
	}

	first := <-c.campaign(c.ctx, "leader", "a", c.lease())
	require.NoError(t, first.err)
	see("a")
	lease := c.lease()
	next := c.campaign(c.ctx, "leader", "b", lease)
	c.key(fmt.Sprintf("leader/%x", lease))
	again := c.campaign(c.ctx, "leader", "bb", lease) // joins the call before, with another value

	leader := first.response.Leader
	_, err = c.elections[0].Proclaim(c.ctx, &v3electionpb.ProclaimRequest{Leader: leader, Value: []byte("A")})
	require.NoError(t, err)
	see("A")
	// What was observed is compacted away, and observing goes on.
	res, err := c.client.Put(c.ctx, "other", nil)
	require.NoError(t, err)
	require.NoError(t, c.client.Compact(c.ctx, res.Revision))

	leader.Lease = 0 // which keeps the one that the key has
	_, err = c.elections[0].Proclaim(c.ctx, &v3electionpb.ProclaimRequest{Leader: leader, Value: []byte("AA")})
	require.NoError(t, err)
	see("AA")
	require.NotZero(t, c.key(string(leader.Key)).Lease)
	_, err = c.elections[0].Resign(c.ctx, &v3electionpb.ResignRequest{Leader: leader})
	require.NoError(t, err)
	second := <-next
	require.NoError(t, second.err)
	require.NoError(t, (<-again).err)
	got, err := observed.Recv()
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(got.Kv.Value), "b"))
	require.Equal(t, second.response.Leader.Key, got.Kv.Key)
	_, err = c.elections[0].Proclaim(c.ctx, &v3electionpb.ProclaimRequest{Leader: leader, Value: []byte("late")})
	require.EqualError(t, err, "rpc error: code = Unknown desc = election: not leader")
	_, err = c.elections[0].Resign(c.ctx, &v3electionpb.ResignRequest{Leader: leader})
	require.NoError(t, err, "as for etcd")
	for _, call := range []func() error{
		func() error {
			_, err := c.elections[0].Proclaim(c.ctx, &v3electionpb.ProclaimRequest{})
			return err
		},
		func() error {
			_, err := c.elections[0].Resign(c.ctx, &v3electionpb.ResignRequest{})
			return err
		},
	} {
		require.EqualError(t, call(), `rpc error: code = Unknown desc = "leader" field must be provided`)
	}
	c.cluster.Stop(0)
	for err == nil {
		_, err = observed.Recv()
	}
	require.Equal(t, codes.Unavailable, status.Code(err), "the end is told")
}
