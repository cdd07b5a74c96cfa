package checkpoint

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// advance applies and saves some entries and returns the machine's digest.
func advance(t testing.TB, h *history, s *Store, m *state.Machine, entries int) [32]byte {
	t.Helper()
	for range entries {
		h.entry(m)
		m.Sweep(5)
	}
	require.NoError(t, s.Save(m.TakeChanges(), &raftpb.ConfState{Voters: []uint64{1, h.index}}))
	m.Archived(m.Revision())
	return m.Digest()
}

// receive writes a snapshot of a store to a file that another one can install.
func receive(t testing.TB, from, to *Store) string {
	t.Helper()
	snapshot, err := from.Snapshot()
	require.NoError(t, err)
	f, err := to.Temp()
	require.NoError(t, err)
	n, err := snapshot.WriteTo(f)
	require.NoError(t, err)
	require.Equal(t, snapshot.Size(), n)
	require.NoError(t, snapshot.Close())
	require.NoError(t, snapshot.Close())
	require.NoError(t, f.Close())
	return f.Name()
}

// A snapshot is the state at which it began, whatever is saved before it is written out, and outlives Close.
func TestSnapshotWhileSaving(t *testing.T) {
	h := newHistory(9)
	s := create(t, 1)
	m := reload(t, s, 0)
	want := advance(t, h, s, m, 100)
	index, _ := m.Applied()
	snapshot, err := s.Snapshot()
	require.NoError(t, err)
	for range 20 {
		advance(t, h, s, m, 10)
	}
	require.NoError(t, s.Close())
	require.Equal(t, index, snapshot.Meta().Index)
	require.Equal(t, []uint64{1, index}, snapshot.Meta().ConfState.GetVoters())
	var b bytes.Buffer
	n, err := snapshot.WriteTo(&b)
	require.NoError(t, err)
	require.Equal(t, snapshot.Size(), n)
	require.NoError(t, snapshot.Close())
	require.Equal(t, want, digestOf(t, image(t, b.Bytes())))
	require.Equal(t, m.Digest(), digestOf(t, s.path))
}

// An installed checkpoint takes the old one's place while the store is open: what is loaded is the other member's
// state under this member's identity, and it can be saved to.
func TestInstall(t *testing.T) {
	h := newHistory(11)
	leader, follower := create(t, 1), create(t, 0xabc)
	ahead := reload(t, leader, 0)
	behind := reload(t, follower, 0)
	advance(t, newHistory(11), follower, behind, 10)
	open, err := follower.Snapshot()
	require.NoError(t, err)
	for range 2 { // the second one replaces an installed one
		want := advance(t, h, leader, ahead, 60)
		temp := receive(t, leader, follower)
		require.NoError(t, follower.Install(temp))
		require.NoFileExists(t, temp)
		meta := follower.Meta()
		require.Equal(t, uint64(0xabc), meta.MemberID)
		require.Equal(t, leader.Meta().Index, meta.Index)
		require.Equal(t, leader.Meta().ConfState.GetVoters(), meta.ConfState.GetVoters())
		m := reload(t, follower, 1)
		require.Equal(t, want, m.Digest())
		require.Error(t, follower.Install(receive(t, leader, follower)), "not ahead")
		// Both go on.
		h2 := *h
		wantNext := advance(t, &history{Rand: newHistory(99).Rand, index: h.index, revision: h.revision}, follower, m, 30)
		require.NoError(t, follower.Close())
		follower = openAgain(t, follower.path)
		require.Equal(t, uint64(0xabc), follower.Meta().MemberID)
		require.Equal(t, wantNext, reload(t, follower, 0).Digest())
		entries, err := os.ReadDir(filepath.Dir(follower.path))
		require.NoError(t, err)
		require.Len(t, entries, 1, "what was not installed is removed")
		*h = h2
		h.index = follower.Meta().Index
	}
	_, err = open.WriteTo(&bytes.Buffer{})
	require.NoError(t, err, "a snapshot of the replaced file is still whole")
	require.NoError(t, open.Close())
}

func openAgain(t *testing.T, path string) *Store { return open(t, path) }

// A crash between any two steps of an Install finds the old state or the new one, whole, and only the new one after the
// rename is durable.
func TestInstallCrashPoints(t *testing.T) {
	h := newHistory(13)
	leader, follower := create(t, 1), create(t, 2)
	old := advance(t, newHistory(14), follower, reload(t, follower, 0), 10)
	ahead := reload(t, leader, 0)
	next := advance(t, h, leader, ahead, 80)
	temp := receive(t, leader, follower)
	want := map[string][32]byte{"verified": old, "adopted": old, "renamed": next, "synced": next}
	seen := 0
	follower.step = func(step string) {
		seen++
		// The directory as a restart finds it.
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Dir(follower.path))))
		s := openAgain(t, filepath.Join(dir, "db"))
		require.Equal(t, want[step], reload(t, s, 0).Digest(), step)
		require.Equal(t, uint64(2), s.Meta().MemberID)
		require.NoFileExists(t, filepath.Join(dir, filepath.Base(temp)), step)
	}
	require.NoError(t, follower.Install(temp))
	require.Equal(t, len(want), seen)
	// A rename that was not durable leaves the old file and the temporary one; that is the case "adopted".
}

func TestInstallRefuses(t *testing.T) {
	h := newHistory(15)
	leader, follower := create(t, 1), create(t, 2)
	want := advance(t, newHistory(16), follower, reload(t, follower, 0), 5)
	advance(t, h, leader, reload(t, leader, 0), 50)

	spoil := func(fn func(b []byte) []byte) string {
		temp := receive(t, leader, follower)
		b, err := os.ReadFile(temp)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(temp, fn(b), 0o600))
		return temp
	}
	require.ErrorIs(t, follower.Install(filepath.Join(t.TempDir(), "none")), os.ErrNotExist)
	require.ErrorIs(t, follower.Install(spoil(func(b []byte) []byte { return b[:len(b)-1] })), ErrDamaged)
	require.ErrorIs(t, follower.Install(spoil(func(b []byte) []byte { return nil })), ErrForeign)
	require.ErrorIs(t, follower.Install(spoil(func(b []byte) []byte {
		at := bytes.LastIndex(b, []byte("key/"))
		require.Positive(t, at)
		b[at+4]++
		return b
	})), ErrDamaged)

	path := filepath.Join(t.TempDir(), "db")
	require.NoError(t, Create(path, Meta{Index: 1 << 40, Term: 1, ClusterID: testCluster + 1, MemberID: 1}, nil))
	require.ErrorIs(t, follower.Install(path), ErrForeign)

	require.NoError(t, follower.Close())
	require.ErrorIs(t, follower.Install(receive(t, leader, leader)), ErrClosed)
	require.Equal(t, want, digestOf(t, follower.path))
}
