package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// copyDir gives a case a directory of its own.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "d")
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
	for _, dir := range []string{to, filepath.Join(to, "member", "snap")} {
		require.NoError(t, os.Chmod(dir, 0o700))
	}
	return to
}

// newestSegment is the one that the log ends in.
func newestSegment(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return names[len(names)-1]
}

func flip(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, offset)
	require.NoError(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, offset)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// Every condition is told by its files, where damage is named, and nothing is changed.
func TestExamine(t *testing.T) {
	ctx := testContext(t)
	var dataDir string
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) { dataDir = c.DataDir }))
	fill(t, ctx, dial(t, c.Endpoints()[0]))
	x := server.Examine(dataDir)
	require.Equal(t, server.DirInUse, x.Condition)
	require.Contains(t, x.Findings[0].Text, "process ")
	c.Kill(0)

	db := func(dir string) string { return filepath.Join(dir, "member", "snap", "db") }
	other := func(t *testing.T) string {
		_, _, _, dir := backedUp(t)
		return dir
	}
	for _, test := range []struct {
		name string
		make func(t *testing.T, dir string)
		want server.Condition
		text string // in a finding
		tell string // in the advice
		file func(dir string) string
	}{
		{name: "healthy", want: server.DirHealthy, text: "whole", tell: "Start the member"},
		{name: "none", make: func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(dir)) },
			want: server.DirFresh, text: "does not exist", tell: "Start a member"},
		{name: "no member", make: func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(filepath.Join(dir, "member"), filepath.Join(dir, "member.new")))
		}, want: server.DirFresh, text: "did not finish"},
		{name: "something else", make: func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(filepath.Join(dir, "member"), filepath.Join(dir, "photos")))
		}, want: server.DirForeign, text: "photos"},
		{name: "etcd's log", make: func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "member", "wal", "0000000000000000-0000000000000000.wal"), nil, 0o600))
		}, want: server.DirEtcd, text: "etcd", tell: "latchkey snapshot save"},
		{name: "etcd's database", make: func(t *testing.T, dir string) { toEtcd(t, db(dir)) }, want: server.DirEtcd, text: "database of etcd"},
		{name: "no checkpoint", make: func(t *testing.T, dir string) { require.NoError(t, os.Remove(db(dir))) },
			want: server.DirDamaged, text: "missing"},
		{name: "no log", make: func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, "member", "wal"))) },
			want: server.DirDamaged, text: "no log", tell: "skip-hash-check"},
		{name: "text", make: func(t *testing.T, dir string) { require.NoError(t, os.WriteFile(db(dir), []byte("hello"), 0o600)) },
			want: server.DirForeign, text: "not a database"},
		{name: "checkpoint damaged", make: func(t *testing.T, dir string) {
			data, err := os.ReadFile(db(dir))
			require.NoError(t, err)
			const row = "peerURLs" // also in pages that are free by now, if the checkpoint was written more than once
			require.Contains(t, string(data), row)
			for at := range data {
				if strings.HasPrefix(string(data[at:min(at+len(row), len(data))]), row) {
					flip(t, db(dir), int64(at))
				}
			}
		}, want: server.DirDamaged, text: "checksum", tell: "newest snapshot"},
		{name: "log damaged in the middle", make: func(t *testing.T, dir string) { flip(t, newestSegment(t, dir), 600) },
			want: server.DirDamaged, text: "damaged at offset 512", tell: "Keep the directory", file: func(dir string) string { return newestSegment(t, dir) }},
		{name: "of two members", make: func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "member", "wal")))
			require.NoError(t, os.CopyFS(filepath.Join(dir, "member", "wal"), os.DirFS(filepath.Join(other(t), "member", "wal"))))
		}, want: server.DirForeign, text: "the log of member"},
		{name: "readable", make: func(t *testing.T, dir string) {
			for _, path := range []string{dir, filepath.Join(dir, "member"), filepath.Join(dir, "member", "snap"), db(dir)} {
				require.NoError(t, os.Chmod(path, 0o755))
			}
		}, want: server.DirHealthy, text: "others can read", tell: "warnings"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := copyDir(t, dataDir)
			if test.make != nil {
				test.make(t, dir)
			}
			before := map[string][32]byte{}
			if test.name != "none" {
				before = content(t, dir)
			}
			x := server.Examine(dir)
			require.Equal(t, test.want, x.Condition, "%+v", x.Findings)
			var all []string
			for _, f := range x.Findings {
				all = append(all, f.Text)
				if test.file != nil && f.File != "" {
					require.Equal(t, test.file(dir), f.File)
					require.EqualValues(t, 512, f.Offset)
				}
			}
			require.Contains(t, strings.Join(all, "\n"), test.text)
			require.Contains(t, x.Advice, test.tell)
			t.Log(strings.Join(append(all, x.Advice), "\n"))
			if test.name != "none" {
				require.Equal(t, before, content(t, dir), "it only looks")
			}
		})
	}
}

// toEtcd makes a checkpoint what etcd would write.
func toEtcd(t *testing.T, path string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("latchkey")) }))
	require.NoError(t, db.Close())
}

// A crash may cut the log's end off. That is no damage, and said so.
func TestExamineTornEnd(t *testing.T) {
	ctx := testContext(t)
	var dataDir string
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) { dataDir = c.DataDir }))
	m := dial(t, c.Endpoints()[0])
	fill(t, ctx, m)
	_, err := m.Put(ctx, put("large", strings.Repeat("x", 5000)))
	require.NoError(t, err)
	c.Kill(0)
	name := newestSegment(t, dataDir)
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	at := strings.LastIndex(string(data), strings.Repeat("x", 5000))
	require.Positive(t, at)
	clear(data[at/512*512+1024:]) // the sectors after that were never written
	require.NoError(t, os.WriteFile(name, data, 0o600))
	require.NoError(t, os.Remove(filepath.Join(filepath.Dir(name), "closed"))) // there was no time for it
	x := server.Examine(dataDir)
	require.Equal(t, server.DirHealthy, x.Condition, "%+v", x.Findings)
	require.Contains(t, x.Findings[len(x.Findings)-2].Text, "never acknowledged")
	c.Restart(0)
}

// A start that fails on damage names the command that explains it.
func TestDamagedStartNamesTheDoctor(t *testing.T) {
	_, _, _, dataDir := backedUp(t)
	flip(t, newestSegment(t, dataDir), 600)
	_, err := server.Start(testContext(t), server.Config{
		DataDir: dataDir, ListenClientURLs: []string{"http://127.0.0.1:0"}, ListenPeerURLs: []string{"http://127.0.0.1:0"},
	})
	require.ErrorIs(t, err, server.ErrDamagedDataDir)
	require.ErrorContains(t, err, "latchkey doctor "+dataDir)
	_, err = server.Backup(dataDir, filepath.Join(t.TempDir(), "s.db"))
	require.ErrorIs(t, err, server.ErrDamagedDataDir)
	require.ErrorContains(t, err, "latchkey doctor "+dataDir)
}
