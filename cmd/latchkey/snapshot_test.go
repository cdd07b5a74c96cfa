package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// stoppedMember returns the data folder of a member that held three keys, and a shell without one that runs.
func stoppedMember(t *testing.T) (sh *shell, dataDir string) {
	t.Helper()
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) { dataDir = c.DataDir }))
	sh = &shell{t, strings.Join(c.Endpoints(), ",")}
	for _, key := range []string{"a", "b", "c"} {
		sh.must("", "put", key, "value of "+key)
	}
	sh.must("", "del", "b")
	code, _, errOut := sh.run("", "backup", "--data-dir="+dataDir, "--backup-dir="+t.TempDir())
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "latchkey snapshot save", "a running member is asked")
	c.Stop(0)
	return sh, dataDir
}

func TestBackupStatusRestore(t *testing.T) {
	sh, dataDir := stoppedMember(t)
	dir := filepath.Join(t.TempDir(), "backup")
	file := filepath.Join(dir, backupName)
	require.Equal(t, "Snapshot saved at "+file+"\n", sh.must("", "backup", "--data-dir="+dataDir, "--backup-dir="+dir))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing else stays")
	status := jsonOf(t, sh.must("", "snapshot", "status", file, "--output=json"))
	require.EqualValues(t, 5, status["revision"])
	require.EqualValues(t, 2, status["total_keys"])
	require.Equal(t, true, status["hashed"])
	require.Contains(t, sh.must("", "snapshot", "status", file, "-w", "table"), "TOTAL KEYS")

	made := filepath.Join(t.TempDir(), "made")
	out := sh.must("", "snapshot", "restore", file, "--data-dir="+made, "--name=m0")
	require.Contains(t, out, "Restored 2 keys")
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) { c.DataDir = made }))
	again := &shell{t, strings.Join(c.Endpoints(), ",")}
	require.Equal(t, "a\nvalue of a\nc\nvalue of c\n", again.must("", "get", "", "--prefix"))
	require.EqualValues(t, 1_000_000_006, jsonOf(t, again.must("", "put", "d", "", "--output=json"))["revision"])

	plain := jsonOf(t, sh.must("", "snapshot", "restore", file, "--data-dir="+made+"2", "--bump-revision=0", "--output=json"))
	require.EqualValues(t, 5, plain["revision"])
	require.EqualValues(t, -1, plain["compact_revision"])
	for _, args := range [][]string{
		{"--bump-revision=0", "--mark-compacted"}, {"--mark-compacted=false"}, {"--bump-revision=-1"}, {"--bump-revision=9223372036854775807"},
	} {
		code, _, errOut := sh.run("", append([]string{"snapshot", "restore", file, "--data-dir=" + made + "3"}, args...)...)
		require.Equal(t, exitUsage, code, errOut)
	}
	c.Stop(0)
	code, _, errOut := sh.run("", "snapshot", "restore", file, "--data-dir="+made)
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "not empty")
}

// fakeMaintenance sends a file as a snapshot.
type fakeMaintenance struct {
	pb.UnimplementedMaintenanceServer
	data []byte
}

func (f *fakeMaintenance) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{DbSize: int64(len(f.data))}, nil
}

func (f *fakeMaintenance) Snapshot(_ *pb.SnapshotRequest, to grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	for rest := f.data; len(rest) > 0; {
		part := rest[:min(max(len(rest)-32, 32), 32<<10)] // the hash is a part of its own
		rest = rest[len(part):]
		if err := to.Send(&pb.SnapshotResponse{Blob: part, RemainingBytes: uint64(max(0, len(rest)-32)), Version: "3.7.0"}); err != nil {
			return err
		}
	}
	return nil
}

func serveSnapshot(t *testing.T, data []byte) *shell {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer()
	pb.RegisterMaintenanceServer(s, &fakeMaintenance{data: data})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return &shell{t, l.Addr().String()}
}

// What is saved is whole and verified, or not there at all; what was there before stays.
func TestSnapshotSave(t *testing.T) {
	sh, dataDir := stoppedMember(t)
	dir := t.TempDir()
	sh.must("", "backup", "--data-dir="+dataDir, "--backup-dir="+dir)
	good, err := os.ReadFile(filepath.Join(dir, backupName))
	require.NoError(t, err)
	flipped := bytes.Clone(good)
	flipped[len(good)/2] ^= 1
	file := filepath.Join(t.TempDir(), "s.db")
	zeros := sha256.Sum256(make([]byte, 4096))

	require.Equal(t, "Snapshot saved at "+file+"\n", serveSnapshot(t, good).must("", "snapshot", "save", file))
	saved, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, good, saved)
	for name, c := range map[string]struct {
		data []byte
		text string
	}{
		"cut": {good[:len(good)-512], "cut short"}, "no hash": {good[:len(good)-32], "cut short"}, "flipped": {flipped, "checksum"}, "nothing": {nil, "cut short"},
		"no database": {append(make([]byte, 4096), zeros[:]...), "not a snapshot"},
	} {
		code, _, errOut := serveSnapshot(t, c.data).run("", "snapshot", "save", file)
		require.Equal(t, exitError, code, name)
		require.Contains(t, errOut, c.text, name)
	}
	code, _, _ := sh.run("", "snapshot", "save", file, "--timeout=100ms")
	require.Equal(t, exitError, code, "nobody there")
	code, _, errOut := sh.run("", "snapshot", "save", file, "--endpoints=127.0.0.1:1,127.0.0.1:2")
	require.Equal(t, exitUsage, code, errOut)

	entries, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing half made stays")
	saved, err = os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, good, saved)
}

func TestSnapshotOutput(t *testing.T) {
	info := server.SnapshotInfo{
		Origin: "etcd", Version: "3.7.0", Hash: 0x1234abcd, Revision: 1_000_000_042, CompactRevision: -1, Keys: 17, Leases: 2, Bytes: 20480, Hashed: true,
	}
	for name, r := range map[string]answer{
		"snapshot-status": snapshotAnswer(info),
		"snapshot-save":   savedAnswer("backup.db", info),
		"snapshot-restore": restoredAnswer(server.Restored{
			Name: "a", DataDir: "a.latchkey", ClusterID: 3, MemberID: 0xabc, Members: 3, Snapshot: info, Revision: 2_000_000_042, CompactRevision: 2_000_000_042,
		}),
	} {
		for _, output := range []string{"simple", "table", "json"} {
			var out bytes.Buffer
			a := &app{out: &out, output: output}
			require.NoError(t, a.print(r))
			golden(t, filepath.Join("testdata", name+"."+output+".txt"), out.Bytes())
		}
	}
	p := newProgress(&bytes.Buffer{}, 2)
	p.add(1)
	p.done()
	require.True(t, p.next.Before(time.Now()), "no terminal, no progress")
}
