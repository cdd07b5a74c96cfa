package server_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// loose lets a test change members that were connected a moment ago only.
func loose(c *server.Config) { c.Membership.LooseReconfigCheck = true }

// load writes distinct keys, each until it is acknowledged, and remembers them.
type load struct {
	t      *testing.T
	client *client.Client
	prefix string
	stop   chan struct{}
	wg     sync.WaitGroup

	mu    sync.Mutex // protects acked
	acked []string
	news  chan struct{} // capacity 1: there are more
}

func startLoad(t *testing.T, endpoints []string, prefix string) *load {
	cl, err := client.New(client.Config{Endpoints: endpoints, RequestTimeout: 20 * time.Second})
	require.NoError(t, err)
	l := &load{t: t, client: cl, prefix: prefix, stop: make(chan struct{}), news: make(chan struct{}, 1)}
	for w := range 4 {
		l.wg.Go(func() { l.write(w) })
	}
	return l
}

func (l *load) write(w int) {
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		default:
		}
		// A put of a key and value that nobody else writes is safe to repeat.
		key := fmt.Sprintf("%s/%d/%d", l.prefix, w, n)
		ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
		_, err := l.client.Put(ctx, key, []byte(key))
		for errors.Is(err, client.ErrUncertain) && ctx.Err() == nil {
			_, err = l.client.Put(ctx, key, []byte(key))
		}
		cancel()
		if err != nil {
			l.t.Errorf("put %s: %v", key, err)
			return
		}
		l.mu.Lock()
		l.acked = append(l.acked, key)
		l.mu.Unlock()
		select {
		case l.news <- struct{}{}:
		default:
		}
	}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// more waits until n further writes are acknowledged.
func (l *load) more(n int) {
	want, late := l.count()+n, time.After(20*time.Second)
	for l.count() < want {
		select {
		case <-l.news:
		case <-late:
			l.t.Fatal("nothing is acknowledged any more")
		}
	}
}

// finish ends the load and requires that a member has all that was acknowledged.
func (l *load) finish(endpoint string) {
	close(l.stop)
	l.wg.Wait()
	require.NoError(l.t, l.client.Close())
	m := dial(l.t, endpoint)
	ctx := testContext(l.t)
	all := &pb.RangeRequest{Key: []byte(l.prefix), RangeEnd: []byte(l.prefix + "0"), CountOnly: true}
	r, err := m.Range(ctx, all)
	for status.Code(err) == codes.FailedPrecondition && ctx.Err() == nil { // promoted, and does not know it yet
		r, err = m.Range(ctx, all)
	}
	require.NoError(l.t, err)
	require.GreaterOrEqual(l.t, r.Count, int64(len(l.acked)))
	for _, key := range l.acked {
		r, err := m.Range(testContext(l.t), &pb.RangeRequest{Key: []byte(key), Serializable: true, CountOnly: true})
		require.NoError(l.t, err)
		require.EqualValues(l.t, 1, r.Count, "%s was acknowledged and is gone", key)
	}
}

func requireEnds(t *testing.T, m *server.Server, reason error) {
	t.Helper()
	select {
	case <-m.Done():
		require.ErrorIs(t, m.Err(), reason)
	case <-time.After(20 * time.Second):
		t.Fatal("the member goes on")
	}
}

// requireWire compares what a client sees.
func requireWire(t *testing.T, want, got error, about ...any) {
	t.Helper()
	require.Equal(t, status.Convert(want).String(), status.Convert(got).String(), about...)
}

// TestGrowAndShrinkUnderLoad takes a cluster from one member to five and back to
// one that was not there at first, the leader going first each time.
func TestGrowAndShrinkUnderLoad(t *testing.T) {
	ctx := testContext(t)
	c := servertest.One(t, loose)
	l := startLoad(t, c.Endpoints(), "grow")
	for range 4 {
		c.Add(false)
		l.more(20)
	}
	l.finish(c.Endpoints()[4])

	l = startLoad(t, c.Endpoints(), "shrink")
	survivor := c.Member(4)
	for range 4 {
		leader, gone := c.Leader(), 0
		if c.Member(leader) == survivor {
			for c.Member(gone) == nil {
				gone++
			}
		} else {
			gone = leader
		}
		m := c.Member(gone)
		left, err := l.client.RemoveMember(ctx, m.ID())
		require.NoError(t, err)
		require.NotContains(t, left, m.ID())
		requireEnds(t, m, server.ErrRemoved)
		c.Kill(gone)
		l.more(20)
	}
	members, err := l.client.Members(ctx)
	require.NoError(t, err)
	require.Len(t, members, 1)
	require.Equal(t, survivor.ID(), members[0].ID)
	l.finish(c.Endpoints()[4])
}

// TestLearnerJoinsUnderLoad adds a learner, looks at what it serves, and promotes
// it through a follower.
func TestLearnerJoinsUnderLoad(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t, loose)
	l := startLoad(t, c.Endpoints(), "learn")
	l.more(50)
	i := c.Add(true)
	learner := dial(t, c.Endpoints()[i])
	id := c.Member(i).ID()

	st, err := learner.Status(ctx, &pb.StatusRequest{})
	require.NoError(t, err)
	require.True(t, st.IsLearner)
	_, err = learner.Range(ctx, &pb.RangeRequest{Key: []byte("learn"), Serializable: true})
	require.NoError(t, err)
	for name, call := range map[string]func() error{
		"range":  func() error { _, err := learner.Range(ctx, get("learn")); return err },
		"put":    func() error { _, err := learner.Put(ctx, put("a", "b")); return err },
		"list":   func() error { _, err := learner.MemberList(ctx, &pb.MemberListRequest{}); return err },
		"leases": func() error { _, err := learner.LeaseLeases(ctx, &pb.LeaseLeasesRequest{}); return err },
		"watch": func() error {
			w, err := learner.Watch(ctx)
			require.NoError(t, err)
			_, err = w.Recv()
			return err
		},
	} {
		requireWire(t, rpctypes.ErrGRPCNotSupportedForLearner, call(), name)
	}
	_, err = l.client.RemoveMember(ctx, 12345)
	require.ErrorContains(t, err, "member not found")
	_, err = dial(t, c.Endpoints()[0]).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:9"}, IsLearner: true})
	requireWire(t, rpctypes.ErrGRPCTooManyLearners, err)

	follower := (c.Leader() + 1) % 3
	promoted, err := dial(t, c.Endpoints()[follower]).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
	require.NoError(t, err)
	require.Len(t, promoted.Members, 4)
	require.Zero(t, promoted.Header.Revision)
	_, err = dial(t, c.Endpoints()[follower]).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
	requireWire(t, rpctypes.ErrGRPCMemberNotLearner, err)
	_, err = dial(t, c.Endpoints()[follower]).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 5})
	requireWire(t, rpctypes.ErrGRPCMemberNotFound, err)

	// It counts now: without two of the others nothing would go on but for it.
	for err = errors.New("not yet"); err != nil; { // until it has applied that it is no learner
		require.NoError(t, ctx.Err())
		_, err = learner.Range(ctx, get("learn"))
	}
	c.Kill(follower)
	l.more(50)
	l.finish(c.Endpoints()[i])
}

// TestLearnerThatIsNotThereIsNotPromoted asks the leader and a follower.
func TestLearnerThatIsNotThereIsNotPromoted(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t, loose)
	c.Announce(true)
	members, err := c.Client().Members(ctx)
	require.NoError(t, err)
	for _, m := range members {
		if !m.Learner {
			continue
		}
		for i := range 3 {
			_, err := dial(t, c.Endpoints()[i]).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: m.ID})
			requireWire(t, rpctypes.ErrGRPCLearnerNotReady, err)
		}
		return
	}
	t.Fatal("no learner")
}

// TestRemovedWhileDown removes a member that is down: it learns of that when it
// comes back, and from then on by itself.
func TestRemovedWhileDown(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t, loose)
	gone := (c.Leader() + 1) % 3
	id := c.Member(gone).ID()
	c.Kill(gone)
	_, err := c.Client().RemoveMember(ctx, id)
	require.NoError(t, err)
	m, err := c.Start(gone)
	require.NoError(t, err)
	requireEnds(t, m, server.ErrRemoved)
	c.Kill(gone)

	// An id is not used again, a URL is.
	i := c.Add(false)
	require.NotEqual(t, id, c.Member(i).ID())
}

// TestRemovedMember removes a member that is asked to do so itself, the leader and
// another one. It answers, ends, and ends again if it is started again: at once if
// it has heard of its removal in the log, and else when the others say so.
func TestRemovedMember(t *testing.T) {
	for name, behind := range map[string]int{"leader": 0, "follower": 1} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			c := servertest.Three(t, loose)
			gone := (c.Leader() + behind) % 3
			m := c.Member(gone)
			r, err := dial(t, c.Endpoints()[gone]).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: m.ID()})
			require.NoError(t, err)
			require.Len(t, r.Members, 2)
			for _, left := range r.Members {
				require.NotEqual(t, m.ID(), left.ID)
			}
			requireEnds(t, m, server.ErrRemoved)
			again, err := c.Start(gone)
			if err == nil {
				requireEnds(t, again, server.ErrRemoved)
				c.Kill(gone)
				return
			}
			require.ErrorIs(t, err, server.ErrRemoved)
		})
	}
}

// TestWipedMember loses a directory: it may not come back as what it was, but as
// a new learner.
func TestWipedMember(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t, loose)
	l := startLoad(t, c.Endpoints(), "wipe")
	lost := (c.Leader() + 1) % 3
	id := c.Member(lost).ID()
	c.Kill(lost)
	require.NoError(t, os.RemoveAll(c.Config(lost).DataDir))
	for _, state := range []string{"new", "existing"} {
		c.Config(lost).InitialClusterState = state
		_, err := c.Start(lost)
		require.ErrorIs(t, err, server.ErrStartedBefore, state)
		require.ErrorContains(t, err, "latchkey member remove")
	}
	_, err := c.Client().RemoveMember(ctx, id)
	require.NoError(t, err)
	_, err = c.Start(lost) // of the same URLs, which nobody expects now
	require.ErrorIs(t, err, server.ErrNotAdded)
	i := c.Add(true)
	l.more(20)
	for err = errors.New("not yet"); err != nil; { // until it has caught up
		require.NoError(t, ctx.Err())
		_, err = c.Client().PromoteMember(ctx, c.Member(i).ID())
	}
	l.finish(c.Endpoints()[i])
}

// TestRollingRestartUnderLoad restarts all three members twice. No request that
// the client repeats safely fails.
func TestRollingRestartUnderLoad(t *testing.T) {
	c := servertest.Three(t)
	l := startLoad(t, c.Endpoints(), "roll")
	for n := range 6 {
		l.more(20)
		c.Stop(n % 3)
		l.more(20)
		c.Restart(n % 3)
	}
	l.finish(c.Endpoints()[0])
}

func TestMoveLeader(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t, loose)
	leader := c.Leader()
	to := c.Member((leader + 1) % 3).ID()
	_, err := dial(t, c.Endpoints()[(leader+2)%3]).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to})
	requireWire(t, rpctypes.ErrGRPCNotLeader, err)
	_, err = dial(t, c.Endpoints()[leader]).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 77})
	requireWire(t, rpctypes.ErrGRPCBadLeaderTransferee, err)
	r, err := dial(t, c.Endpoints()[leader]).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to})
	require.NoError(t, err)
	require.Nil(t, r.Header, "as etcd's")
	require.NoError(t, c.Client().MoveLeader(ctx, c.Member(leader).ID()), "the client finds the leader")
	require.Equal(t, leader, c.Leader())
}

// TestUpdateMember moves a member's peer address.
func TestUpdateMember(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	m := dial(t, c.Endpoints()[0])
	id := c.Member(1).ID()
	other := c.Config(2).ListenPeerURLs
	_, err := m.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: id, PeerURLs: other})
	requireWire(t, rpctypes.ErrGRPCPeerURLExist, err)
	_, err = m.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: 99, PeerURLs: []string{"http://127.0.0.1:1"}})
	requireWire(t, rpctypes.ErrGRPCMemberNotFound, err)
	for _, urls := range [][]string{nil, {"127.0.0.1:1"}, {"ftp://127.0.0.1:1"}, {"http://127.0.0.1"}, {"http://127.0.0.1:1/x"}} {
		_, err = m.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: id, PeerURLs: urls})
		requireWire(t, rpctypes.ErrGRPCMemberBadURLs, err, "%v", urls)
		_, err = m.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: urls})
		requireWire(t, rpctypes.ErrGRPCMemberBadURLs, err, "%v", urls)
	}
	c.Stop(1)
	moved := c.Move(1)
	r, err := m.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: id, PeerURLs: moved})
	require.NoError(t, err)
	for _, member := range r.Members {
		if member.ID == id {
			require.Equal(t, moved, member.PeerURLs)
			require.Equal(t, "m1", member.Name)
		}
	}
	c.Restart(1)
	c.Kill(2) // so that the one that moved is needed
	_, err = m.Put(ctx, put("a", "b"))
	require.NoError(t, err)
}

// TestStrictReconfigCheck refuses what could cost the quorum, with etcd's codes.
func TestStrictReconfigCheck(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	m := dial(t, c.Endpoints()[0])
	_, err := m.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}})
	requireWire(t, rpctypes.ErrGRPCUnhealthy, err, "the members have not been connected for long")
	_, err = m.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: c.Member(1).ID()})
	requireWire(t, rpctypes.ErrGRPCUnhealthy, err)

	one := servertest.One(t)
	m = dial(t, one.Endpoints()[0])
	_, err = m.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: one.Member(0).ID()})
	require.Equal(t, codes.Unknown, status.Code(err))
	require.ErrorContains(t, err, "etcdserver: re-configuration failed due to not enough started members")

	lonely := servertest.One(t, loose)
	_, err = dial(t, lonely.Endpoints()[0]).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: lonely.Member(0).ID()})
	require.ErrorContains(t, err, "not enough started members", "the last voter stays, however loose the check")
}

// TestJoinRefusals names what is wrong with a member that wants to join.
func TestJoinRefusals(t *testing.T) {
	c := servertest.One(t)
	peer := c.Config(0).ListenPeerURLs[0]
	for _, join := range []struct{ cluster, says string }{
		{"m0=" + peer + ",new=http://127.0.0.1:1", "run `latchkey member add new --peer-urls=http://127.0.0.1:1` first"},
		{"m0=" + peer, "does not name this member"},
		{"m0=" + peer + ",new=http://127.0.0.1:2", "initial-advertise-peer-urls is http://127.0.0.1:1"},
		{"new=http://127.0.0.1:1", "names no other member"},
	} {
		_, err := server.Start(testContext(t), server.Config{
			Name: "new", DataDir: t.TempDir(), InitialCluster: join.cluster, InitialClusterState: "existing",
			ListenClientURLs: []string{"http://127.0.0.1:0"}, ListenPeerURLs: []string{"http://127.0.0.1:0"},
			AdvertisePeerURLs: []string{"http://127.0.0.1:1"},
		})
		require.ErrorContains(t, err, join.says)
		require.NotContains(t, err.Error(), "\n")
	}
	i := c.Announce(false)
	c.Config(i).InitialCluster += ",third=http://127.0.0.1:3"
	_, err := c.Start(i)
	require.ErrorContains(t, err, "member count is unequal")
}

// TestForceNewCluster rebuilds a cluster of which one member is left.
func TestForceNewCluster(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t, loose)
	l := startLoad(t, c.Endpoints(), "force")
	l.more(200)
	l.finish(c.Endpoints()[0])
	for i := range 3 {
		c.Kill(i)
	}
	c.Config(0).Membership.ForceNewCluster = true
	c.Restart(0)
	c.Config(0).Membership.ForceNewCluster = false
	m := dial(t, c.Endpoints()[0])
	list, err := m.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	require.NoError(t, err)
	require.Len(t, list.Members, 1)
	for _, key := range l.acked {
		r, err := m.Range(ctx, get(key))
		require.NoError(t, err)
		require.EqualValues(t, 1, r.Count)
	}
	// One of the others comes back and hears that it is out.
	lost, err := c.Start(1)
	require.NoError(t, err)
	requireEnds(t, lost, server.ErrRemoved)
	c.Kill(1)
	c.Kill(0)
	c.Restart(0)
	c.Add(false)
	_, err = m.Put(ctx, put("a", "b"))
	require.NoError(t, err)
}

// TestMemberThatMissedAChange was down while another joined and became the
// leader, which it does not know and so refuses, until the third vouches for it.
func TestMemberThatMissedAChange(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t, loose)
	down := (c.Leader() + 1) % 3
	c.Kill(down)
	i := c.Add(false)
	for err := errors.New("not yet"); err != nil; {
		require.NoError(t, ctx.Err())
		err = c.Client().MoveLeader(ctx, c.Member(i).ID())
	}
	for gone := range 3 { // one of those that it knows goes for good; all three that are left are needed
		if gone != down {
			_, err := c.Client().RemoveMember(ctx, c.Member(gone).ID())
			require.NoError(t, err)
			break
		}
	}
	c.Restart(down)
	require.Equal(t, i, c.Leader())
}
