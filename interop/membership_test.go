package interop_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// changer makes the same changes of members on both sides and writes down what
// it is answered, in words that do not depend on ids.
type changer struct {
	t      *testing.T
	ctx    context.Context
	conns  []*grpc.ClientConn // of the first members, in order
	leader int
	names  map[uint64]string
	said   []string
}

func newChanger(t *testing.T, s *side) *changer {
	c := &changer{t: t, ctx: testContext(t), names: make(map[uint64]string)}
	for _, u := range s.cluster.Endpoints() {
		conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(u, "http://"),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(s.called.unary))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		c.conns = append(c.conns, conn)
	}
	var err error
	c.leader, err = s.cluster.Leader(c.ctx)
	require.NoError(t, err)
	list, err := c.cluster(0).MemberList(c.ctx, &pb.MemberListRequest{})
	require.NoError(t, err)
	for i, m := range s.cluster.Members {
		for _, known := range list.Members {
			if known.Name == m.Name { // by its place behind the leader, which is not the same on both sides
				c.names[known.ID] = fmt.Sprint("+", (i-c.leader+3)%3)
			}
		}
	}
	return c
}

// cluster is asked at a member's place behind the leader.
func (c *changer) cluster(place int) pb.ClusterClient {
	return pb.NewClusterClient(c.conns[(c.leader+place)%3])
}

func (c *changer) id(name string) uint64 {
	for id, n := range c.names {
		if n == name {
			return id
		}
	}
	return 12345
}

func (c *changer) note(what string, h *pb.ResponseHeader, members []*pb.Member, err error) {
	line := fmt.Sprintf("%s: %s %q", what, status.Code(err), status.Convert(err).Message())
	if err == nil {
		line += fmt.Sprintf(" cluster %t member %t revision %d term %t", h.GetClusterId() != 0, h.GetMemberId() != 0, h.GetRevision(), h.GetRaftTerm() != 0)
	}
	var list []string
	for _, m := range members {
		name, urls := c.names[m.ID], "of its own"
		if !strings.HasPrefix(name, "+") || len(m.PeerURLs) != 1 {
			urls = strings.Join(m.PeerURLs, ",")
		}
		list = append(list, fmt.Sprintf("[%s at %s, started %t, clients %d, learner %t]", name, urls, m.Name != "", len(m.ClientURLs), m.IsLearner))
	}
	slices.Sort(list)
	c.said = append(c.said, line+" "+strings.Join(list, " "))
}

func (c *changer) add(place int, name string, learner bool, urls ...string) {
	r, err := c.cluster(place).MemberAdd(c.ctx, &pb.MemberAddRequest{PeerURLs: urls, IsLearner: learner})
	if err == nil {
		c.names[r.Member.ID] = name
		c.note("added "+name, r.Header, []*pb.Member{r.Member}, nil)
	}
	c.note("add "+name, r.GetHeader(), r.GetMembers(), err)
}

func (c *changer) remove(place int, name string) {
	r, err := c.cluster(place).MemberRemove(c.ctx, &pb.MemberRemoveRequest{ID: c.id(name)})
	c.note("remove "+name, r.GetHeader(), r.GetMembers(), err)
}

func (c *changer) update(place int, name string, urls ...string) {
	r, err := c.cluster(place).MemberUpdate(c.ctx, &pb.MemberUpdateRequest{ID: c.id(name), PeerURLs: urls})
	c.note("update "+name, r.GetHeader(), r.GetMembers(), err)
}

// promote asks again while a voter is said to be behind: etcd looks at that first, and on a busy machine one may be.
func (c *changer) promote(place int, name string) {
	r, err := c.cluster(place).MemberPromote(c.ctx, &pb.MemberPromoteRequest{ID: c.id(name)})
	for strings.HasPrefix(name, "+") && errors.Is(rpctypes.Error(err), rpctypes.ErrMemberLearnerNotReady) && c.ctx.Err() == nil {
		r, err = c.cluster(place).MemberPromote(c.ctx, &pb.MemberPromoteRequest{ID: c.id(name)})
	}
	c.note("promote "+name, r.GetHeader(), r.GetMembers(), err)
}

func (c *changer) list(linearizable bool) {
	r, err := c.cluster(0).MemberList(c.ctx, &pb.MemberListRequest{Linearizable: linearizable})
	c.note("list", r.GetHeader(), r.GetMembers(), err)
}

func (c *changer) move(place int, name string) {
	conn := c.conns[(c.leader+place)%3]
	r, err := pb.NewMaintenanceClient(conn).MoveLeader(c.ctx, &pb.MoveLeaderRequest{TargetID: c.id(name)})
	c.note("move leader to "+name, r.GetHeader(), nil, err)
}

// becomeHealthy waits until the strict check lets a member in, and removes that.
func (c *changer) becomeHealthy() {
	for {
		r, err := c.cluster(0).MemberAdd(c.ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:5"}})
		if status.Code(err) == codes.Unavailable && c.ctx.Err() == nil {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-c.ctx.Done():
			}
			continue
		}
		require.NoError(c.t, err)
		_, err = c.cluster(0).MemberRemove(c.ctx, &pb.MemberRemoveRequest{ID: r.Member.ID})
		require.NoError(c.t, err)
		return
	}
}

func (c *changer) run() []string {
	const learnerURL, otherURL = "http://127.0.0.1:1", "http://127.0.0.1:2"
	c.becomeHealthy()
	for _, bad := range [][]string{nil, {"127.0.0.1:1"}, {"http://127.0.0.1"}, {"http://127.0.0.1:1/path"}, {"ftp://127.0.0.1:1"}} {
		c.add(0, "bad", false, bad...)
	}
	c.add(1, "learner", true, learnerURL)
	c.add(0, "second learner", true, otherURL)
	c.add(0, "same URL", false, learnerURL, otherURL) // of the same alone, etcd makes the same id within a second
	c.list(true)
	c.list(false)
	for place := range 3 {
		c.promote(place, "learner")
		c.promote(place, "nobody")
		c.promote(place, "+1")
	}
	c.update(2, "learner", otherURL)
	c.update(0, "nobody", otherURL)
	c.update(0, "+2", otherURL)
	c.remove(1, "learner")
	c.remove(0, "learner")
	c.promote(0, "learner")
	c.update(0, "learner", learnerURL)
	c.remove(0, "nobody")
	c.move(1, "+1")
	c.move(0, "nobody")
	c.move(0, "+0")
	c.move(0, "+2")
	c.list(true)
	return c.said
}

// TestMembershipMatches makes the same calls on etcd and on Latchkey.
func TestMembershipMatches(t *testing.T) {
	reference, subject := startBoth(t, 3)
	want := newChanger(t, reference).run()
	got := newChanger(t, subject).run()
	require.Equal(t, strings.Join(want, "\n"), strings.Join(got, "\n"))
	require.Greater(t, len(want), 30)
	requireCompared(t, reference.called)
}

// TestEtcdctlGrowsACluster adds members with the stock etcdctl, starts them with
// what it prints, promotes, moves the leader and removes.
func TestEtcdctlGrowsACluster(t *testing.T) {
	ctx := testContext(t)
	cluster, err := harness.Start(ctx, harness.Config{Kind: harness.Latchkey, Members: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Close()) })
	ctl, err := harness.Build(ctx, harness.ToolEtcdctl)
	require.NoError(t, err)
	binary, err := harness.Build(ctx, harness.ToolLatchkey)
	require.NoError(t, err)
	run := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, ctl, append([]string{"--endpoints=" + cluster.Endpoints()[0]}, args...)...).CombinedOutput()
		return string(out), err
	}
	must := func(args ...string) string {
		out, err := run(args...)
		require.NoError(t, err, "%v: %s", args, out)
		return out
	}
	const peer, client = "http://127.0.0.1:28380", "http://127.0.0.1:28379"
	out := must("member", "add", "second", "--peer-urls="+peer, "--learner")
	id := strings.Fields(out)[1]
	env := os.Environ()
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(name, "ETCD_") {
			env = append(env, name+"="+strings.Trim(value, `"`))
		}
	}
	dir := filepath.Join(t.TempDir(), "second")
	start := func() (*exec.Cmd, chan error) {
		member := exec.Command(binary, "server", "--data-dir="+dir, "--listen-peer-urls="+peer,
			"--listen-client-urls="+client, "--advertise-client-urls="+client)
		member.Env = env
		require.NoError(t, member.Start())
		ended := make(chan error, 1)
		go func() { ended <- member.Wait() }()
		return member, ended
	}
	member, ended := start()
	t.Cleanup(func() { _ = member.Process.Kill() })
	for err = errors.New("not yet"); err != nil; { // until it has started and caught up
		require.NoError(t, ctx.Err())
		out, err = run("member", "promote", id)
	}
	require.Contains(t, out, "promoted in cluster")
	require.Contains(t, must("member", "list"), id+", started, second, "+peer+", "+client+", false")
	require.Contains(t, must("move-leader", id), "Leadership transferred")
	out, err = run("move-leader", id) // of one endpoint, which does not lead any more
	require.Error(t, err)
	require.Contains(t, out, "no leader endpoint given")
	require.Contains(t, must("member", "update", id, "--peer-urls="+peer), "updated in cluster")
	for err = errors.New("not yet"); err != nil; { // until it has been connected for long enough
		require.NoError(t, ctx.Err())
		out, err = run("member", "remove", id)
	}
	require.Contains(t, out, "removed from cluster")
	require.Error(t, <-ended, "a removed member ends")
	_, ended = start()
	require.Error(t, <-ended, "and does not come back")
	must("put", "a", "b")
}
