package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// tool runs one of the programs to its end and returns its standard output.
func tool(t *testing.T, which harness.Tool, args ...string) string {
	t.Helper()
	path, err := harness.Build(testContext(t), which)
	require.NoError(t, err)
	cmd := exec.CommandContext(testContext(t), path, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	require.NoError(t, cmd.Run(), "%s %q\n%s%s", which, args, &out, &errOut)
	return out.String()
}

// startAt starts one member on a data directory that was made before: dir/m0.
func startAt(t *testing.T, kind harness.Kind, dir string) *side {
	t.Helper()
	c, err := harness.Start(testContext(t), harness.Config{Kind: kind, Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return connect(t, c)
}

// estate is what a migration has to bring over.
type estate struct {
	revision, compact int64
	kvs               []*mvccpb.KeyValue
	history           map[int64][]*mvccpb.KeyValue // by revision, from compact on
	leases            map[int64]*pb.LeaseTimeToLiveResponse
}

// furnish writes keys of several versions, some deleted, a transaction that writes many, a compaction and leases.
func furnish(t *testing.T, s *side) {
	t.Helper()
	ctx := testContext(t)
	for id := range int64(3) {
		_, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 0x7001 + id, TTL: 3600 + id})
		require.NoError(t, err)
	}
	var compact int64
	for i := range 200 {
		r := &pb.PutRequest{Key: fmt.Appendf(nil, "k/%02d", i*7%60), Value: bytes.Repeat([]byte{byte(i)}, i*13%900)}
		if i%5 == 0 {
			r.Lease = 0x7001 + int64(i%3)
		}
		_, err := s.kv.Put(ctx, r)
		require.NoError(t, err)
		if i%9 == 0 {
			d, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: r.Key, RangeEnd: append(bytes.Clone(r.Key[:3]), r.Key[3]+1)})
			require.NoError(t, err)
			if i == 99 {
				compact = d.Header.Revision - 3
			}
		}
		if i%20 == 0 {
			txn := &pb.TxnRequest{}
			for n := range 5 {
				txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
					RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "t/%d", n), Value: r.Value}}})
			}
			_, err := s.kv.Txn(ctx, txn)
			require.NoError(t, err)
		}
	}
	_, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: compact, Physical: true})
	require.NoError(t, err)
	_, err = s.kv.Put(ctx, &pb.PutRequest{Key: []byte("last"), Value: []byte("one")})
	require.NoError(t, err)
	_, err = s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("last")})
	require.NoError(t, err)
}

func everything(rev int64) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: rev}
}

// survey reads all that a server has, every revision of it.
func survey(t *testing.T, s *side) estate {
	t.Helper()
	ctx := testContext(t)
	now, err := s.kv.Range(ctx, everything(0))
	require.NoError(t, err)
	e := estate{
		revision: now.Header.Revision, kvs: now.Kvs,
		history: make(map[int64][]*mvccpb.KeyValue), leases: make(map[int64]*pb.LeaseTimeToLiveResponse),
	}
	for e.compact = e.revision; e.compact > 0; e.compact-- {
		then, err := s.kv.Range(ctx, everything(e.compact))
		if err != nil {
			require.ErrorContains(t, err, "compacted")
			break
		}
		e.history[e.compact] = then.Kvs
	}
	leases, err := s.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	require.NoError(t, err)
	for _, l := range leases.Leases {
		e.leases[l.ID], err = s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: l.ID, Keys: true})
		require.NoError(t, err)
	}
	require.NotEmpty(t, e.kvs)
	require.Len(t, e.leases, 3)
	return e
}

func requireSame(t *testing.T, want, got []*mvccpb.KeyValue) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.True(t, proto.Equal(want[i], got[i]), "%s\n%s", want[i], got[i])
	}
}

// requireMoved compares keys with all their fields, and leases with their keys.
func requireMoved(t *testing.T, want, got estate) {
	t.Helper()
	requireSame(t, want.kvs, got.kvs)
	require.Len(t, got.leases, len(want.leases))
	for id, l := range want.leases {
		require.Equal(t, l.GrantedTTL, got.leases[id].GetGrantedTTL())
		require.ElementsMatch(t, l.Keys, got.leases[id].GetKeys())
		require.Positive(t, got.leases[id].GetTTL())
	}
}

// requireHistory compares all revisions that can be read.
func requireHistory(t *testing.T, want, got estate) {
	t.Helper()
	require.Equal(t, want.revision, got.revision)
	require.Equal(t, want.compact, got.compact)
	require.Greater(t, len(want.history), 50)
	for rev, kvs := range want.history {
		requireSame(t, kvs, got.history[rev])
	}
}

// requireForward checks that a new cluster gives out no revision again, and tells old watchers so.
func requireForward(t *testing.T, s *side, old, now int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	w, err := s.watch.Watch(ctx)
	require.NoError(t, err)
	require.NoError(t, w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte("k/"), RangeEnd: []byte("k0"), StartRevision: old + 1}}}))
	for {
		r, err := w.Recv()
		require.NoError(t, err)
		require.Empty(t, r.Events)
		if r.Canceled {
			require.Equal(t, now, r.CompactRevision)
			break
		}
	}
	_, err = s.kv.Range(ctx, everything(old))
	require.ErrorContains(t, err, "compacted")
	r, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k/new")})
	require.NoError(t, err)
	require.Equal(t, now+1, r.Header.Revision, "a fencing token is above all that were given out")
}

// awaitVersion waits until an etcd has told its file of which version that is: some seconds after its first start.
func awaitVersion(t *testing.T, s *side) {
	t.Helper()
	ctx := testContext(t)
	for {
		st, err := s.maint.Status(ctx, &pb.StatusRequest{})
		require.NoError(t, err)
		if st.StorageVersion != "" {
			return
		}
		select {
		case <-ctx.Done():
			require.NoError(t, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond): // nothing tells
		}
	}
}

func addUsers(t *testing.T, s *side) {
	t.Helper()
	ctx, auth := testContext(t), pb.NewAuthClient(s.conn)
	_, err := auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "reader"})
	require.NoError(t, err)
	_, err = auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "reader", Perm: &authpb.Permission{
		PermType: authpb.READ, Key: []byte("k/"), RangeEnd: []byte("k0")}})
	require.NoError(t, err)
	_, err = auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "ann", Password: "secret", Options: &authpb.UserAddOptions{}})
	require.NoError(t, err)
	_, err = auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "ann", Role: "reader"})
	require.NoError(t, err)
}

// requireUsers compares users and roles, and logs one in.
func requireUsers(t *testing.T, want, got *side) {
	t.Helper()
	ctx := testContext(t)
	var roles [2]*pb.AuthRoleGetResponse
	var users [2]*pb.AuthUserGetResponse
	for i, s := range []*side{want, got} {
		auth := pb.NewAuthClient(s.conn)
		var err error
		roles[i], err = auth.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: "reader"})
		require.NoError(t, err)
		users[i], err = auth.UserGet(ctx, &pb.AuthUserGetRequest{Name: "ann"})
		require.NoError(t, err)
		roles[i].Header, users[i].Header = nil, nil
	}
	require.True(t, proto.Equal(roles[0], roles[1]), "%s\n%s", roles[0], roles[1])
	require.True(t, proto.Equal(users[0], users[1]), "%s\n%s", users[0], users[1])
	auth := pb.NewAuthClient(got.conn)
	_, err := auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Password: "r", Options: &authpb.UserAddOptions{}})
	require.NoError(t, err)
	_, err = auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	require.NoError(t, err)
	_, err = auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
	require.NoError(t, err)
	_, err = auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "ann", Password: "secret"})
	require.NoError(t, err)
}

// sameStatus checks that both programs see the same in a snapshot.
func sameStatus(t *testing.T, file string) {
	t.Helper()
	var theirs struct {
		Hash      uint32
		Revision  int64
		TotalKey  int
		TotalSize int64
		Version   string
	}
	var ours struct {
		Hash     uint32
		Revision int64
		Keys     int   `json:"total_keys"`
		Size     int64 `json:"total_size_bytes"`
		Version  string
	}
	require.NoError(t, json.Unmarshal([]byte(tool(t, harness.ToolEtcdutl, "snapshot", "status", file, "-w", "json")), &theirs))
	require.NoError(t, json.Unmarshal([]byte(tool(t, harness.ToolLatchkey, "snapshot", "status", file, "-w", "json")), &ours))
	require.Equal(t, []any{theirs.Hash, theirs.Revision, theirs.TotalKey, theirs.TotalSize, theirs.Version},
		[]any{ours.Hash, ours.Revision, ours.Keys, ours.Size, ours.Version})
	require.NotZero(t, ours.Keys)
}

// TestMigrateFromEtcd takes a snapshot of etcd, by etcdctl and by our own command, and serves it.
func TestMigrateFromEtcd(t *testing.T) {
	etcd := startSide(t, string(harness.Etcd), 1)
	furnish(t, etcd)
	addUsers(t, etcd)
	awaitVersion(t, etcd)
	want := survey(t, etcd)
	dir := t.TempDir()
	theirs, ours := filepath.Join(dir, "etcdctl.db"), filepath.Join(dir, "latchkey.db")
	endpoint := "--endpoints=" + etcd.cluster.Members[0].ClientURL
	tool(t, harness.ToolEtcdctl, endpoint, "snapshot", "save", theirs)
	tool(t, harness.ToolLatchkey, "snapshot", "save", ours, endpoint)
	sameStatus(t, theirs)
	sameStatus(t, ours)

	t.Run("as it was", func(t *testing.T) {
		data := t.TempDir()
		tool(t, harness.ToolLatchkey, "snapshot", "restore", ours, "--name=m0", "--data-dir="+filepath.Join(data, "m0"), "--bump-revision=0")
		s := startAt(t, harness.Latchkey, data)
		got := survey(t, s)
		requireMoved(t, want, got)
		requireHistory(t, want, got)
		requireUsers(t, etcd, s)
	})
	t.Run("users, and on to another etcd", func(t *testing.T) {
		data, again := t.TempDir(), t.TempDir()
		tool(t, harness.ToolLatchkey, "snapshot", "restore", ours, "--name=m0", "--data-dir="+filepath.Join(data, "m0"))
		tool(t, harness.ToolLatchkey, "backup", "--data-dir="+filepath.Join(data, "m0"), "--backup-dir="+again)
		requireUsers(t, etcd, etcdRestore(t, filepath.Join(again, "snapshot.db")))
	})
	t.Run("bumped", func(t *testing.T) {
		data := t.TempDir()
		tool(t, harness.ToolLatchkey, "snapshot", "restore", theirs, "--name=m0", "--data-dir="+filepath.Join(data, "m0"))
		s := startAt(t, harness.Latchkey, data)
		got := survey(t, s)
		requireMoved(t, want, got)
		require.Equal(t, want.revision+1_000_000_000, got.revision)
		requireForward(t, s, want.revision, got.revision)
	})
	t.Run("a copy of the file", func(t *testing.T) {
		require.NoError(t, etcd.cluster.Members[0].Terminate(testContext(t)))
		data := t.TempDir()
		theirs := etcd.cluster.Members[0].DataDir
		path, err := harness.Build(testContext(t), harness.ToolLatchkey)
		require.NoError(t, err)
		said, err := exec.CommandContext(testContext(t), path, "doctor", theirs).Output()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 12, exit.ExitCode(), "%s", said)
		db := filepath.Join(theirs, "member", "snap", "db")
		tool(t, harness.ToolLatchkey, "snapshot", "restore", db, "--skip-hash-check", "--name=m0", "--data-dir="+filepath.Join(data, "m0"))
		requireMoved(t, want, survey(t, startAt(t, harness.Latchkey, data)))
	})
}

// etcdRestore makes an etcd of a snapshot.
func etcdRestore(t *testing.T, file string, flags ...string) *side {
	t.Helper()
	data := t.TempDir()
	tool(t, harness.ToolEtcdutl, append([]string{
		"snapshot", "restore", file, "--name=m0", "--initial-cluster=m0=http://127.0.0.1:2380",
		"--initial-advertise-peer-urls=http://127.0.0.1:2380", "--data-dir=" + filepath.Join(data, "m0"),
	}, flags...)...)
	return startAt(t, harness.Etcd, data)
}

// TestMigrateToEtcdAndBack restores our snapshot into etcd, and the snapshot of that etcd, which has our rows in it
// still, into a member of ours.
func TestMigrateToEtcdAndBack(t *testing.T) {
	latchkey := startSide(t, string(harness.Latchkey), 1)
	furnish(t, latchkey)
	addUsers(t, latchkey)
	want := survey(t, latchkey)
	member := latchkey.cluster.Members[0]
	for which, name := range map[harness.Tool]string{harness.ToolEtcdctl: "by etcdctl", harness.ToolLatchkey: "by latchkey"} {
		t.Run("a snapshot "+name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "live.db")
			tool(t, which, "snapshot", "save", file, "--endpoints="+member.ClientURL)
			sameStatus(t, file)
			s := etcdRestore(t, file)
			got := survey(t, s)
			requireMoved(t, want, got)
			requireHistory(t, want, got)
			requireUsers(t, latchkey, s)
		})
	}
	require.NoError(t, member.Kill()) // the checkpoint is behind the log
	dir := t.TempDir()
	tool(t, harness.ToolLatchkey, "backup", "--data-dir="+member.DataDir, "--backup-dir="+dir)
	file := filepath.Join(dir, "snapshot.db")
	sameStatus(t, file)

	t.Run("as it was", func(t *testing.T) {
		got := survey(t, etcdRestore(t, file))
		requireMoved(t, want, got)
		requireHistory(t, want, got)
	})
	t.Run("bumped by etcdutl, and back", func(t *testing.T) {
		etcd := etcdRestore(t, file, "--bump-revision=1000000", "--mark-compacted")
		moved := survey(t, etcd)
		requireMoved(t, want, moved)
		require.Equal(t, want.revision+1_000_000, moved.revision)
		back := filepath.Join(t.TempDir(), "back.db")
		tool(t, harness.ToolEtcdctl, "--endpoints="+etcd.cluster.Members[0].ClientURL, "snapshot", "save", back)
		data := t.TempDir()
		tool(t, harness.ToolLatchkey, "snapshot", "restore", back, "--name=m0", "--data-dir="+filepath.Join(data, "m0"), "--bump-revision=0")
		got := survey(t, startAt(t, harness.Latchkey, data))
		requireMoved(t, want, got)
		require.Equal(t, moved.revision, got.revision)
	})
	t.Run("bumped by us, and on", func(t *testing.T) {
		data := t.TempDir()
		tool(t, harness.ToolLatchkey, "snapshot", "restore", file, "--name=m0", "--data-dir="+filepath.Join(data, "m0"))
		again := t.TempDir()
		tool(t, harness.ToolLatchkey, "backup", "--data-dir="+filepath.Join(data, "m0"), "--backup-dir="+again)
		s := etcdRestore(t, filepath.Join(again, "snapshot.db"))
		got := survey(t, s)
		requireMoved(t, want, got)
		require.Equal(t, want.revision+1_000_000_000, got.revision)
		requireForward(t, s, want.revision, got.revision)
	})
}
