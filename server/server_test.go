package server_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// api is a bare gRPC connection to one member: what any etcd client has.
type api struct {
	pb.KVClient
	pb.LeaseClient
	pb.WatchClient
	pb.ClusterClient
	pb.MaintenanceClient
	health healthpb.HealthClient
}

func dial(t *testing.T, endpoint string) api {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return api{
		pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewWatchClient(conn),
		pb.NewClusterClient(conn), pb.NewMaintenanceClient(conn), healthpb.NewHealthClient(conn),
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func put(key, value string) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: []byte(value)}
}

func get(key string) *pb.RangeRequest { return &pb.RangeRequest{Key: []byte(key)} }

func prefix(p string) *pb.RangeRequest {
	end := []byte(p)
	end[len(end)-1]++
	return &pb.RangeRequest{Key: []byte(p), RangeEnd: end}
}

func TestOneMemberServesAndRemembers(t *testing.T) {
	ctx := testContext(t)
	c := servertest.One(t)
	m := dial(t, c.Endpoints()[0])

	p, err := m.Put(ctx, put("a", "1"))
	require.NoError(t, err)
	require.EqualValues(t, 2, p.Header.Revision, "an empty store is at revision 1")
	require.NotZero(t, p.Header.ClusterId)
	require.NotZero(t, p.Header.RaftTerm)
	_, err = m.Put(ctx, put("a", "2"))
	require.NoError(t, err)
	lease, err := m.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
	require.NoError(t, err)
	_, err = m.Put(ctx, &pb.PutRequest{Key: []byte("leased"), Lease: lease.ID})
	require.NoError(t, err)

	for _, end := range []struct {
		how string
		f   func(int)
	}{{"stop", c.Stop}, {"kill", c.Kill}} {
		end.f(0)
		c.Restart(0)
		got, err := m.Range(ctx, get("a"))
		require.NoError(t, err, end.how)
		require.Len(t, got.Kvs, 1)
		require.Equal(t, "2", string(got.Kvs[0].Value))
		require.EqualValues(t, 2, got.Kvs[0].CreateRevision)
		require.EqualValues(t, 3, got.Kvs[0].ModRevision)
		require.EqualValues(t, 4, got.Header.Revision)
		old, err := m.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Revision: 2})
		require.NoError(t, err, "an old revision is readable after %s", end.how)
		require.Equal(t, "1", string(old.Kvs[0].Value))
		ttl, err := m.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease.ID, Keys: true})
		require.NoError(t, err)
		require.EqualValues(t, 60, ttl.GrantedTTL)
		require.Equal(t, [][]byte{[]byte("leased")}, ttl.Keys)
	}
}

func TestStatusHealthAndMembers(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	leader := c.Member(c.Leader()).ID()
	for i, endpoint := range c.Endpoints() {
		m := dial(t, endpoint)
		st, err := m.Status(ctx, &pb.StatusRequest{})
		require.NoError(t, err)
		require.Equal(t, "3.7.3", st.Version)
		require.Equal(t, leader, st.Leader)
		require.Equal(t, c.Member(i).ID(), st.Header.MemberId)
		require.NotZero(t, st.RaftIndex)
		require.NotZero(t, st.DbSize)
		require.Empty(t, st.Errors)

		h, err := m.health.Check(ctx, &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
		require.Equal(t, healthpb.HealthCheckResponse_SERVING, h.Status)

		list, err := m.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		require.NoError(t, err)
		require.Len(t, list.Members, 3)
		require.Zero(t, list.Header.Revision)
		seen := map[string]bool{}
		for _, member := range list.Members {
			require.Len(t, member.PeerURLs, 1)
			require.Len(t, member.ClientURLs, 1, "member %s has published its address", member.Name)
			seen[member.Name] = true
		}
		require.Equal(t, map[string]bool{"m0": true, "m1": true, "m2": true}, seen)
	}
}

// Every member answers writes and linearizable reads, and each write is at once
// visible on every other.
func TestThreeMembersAgree(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	var members []api
	for _, e := range c.Endpoints() {
		members = append(members, dial(t, e))
	}
	for i := range 30 {
		key := fmt.Sprintf("k%d", i)
		_, err := members[i%3].Put(ctx, put(key, key))
		require.NoError(t, err)
		for _, m := range members {
			got, err := m.Range(ctx, get(key))
			require.NoError(t, err)
			require.Len(t, got.Kvs, 1, "a linearizable read sees the write")
		}
	}
}

// writer puts numbered keys through one member until stopped and keeps the
// numbers that were acknowledged.
type writer struct {
	acked chan int // every acknowledged number, in order
	stop  context.CancelFunc
	done  chan struct{}
	sum   []int
}

// startWriter writes under prefix through the cluster's client, which moves to
// another member by itself.
func startWriter(t *testing.T, c *servertest.Cluster, prefix string, members ...int) *writer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &writer{acked: make(chan int, 1<<20), stop: cancel, done: make(chan struct{})}
	var via []api
	for _, i := range members {
		via = append(via, dial(t, c.Endpoints()[i]))
	}
	go func() {
		defer close(w.done)
		for n := 0; ctx.Err() == nil; n++ {
			_, err := via[n%len(via)].Put(ctx, put(fmt.Sprintf("%s%06d", prefix, n), "v"))
			if err == nil {
				w.sum = append(w.sum, n)
				w.acked <- n
			}
		}
	}()
	t.Cleanup(w.finish)
	return w
}

func (w *writer) finish() {
	w.stop()
	<-w.done
}

// await returns once n more writes are acknowledged.
func (w *writer) await(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for range n {
		select {
		case <-w.acked:
		case <-deadline:
			t.Fatal("writes are not acknowledged")
		}
	}
}

// requireAll fails if an acknowledged write is missing on any of the members.
func (w *writer) requireAll(t *testing.T, c *servertest.Cluster, prefixOf string, members ...int) {
	t.Helper()
	for _, i := range members {
		m := dial(t, c.Endpoints()[i])
		got, err := m.Range(testContext(t), prefix(prefixOf))
		require.NoError(t, err)
		have := make(map[string]bool, len(got.Kvs))
		for _, kv := range got.Kvs {
			have[string(kv.Key)] = true
		}
		for _, n := range w.sum {
			require.True(t, have[fmt.Sprintf("%s%06d", prefixOf, n)], "acknowledged write %d is missing on member %d", n, i)
		}
	}
}

func TestLeaderKilledUnderWrites(t *testing.T) {
	c := servertest.Three(t)
	for round := range 3 {
		leader := c.Leader()
		a, b := (leader+1)%3, (leader+2)%3
		p := fmt.Sprintf("r%d-", round)
		w := startWriter(t, c, p, a, b)
		w.await(t, 50)
		c.Kill(leader)
		w.await(t, 50)
		c.Restart(leader)
		w.await(t, 50)
		w.finish()
		w.requireAll(t, c, p, 0, 1, 2)
	}
}

func TestRollingRestartUnderWrites(t *testing.T) {
	c := servertest.Three(t)
	w := startWriter(t, c, "w", 0, 1, 2)
	for i := range 3 {
		w.await(t, 30)
		c.Stop(i)
		w.await(t, 30)
		c.Restart(i)
	}
	w.await(t, 30)
	w.finish()
	w.requireAll(t, c, "w", 0, 1, 2)
}

// A stop in order costs other members' clients no failed request: leadership is
// handed over first, and what is under way is proposed again.
func TestPlannedStopFailsNoRequest(t *testing.T) {
	ctx := testContext(t)
	c := servertest.Three(t)
	leader := c.Leader()
	m := dial(t, c.Endpoints()[(leader+1)%3])
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.Stop(leader)
	}()
	for n := 0; ; n++ {
		_, err := m.Put(ctx, put(fmt.Sprintf("k%d", n), "v"))
		require.NoError(t, err)
		select {
		case <-stopped:
			return
		default:
		}
	}
}

func TestStartErrorsSayWhatToDo(t *testing.T) {
	ctx := testContext(t)
	c := servertest.One(t)
	taken := c.Endpoints()[0]
	dir := t.TempDir()

	start := func(change func(*server.Config)) error {
		cfg := server.Config{
			DataDir:          filepath.Join(dir, "data"),
			ListenClientURLs: []string{"http://127.0.0.1:0"}, ListenPeerURLs: []string{"http://127.0.0.1:0"},
		}
		change(&cfg)
		m, err := server.Start(ctx, cfg)
		if err == nil {
			m.Kill()
		}
		return err
	}

	err := start(func(c *server.Config) { c.ListenClientURLs = []string{"http://" + taken} })
	require.ErrorContains(t, err, taken+" is in use by another process")
	err = start(func(c *server.Config) { c.ListenClientURLs = []string{"127.0.0.1:1"} })
	require.ErrorContains(t, err, "listen-client-urls")
	err = start(func(c *server.Config) { c.ElectionTimeout = time.Millisecond })
	require.ErrorContains(t, err, "election-timeout")
	err = start(func(c *server.Config) { c.InitialCluster = "other=http://127.0.0.1:1" })
	require.ErrorContains(t, err, "does not name this member")
	_, serr := os.Stat(filepath.Join(dir, "data", "member"))
	require.ErrorIs(t, serr, os.ErrNotExist, "a refused start leaves no member behind")

	// A second process on one directory.
	first, err := server.Start(ctx, server.Config{
		DataDir:          filepath.Join(dir, "data"),
		ListenClientURLs: []string{"http://127.0.0.1:0"}, ListenPeerURLs: []string{"http://127.0.0.1:0"},
	})
	require.NoError(t, err)
	require.ErrorIs(t, start(func(*server.Config) {}), server.ErrDataDirInUse)
	require.NoError(t, first.Stop(ctx))

	// A directory that holds something else.
	foreign := filepath.Join(dir, "foreign")
	require.NoError(t, os.MkdirAll(filepath.Join(foreign, "member", "snap"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "member", "snap", "db"), []byte("not a checkpoint"), 0o600))
	err = start(func(c *server.Config) { c.DataDir = foreign })
	require.Error(t, err)
	require.True(t, errors.Is(err, server.ErrForeignDataDir) || errors.Is(err, server.ErrDamagedDataDir), "%v", err)

	// A log with a flipped byte in the middle.
	segments, err := filepath.Glob(filepath.Join(dir, "data", "member", "wal", "*"))
	require.NoError(t, err)
	require.NotEmpty(t, segments)
	damageFirstByteAfterHeader(t, segments)
	err = start(func(*server.Config) {})
	require.ErrorIs(t, err, server.ErrDamagedDataDir)
	require.ErrorContains(t, err, "offset")
}

// damageFirstByteAfterHeader flips a bit in the header of the oldest segment.
func damageFirstByteAfterHeader(t *testing.T, segments []string) {
	t.Helper()
	for _, name := range segments {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		require.NoError(t, err)
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, 20); err == nil {
			b[0] ^= 1
			_, err = f.WriteAt(b, 20)
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
	}
}

func TestQuotaRefusesGrowthOnly(t *testing.T) {
	ctx := testContext(t)
	c := servertest.One(t, servertest.WithConfig(func(cfg *server.Config) {
		cfg.QuotaBytes = 64 << 10
		server.SetQuotaHold(cfg, time.Millisecond)
	}))
	m := dial(t, c.Endpoints()[0])
	value := string(make([]byte, 8<<10))
	var err error
	for i := 0; err == nil; i++ {
		require.Less(t, i, 20, "the quota refuses nothing")
		_, err = m.Put(ctx, put(fmt.Sprintf("k%d", i), value))
	}
	require.Equal(t, rpctypes.ErrGRPCNoSpace.Error(), err.Error())
	_, err = m.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	require.NoError(t, err, "a delete passes")
	until(t, ctx, "room is made, and the alarm goes", func() bool {
		_, err := m.Put(ctx, put("k", "v"))
		return err == nil
	})
}

func TestCompactionPhysicalAndOldRevisions(t *testing.T) {
	ctx := testContext(t)
	c := servertest.One(t)
	m := dial(t, c.Endpoints()[0])
	for i := range 20 {
		_, err := m.Put(ctx, put("a", fmt.Sprint(i))) // revisions 2..21
		require.NoError(t, err)
	}
	_, err := m.Compact(ctx, &pb.CompactionRequest{Revision: 10, Physical: true})
	require.NoError(t, err)
	_, err = m.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Revision: 9})
	require.Equal(t, rpctypes.ErrGRPCCompacted.Error(), err.Error())
	for rev := int64(10); rev <= 21; rev++ {
		got, err := m.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Revision: rev})
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(rev-2), string(got.Kvs[0].Value))
	}
	_, err = m.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Revision: 22})
	require.Equal(t, rpctypes.ErrGRPCFutureRev.Error(), err.Error())
	_, err = m.Compact(ctx, &pb.CompactionRequest{Revision: 10})
	require.Equal(t, rpctypes.ErrGRPCCompacted.Error(), err.Error())
	_, err = m.Compact(ctx, &pb.CompactionRequest{Revision: 100})
	require.Equal(t, rpctypes.ErrGRPCFutureRev.Error(), err.Error())
}

func TestListenerGivenAhead(t *testing.T) {
	ctx := testContext(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	peer, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m, err := server.Start(ctx, server.Config{DataDir: t.TempDir(), Sockets: server.Sockets{Client: l, Peer: peer}})
	require.NoError(t, err)
	defer m.Kill()
	<-m.Ready()
	got, err := dial(t, l.Addr().String()).Range(ctx, get("none"))
	require.NoError(t, err)
	require.Empty(t, got.Kvs)
}
