package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Whatever happened, what is loaded is what was saved, and goes on like the machine that was never restarted.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			h := newHistory(seed)
			s := create(t, 1)
			reference := state.New(state.Config{ClusterID: testCluster, Members: testMembers})
			m := reload(t, s, 1) // one byte: everything saved leaves memory
			require.Equal(t, reference.Digest(), m.Digest())
			for round := range 25 {
				for range h.IntN(12) {
					h.entry(reference, m)
					if h.IntN(3) == 0 {
						m.Sweep(1 + h.IntN(30))
					}
				}
				conf := &raftpb.ConfState{Voters: []uint64{1, uint64(round)}}
				require.NoError(t, s.Save(m.TakeChanges(), conf))
				m.Archived(m.Revision())
				index, term := m.Applied()
				meta := s.Meta()
				require.Equal(t, [2]uint64{index, term}, [2]uint64{meta.Index, meta.Term})
				require.True(t, proto.Equal(conf, meta.ConfState))
				compareReads(t, h, reference, m)
				if h.IntN(3) > 0 {
					continue
				}
				require.NoError(t, s.Close())
				s = open(t, s.path)
				require.Equal(t, meta.Index, s.Meta().Index)
				require.True(t, proto.Equal(conf, s.Meta().ConfState))
				m = reload(t, s, 1)
				require.NoError(t, m.Check())
				require.Equal(t, reference.Digest(), m.Digest())
				require.True(t, new(state.Changes).Empty())
				changes := m.TakeChanges()
				require.True(t, changes.Empty(), "nothing to save after a load")
			}
			require.Equal(t, reference.Leases(), m.Leases())
			require.Equal(t, reference.Members(), m.Members())
			require.Greater(t, m.Revision(), int64(100), "the history did too little")
			require.Positive(t, m.CompactRevision())
		})
	}
}

// compareReads reads at revisions since the compaction from a machine that keeps all in memory and from one that has
// to ask the store.
func compareReads(t *testing.T, h *history, reference, m *state.Machine) {
	t.Helper()
	for range 5 {
		low := max(reference.CompactRevision(), 1)
		r := &pb.RangeRequest{Key: []byte("key/"), RangeEnd: []byte("key0"), Revision: low + h.Int64N(reference.Revision()-low+1)}
		want, err := reference.View().Range(r)
		require.NoError(t, err)
		got, err := m.View().Range(r)
		require.NoError(t, err)
		require.True(t, proto.Equal(want, got), "at revision %d", r.Revision)
	}
}

// A crash during a Save finds the file with some of its new pages and one of the meta pages: it is the last Save's.
func TestCrashDuringSave(t *testing.T) {
	const page = 4096
	h := newHistory(3)
	s := create(t, 1)
	m := reload(t, s, 0)
	// read returns the file without the part that bbolt has only reserved.
	read := func() []byte {
		data, err := os.ReadFile(s.path)
		require.NoError(t, err)
		l, ok := readLayout(data)
		require.True(t, ok)
		return data[:l.size()]
	}
	before := read()
	last := m.Digest()
	torn := 0
	for range 12 {
		for range 1 + h.IntN(20) {
			h.entry(m)
		}
		m.Sweep(20)
		require.NoError(t, s.Save(m.TakeChanges(), nil))
		after := read()
		require.Equal(t, m.Digest(), digestOf(t, image(t, after)))

		all := append(append([]byte(nil), before[:2*page]...), after[2*page:]...)
		require.Equal(t, last, digestOf(t, image(t, all)), "no meta page yet")

		some := append([]byte(nil), all...)
		for at := 2 * page; at < len(before); at += page {
			if h.IntN(2) == 0 {
				copy(some[at:at+page], before[at:])
			}
		}
		require.Equal(t, last, digestOf(t, image(t, some)), "some of the data pages")

		for at := 0; at < 2*page; at += page {
			if string(after[at:at+page]) == string(before[at:at+page]) {
				continue
			}
			half := append([]byte(nil), after...)
			copy(half[at+64:at+80], before[at+64:]) // all is new but the transaction and the checksum
			require.Equal(t, last, digestOf(t, image(t, half)), "a torn meta page")
			torn++
		}
		before, last = after, m.Digest()
	}
	require.Positive(t, torn)
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "member", "snap", "db")
	_, err := Open(path)
	require.ErrorIs(t, err, os.ErrNotExist)

	// A member that joins a cluster begins at a point of its log.
	meta := Meta{Index: 5, Term: 2, ClusterID: 7, MemberID: 8}
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path+".new.tmp", []byte("left by a crash"), 0o600))
	require.NoError(t, Create(path, meta, nil))
	require.ErrorIs(t, Create(path, meta, nil), os.ErrExist)
	s := open(t, path)
	got := s.Meta()
	require.True(t, proto.Equal(&raftpb.ConfState{}, got.ConfState))
	got.ConfState = nil
	require.Equal(t, meta, got)
	m := reload(t, s, 0)
	index, term := m.Applied()
	require.Equal(t, [2]uint64{5, 2}, [2]uint64{index, term})
	require.Equal(t, int64(1), m.Revision())
	require.Equal(t, int64(-1), m.CompactRevision())
	total, inUse := s.Size()
	require.Positive(t, inUse)
	require.GreaterOrEqual(t, total, inUse)
}

// A failed Save is final, and so is Close.
func TestSaveFails(t *testing.T) {
	s := create(t, 1)
	m := reload(t, s, 0)
	h := newHistory(1)
	h.index = 10
	for range 20 {
		h.entry(m)
	}
	require.NoError(t, s.Save(m.TakeChanges(), nil))
	saved := m.Digest()
	for range 5 {
		h.entry(m)
	}
	good := m.TakeChanges()
	bad := good
	bad.Versions = append([]*state.Version{{Key: "late", Create: 3, Mod: 3, Count: 1}}, good.Versions...)
	err := s.Save(bad, nil)
	require.ErrorIs(t, err, errOrder)
	require.Equal(t, err, s.Save(good, nil))
	require.Equal(t, err, s.Install("whatever"))
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.Equal(t, saved, digestOf(t, s.path), "nothing of it was written")

	s = open(t, s.path)
	require.NoError(t, s.Save(state.Changes{}, nil))
	old := s.Meta()
	require.Error(t, s.Save(state.Changes{Index: old.Index - 1, Revision: 1 << 40, Compact: 1 << 39}, nil))
	require.NoError(t, s.Close())
	_, err = s.Load(state.Config{})
	require.ErrorIs(t, err, ErrClosed)
	_, err = s.Snapshot()
	require.ErrorIs(t, err, ErrClosed)
	_, err = s.Version(state.Revision{Main: 2})
	require.ErrorIs(t, err, ErrClosed)
	closed := create(t, 2)
	require.NoError(t, closed.Close())
	require.ErrorIs(t, closed.Save(good, nil), ErrClosed)
}
