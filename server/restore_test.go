package server_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// content is every file below dir by its hash.
func content(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	files := make(map[string][32]byte)
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = sha256.Sum256(b)
		return err
	}))
	return files
}

// fill writes keys with several versions, deletes, a compaction, and a lease with keys.
func fill(t *testing.T, ctx context.Context, m api) {
	t.Helper()
	_, err := m.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 0x77, TTL: 3600})
	require.NoError(t, err)
	for i := range 300 {
		r := put(fmt.Sprintf("k/%03d", i%100), fmt.Sprint("value ", i))
		if i%7 == 0 {
			r.Lease = 0x77
		}
		_, err := m.Put(ctx, r)
		require.NoError(t, err)
		if i%11 == 0 {
			_, err := m.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: r.Key})
			require.NoError(t, err)
		}
		if i == 150 {
			_, err := m.Compact(ctx, &pb.CompactionRequest{Revision: 120})
			require.NoError(t, err)
		}
	}
}

func all(t *testing.T, ctx context.Context, m api) ([]*mvccpb.KeyValue, int64) {
	t.Helper()
	got, err := m.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	require.NoError(t, err)
	return got.Kvs, got.Header.Revision
}

func sameKeys(t *testing.T, want, got []*mvccpb.KeyValue) {
	t.Helper()
	require.NotEmpty(t, want)
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, want[i].String(), got[i].String())
	}
}

// backedUp returns what a member held that was killed under a backup, and the backup.
func backedUp(t *testing.T) (kvs []*mvccpb.KeyValue, revision int64, file, dataDir string) {
	t.Helper()
	ctx := testContext(t)
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) { dataDir = c.DataDir }))
	m := dial(t, c.Endpoints()[0])
	fill(t, ctx, m)
	kvs, revision = all(t, ctx, m)
	file = filepath.Join(t.TempDir(), "snapshot.db")
	_, err := server.Backup(dataDir, file)
	require.ErrorIs(t, err, server.ErrDataDirInUse)
	c.Kill(0)
	before := content(t, dataDir)
	made, err := server.Backup(dataDir, file)
	require.NoError(t, err)
	require.Equal(t, before, content(t, dataDir), "a backup only looks")
	require.Zero(t, made.Left)
	require.Equal(t, revision, made.Snapshot.Revision)
	require.Equal(t, len(kvs), made.Snapshot.Keys)
	_, err = server.Backup(dataDir, file)
	require.ErrorIs(t, err, fs.ErrExist)
	return kvs, revision, file, dataDir
}

// A backup of a member that was killed has all that it acknowledged. Restored, it is another cluster with the same keys
// and leases, whose revisions are above all that the old one gave out.
func TestBackupAndRestore(t *testing.T) {
	ctx := testContext(t)
	kvs, revision, file, _ := backedUp(t)
	var cfg server.RestoreConfig
	var made server.Restored
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) {
		var err error
		cfg = server.RestoreConfig{Snapshot: file, Name: c.Name, DataDir: c.DataDir}
		made, err = server.Restore(cfg)
		require.NoError(t, err)
		_, err = server.Restore(cfg)
		require.ErrorIs(t, err, server.ErrForeignDataDir, "there is a member now")
	}))
	m := dial(t, c.Endpoints()[0])
	got, now := all(t, ctx, m)
	sameKeys(t, kvs, got)
	require.Equal(t, revision+server.DefaultBumpRevision, now)
	require.Equal(t, now, made.Revision)
	require.NotEqual(t, made.Snapshot.ClusterID, made.ClusterID)

	lease, err := m.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 0x77, Keys: true})
	require.NoError(t, err)
	require.EqualValues(t, 3600, lease.GrantedTTL)
	require.NotEmpty(t, lease.Keys)
	revoked, err := m.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 0x77})
	require.NoError(t, err)
	require.Equal(t, now+1, revoked.Header.Revision)
	got, _ = all(t, ctx, m)
	require.Len(t, got, len(kvs)-len(lease.Keys))

	w, err := m.Watch(ctx)
	require.NoError(t, err)
	require.NoError(t, w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte("k/"), StartRevision: revision + 1}}}))
	for {
		r, err := w.Recv()
		require.NoError(t, err)
		require.Empty(t, r.Events)
		if r.Canceled {
			require.Equal(t, made.CompactRevision, r.CompactRevision, "the watcher is told where to begin anew")
			break
		}
	}
	c.Kill(0)
	c.Restart(0)
	again, _ := all(t, ctx, m)
	sameKeys(t, got, again)
}

// Three members come up from one snapshot; one that was restored from nothing is none of them.
func TestRestoreThreeMembers(t *testing.T) {
	ctx := testContext(t)
	kvs, revision, file, _ := backedUp(t)
	var sockets [3]server.Sockets
	var initial []string
	for i := range sockets {
		for _, l := range []*net.Listener{&sockets[i].Client, &sockets[i].Peer} {
			var err error
			*l, err = net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
		}
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i, sockets[i].Peer.Addr()))
	}
	var members [3]*server.Server
	clusters := make(map[uint64]bool)
	for i := range members {
		r := server.RestoreConfig{
			Snapshot: file, Name: fmt.Sprintf("m%d", i), DataDir: filepath.Join(t.TempDir(), "new", "data"),
			InitialCluster: strings.Join(initial, ","), BumpRevision: -1,
			AdvertisePeerURLs: []string{"http://" + sockets[i].Peer.Addr().String()},
		}
		made, err := server.Restore(r)
		require.NoError(t, err)
		require.Equal(t, revision, made.Revision)
		clusters[made.ClusterID] = true
		members[i], err = server.Start(ctx, server.Config{
			Name: r.Name, DataDir: r.DataDir, Sockets: sockets[i],
			ListenPeerURLs: r.AdvertisePeerURLs, ListenClientURLs: []string{"http://" + sockets[i].Client.Addr().String()},
		})
		require.NoError(t, err)
		t.Cleanup(members[i].Kill)
	}
	require.Len(t, clusters, 1)
	for i, s := range members {
		<-s.Ready()
		got, _ := all(t, ctx, dial(t, sockets[i].Client.Addr().String()))
		sameKeys(t, kvs, got)
	}
	_, err := dial(t, sockets[0].Client.Addr().String()).Put(ctx, put("k/new", "1"))
	require.NoError(t, err)
	got, now := all(t, ctx, dial(t, sockets[2].Client.Addr().String()))
	require.Len(t, got, len(kvs)+1)
	require.Equal(t, revision+1, now)

	other, err := server.Restore(server.RestoreConfig{
		Snapshot: file, Name: "m0", DataDir: filepath.Join(t.TempDir(), "x"), InitialCluster: strings.Join(initial, ","),
		AdvertisePeerURLs: []string{"http://" + sockets[0].Peer.Addr().String()},
	})
	require.NoError(t, err)
	require.False(t, clusters[other.ClusterID], "another bump is another cluster")
}

func TestRestoreRefuses(t *testing.T) {
	_, _, file, dataDir := backedUp(t)
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	write := func(b []byte) string {
		path := filepath.Join(t.TempDir(), "s")
		require.NoError(t, os.WriteFile(path, b, 0o600))
		return path
	}
	flipped := append([]byte(nil), good...)
	flipped[len(good)/2] ^= 4
	taken := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(taken, "precious"), nil, 0o600))
	fresh := func() string { return filepath.Join(t.TempDir(), "d") }
	for _, c := range []struct {
		name string
		cfg  server.RestoreConfig
		want error
		text string
	}{
		{"flipped", server.RestoreConfig{Snapshot: write(flipped), DataDir: fresh()}, server.ErrDamagedSnapshot, "SHA-256"},
		{"cut", server.RestoreConfig{Snapshot: write(good[:len(good)-40]), DataDir: fresh()}, server.ErrSnapshotUnhashed, "skip-hash-check"},
		{"cut, unchecked", server.RestoreConfig{Snapshot: write(good[:len(good)/2]), SkipHashCheck: true, DataDir: fresh()}, server.ErrDamagedSnapshot, ""},
		{"a db file", server.RestoreConfig{Snapshot: filepath.Join(dataDir, "member/snap/db"), DataDir: fresh()}, server.ErrSnapshotUnhashed, ""},
		{"text", server.RestoreConfig{Snapshot: write([]byte("hello")), SkipHashCheck: true, DataDir: fresh()}, server.ErrNotSnapshot, ""},
		{"none", server.RestoreConfig{Snapshot: fresh(), DataDir: fresh()}, fs.ErrNotExist, ""},
		{"not empty", server.RestoreConfig{Snapshot: file, DataDir: taken}, server.ErrForeignDataDir, "precious"},
		{"another name", server.RestoreConfig{Snapshot: file, DataDir: fresh(), Name: "x", InitialCluster: "y=http://127.0.0.1:2380"}, nil, "does not name this member"},
		{"another address", server.RestoreConfig{Snapshot: file, DataDir: fresh(), Name: "y", InitialCluster: "y=http://127.0.0.1:2"}, nil, "initial-advertise-peer-urls"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := server.Restore(c.cfg)
			require.ErrorContains(t, err, c.text)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			_, err = os.Stat(filepath.Join(c.cfg.DataDir, "member"))
			require.ErrorIs(t, err, fs.ErrNotExist)
			t.Log(err)
		})
	}
	crashed := fresh() // half a member of an earlier restore
	require.NoError(t, os.MkdirAll(filepath.Join(crashed, "member.new", "snap"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(crashed, "member.new", "snap", "db"), good[:100], 0o600))
	made, err := server.Restore(server.RestoreConfig{
		Snapshot: filepath.Join(dataDir, "member/snap/db"), SkipHashCheck: true, DataDir: crashed,
	})
	require.NoError(t, err)
	require.Equal(t, "latchkey", made.Snapshot.Origin)
	require.Equal(t, server.DirHealthy, server.Examine(crashed).Condition)
}
