package server_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/latchkey-go/latchkey/api/v3lockpb"
	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// audited is a cluster of one member with an audit log.
type audited struct {
	*secured
	file string
	conn *grpc.ClientConn
	read int // lines
}

func newAudited(t *testing.T, reads bool) *audited {
	file := filepath.Join(t.TempDir(), "audit")
	s := secure(t, servertest.One(t, servertest.WithConfig(func(c *server.Config) {
		cheap(c)
		c.Audit = server.Audit{File: file, Reads: reads}
	})))
	conn, err := grpc.NewClient("passthrough:///"+s.cluster.Endpoints()[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	a := &audited{secured: s, file: file, conn: conn}
	a.lines()
	return a
}

// lines returns what has been written since the last call, without times and addresses
// A line is there when the call has been answered.
func (a *audited) lines() []string {
	a.Helper()
	content, err := os.ReadFile(a.file)
	require.NoError(a, err)
	var all []string
	scanner := bufio.NewScanner(strings.NewReader(string(content)))
	for scanner.Scan() {
		fields := make(map[string]any)
		require.NoError(a, json.Unmarshal(scanner.Bytes(), &fields), scanner.Text())
		require.Contains(a, fields, "time")
		require.Contains(a, fields, "from")
		delete(fields, "time")
		delete(fields, "from")
		delete(fields, "revision")
		line, err := json.Marshal(fields) // which sorts them
		require.NoError(a, err)
		all = append(all, string(line))
	}
	fresh := all[a.read:]
	a.read = len(all)
	return fresh
}

// Each change is a line, and each refusal, and nothing else is; with whom, about what and what came of it, by whatever way
// it came.
func TestAuditLog(t *testing.T) {
	a := newAudited(t, false)
	kv := a.members[0]
	_, err := kv.Put(a.user, &pb.PutRequest{Key: []byte("a1"), Value: []byte("a secret value"), PrevKv: true})
	require.NoError(t, err)
	_, err = kv.Put(a.user, put("z\xff", "a secret value"))
	require.Error(t, err)
	_, err = kv.Range(a.user, get("a1"))
	require.NoError(t, err)
	_, err = kv.Range(a.user, &pb.RangeRequest{Key: []byte("y"), RangeEnd: []byte("z")})
	require.Error(t, err)
	_, err = kv.Range(a.ctx, get("a1"))
	require.Error(t, err)
	_, err = kv.Txn(a.user, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: get("a1")}}}})
	require.NoError(t, err)
	_, err = kv.Txn(a.user, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("c1"), Target: pb.Compare_VERSION}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("b")}}}},
	})
	require.NoError(t, err)
	require.Equal(t, []string{
		`{"keys":[{"key":"a1","right":"write"},{"key":"a1","right":"read"}],"method":"/etcdserverpb.KV/Put","outcome":"OK","user":"u"}`,
		`{"error":"etcdserver: permission denied","keys":[{"key":"z\\xff","right":"write"}],"method":"/etcdserverpb.KV/Put","outcome":"PermissionDenied","user":"u"}`,
		`{"error":"etcdserver: permission denied","keys":[{"end":"z","key":"y","right":"read"}],"method":"/etcdserverpb.KV/Range","outcome":"PermissionDenied","user":"u"}`,
		`{"error":"etcdserver: user name is empty","keys":[{"key":"a1","right":"read"}],"method":"/etcdserverpb.KV/Range","outcome":"InvalidArgument"}`,
		`{"keys":[{"key":"c1","right":"read"},{"end":"b","key":"a","right":"write"}],"method":"/etcdserverpb.KV/Txn","outcome":"OK","user":"u"}`,
	}, a.lines())

	_, err = a.auths[0].Authenticate(a.ctx, &pb.AuthenticateRequest{Name: "u", Password: "a wrong planted password"})
	require.Error(t, err)
	_, err = a.auths[0].UserAdd(a.root, &pb.AuthUserAddRequest{Name: "ann", Password: "another planted password"})
	require.NoError(t, err)
	a.grant(a.root, 2, "k", "l")
	_, err = pb.NewClusterClient(a.conn).MemberPromote(a.root, &pb.MemberPromoteRequest{ID: 0xabc})
	require.Error(t, err)
	snapshot, err := pb.NewMaintenanceClient(a.conn).Snapshot(a.user, &pb.SnapshotRequest{})
	require.NoError(t, err)
	_, err = snapshot.Recv()
	require.Error(t, err)
	_, err = v3lockpb.NewLockClient(a.conn).Unlock(a.root, &v3lockpb.UnlockRequest{Key: []byte("l/1")})
	require.NoError(t, err)
	require.Equal(t, []string{
		`{"about":"name=u","error":"etcdserver: authentication failed, invalid user ID or password","method":"/etcdserverpb.Auth/Authenticate","outcome":"InvalidArgument"}`,
		`{"about":"name=ann","method":"/etcdserverpb.Auth/UserAdd","outcome":"OK","user":"root"}`,
		`{"about":"name=r","keys":[{"end":"l","key":"k","right":"grant readwrite"}],"method":"/etcdserverpb.Auth/RoleGrantPermission","outcome":"OK","user":"root"}`,
		`{"about":"member=abc","error":"etcdserver: member not found","method":"/etcdserverpb.Cluster/MemberPromote","outcome":"NotFound","user":"root"}`,
		`{"error":"etcdserver: permission denied","method":"/etcdserverpb.Maintenance/Snapshot","outcome":"PermissionDenied","user":"u"}`,
		`{"keys":[{"key":"l/1","right":"write"}],"method":"/v3lockpb.Lock/Unlock","outcome":"OK","user":"root"}`,
	}, a.lines())

	resp, err := http.Post("http://"+a.cluster.Endpoints()[0]+"/v3/kv/put", "", strings.NewReader(`{"key":"YQ==","value":"YQ=="}`))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, []string{
		`{"error":"etcdserver: user name is empty","keys":[{"key":"a","right":"write"}],"method":"/etcdserverpb.KV/Put","outcome":"InvalidArgument"}`,
	}, a.lines(), "through the gateway")
	content, err := os.ReadFile(a.file)
	require.NoError(t, err)
	for _, secret := range []string{rootPassword, userPassword, "planted", "secret value", "YQ=="} {
		require.NotContains(t, string(content), secret)
	}
	info, err := os.Stat(a.file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

// Where it is asked for, reads and watches are lines as well.
func TestAuditLogOfReads(t *testing.T) {
	a := newAudited(t, true)
	_, err := a.members[0].Range(a.user, get("a1"))
	require.NoError(t, err)
	w, err := pb.NewWatchClient(a.conn).Watch(a.user)
	require.NoError(t, err)
	for _, key := range []string{"a1", "z"} {
		require.NoError(t, w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(key)}}}))
		_, err := w.Recv()
		require.NoError(t, err)
	}
	ranges, err := pb.NewKVClient(a.conn).RangeStream(a.user, get("a1"))
	require.NoError(t, err)
	_, err = ranges.Recv()
	require.NoError(t, err)
	require.Equal(t, []string{
		`{"keys":[{"key":"a1","right":"read"}],"method":"/etcdserverpb.KV/Range","outcome":"OK","user":"u"}`,
		`{"keys":[{"key":"a1","right":"read"}],"method":"/etcdserverpb.Watch/Watch","outcome":"OK","user":"u"}`,
		`{"error":"etcdserver: permission denied","keys":[{"key":"z","right":"read"}],"method":"/etcdserverpb.Watch/Watch","outcome":"PermissionDenied","user":"u"}`,
		`{"keys":[{"key":"a1","right":"read"}],"method":"/etcdserverpb.KV/RangeStream","outcome":"OK","user":"u"}`,
	}, a.lines())
}

// A log that can not be opened keeps the member from starting.
func TestAuditLogRefuses(t *testing.T) {
	cfg := server.Config{DataDir: t.TempDir(), Audit: server.Audit{File: t.TempDir()}}
	bindSockets(t, &cfg)
	_, err := server.Start(testContext(t), cfg)
	require.ErrorContains(t, err, "open audit log")
	_, err = server.Start(testContext(t), server.Config{Audit: server.Audit{Reads: true}})
	require.ErrorContains(t, err, "audit-log-reads is set without audit-log")
}
