package state

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// swept sweeps everything, a key at a time, and returns what TakeChanges says was removed, sorted.
func (f *fixture) swept() []Revision {
	f.Helper()
	f.m.TakeChanges()
	var all Changes
	for more := true; more; {
		more = f.m.Sweep(1)
		require.NoError(f, f.m.Check())
		all.Merge(f.m.TakeChanges())
	}
	sortRevisions(all.Removed)
	require.EqualValues(f, max(f.m.CompactRevision(), 0), all.SweptTo)
	return all.Removed
}

func TestCompactErrors(t *testing.T) {
	f := newFixture(t)
	f.put("a=1", "a=2")
	for _, c := range []struct {
		rev int64
		err error
	}{{-1, ErrCompacted}, {4, ErrFutureRevision}, {0, nil}, {0, ErrCompacted}, {2, nil}, {2, ErrCompacted}, {1, ErrCompacted}, {3, nil}} {
		r := f.try(KindCompact, &pb.CompactionRequest{Revision: c.rev})
		require.ErrorIs(t, r.Err, c.err, "revision %d", c.rev)
		if c.err == nil {
			require.EqualValues(t, 3, r.Response.(*pb.CompactionResponse).Header.Revision, "the header has the current revision")
			require.Equal(t, c.rev, f.m.CompactRevision())
		}
	}
	require.EqualValues(t, 3, f.m.Revision(), "a compaction makes no revision")
}

// What compaction at each revision of one history removes: of each key all but the newest version at or below it, and
// that one too if it is a tombstone below it. A tombstone exactly there stays, for a watch that starts there.
func TestCompactKeeps(t *testing.T) {
	for _, c := range []struct {
		rev     int64
		removed []Revision
	}{
		{2, nil},
		{3, []Revision{{2, 0}}},
		{4, []Revision{{2, 0}, {3, 0}}},
		{5, []Revision{{2, 0}, {3, 0}, {4, 0}}},
		{6, []Revision{{2, 0}, {3, 0}, {4, 0}}},
		{7, []Revision{{2, 0}, {3, 0}, {4, 0}, {5, 0}, {6, 0}}},
		{8, []Revision{{2, 0}, {3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}, {7, 1}}},
	} {
		f := newFixture(t)
		f.put("a=1", "a=2")                                                                                              // 2, 3
		f.delete("a")                                                                                                    // 4: dies
		f.put("b=1", "a=3")                                                                                              // 5, 6: comes back
		do[*pb.DeleteRangeResponse](f, KindDeleteRange, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("c")}) // 7: both die
		f.put("b=2")                                                                                                     // 8
		var reads []string
		for rev := c.rev; rev <= 8; rev++ {
			reads = append(reads, f.all(rev))
		}
		digest := f.m.Digest()
		f.compact(c.rev)
		require.NotEqual(t, digest, f.m.Digest(), "a compaction is a change of state")
		digest = f.m.Digest()

		require.Equal(t, c.removed, f.swept(), "compacted at %d", c.rev)
		require.Equal(t, digest, f.m.Digest(), "a sweep is not")
		for rev := c.rev; rev <= 8; rev++ {
			require.Equal(t, reads[rev-c.rev], f.all(rev), "read at %d, compacted at %d", rev, c.rev)
		}
		require.False(t, f.m.Sweep(1))
		changes := f.m.TakeChanges()
		require.True(t, changes.Empty(), "nothing was left to sweep")
	}
}

// A pass that is overtaken by writes, deletes and re-creations before and behind its cursor, and by another compaction,
// still leaves nothing behind.
func TestSweepInSlices(t *testing.T) {
	f := newFixture(t)
	f.put("a=1", "b=1", "c=1", "d=1", "a=2", "b=2", "c=2", "d=2") // 2..9
	f.delete("a", "c")                                            // 10, 11
	f.compact(11)
	f.m.TakeChanges()
	require.True(t, f.m.Sweep(2)) // a and b
	f.delete("b", "d")            // 12, 13
	f.put("a=3", "c=3", "d=3")    // 14..16
	f.compact(12)
	var all Changes
	for more := true; more; {
		more = f.m.Sweep(0) // at least one key a call
		require.NoError(t, f.m.Check())
		all.Merge(f.m.TakeChanges())
	}
	sortRevisions(all.Removed)
	require.Equal(t, []Revision{{2, 0}, {3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}, {8, 0}, {10, 0}, {11, 0}}, all.Removed)
	require.EqualValues(t, 12, all.SweptTo)
	require.Equal(t, "d=2(5.9.2)", f.all(12))
	require.Equal(t, "a=3(14.14.1) c=3(15.15.1) d=3(16.16.1)", f.all(0))
}

// Reads of an old revision find their values whether they left memory or not; when the archive fails or lies they say so.
func TestArchive(t *testing.T) {
	a := newMemory()
	f := &fixture{T: t, m: New(Config{HistoryBytes: 1, Archive: a})}
	f.put("a=1", "a=2", "b=1", "a=3")
	f.delete("b")
	before := f.m.View()
	a.save(f.m.TakeChanges())
	require.EqualValues(t, 1, f.m.History().First())
	f.m.Archived(5)
	require.EqualValues(t, 6, f.m.History().First(), "only what is archived leaves memory")
	require.Equal(t, "-b@6.0/1", f.events(0))
	require.NoError(t, f.m.Check())
	f.m.Archived(6)
	require.Same(t, before, f.m.View(), "a view is the same until something is applied")
	f.apply()
	require.NotSame(t, before, f.m.View())
	old := &pb.RangeRequest{Key: []byte("a"), Revision: 3}
	require.Equal(t, "a=2(2.3.2)", show(f.read(old).Kvs))
	require.Equal(t, "a=2(2.3.2) b=1(4.4.1)", f.all(4))
	require.EqualValues(t, 1, f.read(&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte{0}, Revision: 3, CountOnly: true}).Count)

	a.fail = errDisk
	_, err := f.m.View().Range(old)
	require.ErrorIs(t, err, ErrArchive)
	require.ErrorIs(t, err, errDisk)
	got, err := before.Range(old)
	require.NoError(t, err, "a view keeps what was in memory")
	require.Equal(t, "a=2(2.3.2)", show(got.Kvs))
	a.fail = nil

	lie := a.versions[Revision{3, 0}]
	lie.Value = []byte("other")
	a.versions[Revision{3, 0}] = lie
	_, err = f.m.View().Range(old)
	require.ErrorIs(t, err, ErrArchive, "the checksum tells")
	delete(a.versions, Revision{3, 0})
	_, err = f.m.View().Range(old)
	require.ErrorIs(t, err, ErrCompacted, "for a view, what is gone was compacted since")
}

// A transaction whose read of history fails has written what the other members have written.
func TestTxnArchiveFails(t *testing.T) {
	a := newMemory()
	f, healthy := &fixture{T: t, m: New(Config{HistoryBytes: 1, Archive: a})}, newFixture(t)
	for _, f := range []*fixture{f, healthy} {
		f.put("a=1", "a=2")
	}
	a.save(f.m.TakeChanges())
	f.m.Archived(3)
	f.put("x=1")
	healthy.put("x=1")
	for _, damage := range []func(){func() { a.fail = errDisk }, func() { a.fail = nil; clear(a.versions) }} {
		damage()
		r := func() *pb.TxnRequest {
			return &pb.TxnRequest{Success: ops(opPut("b", "1"), opGet("a", 2), opPut("c", "1"))}
		}
		require.ErrorIs(t, f.try(KindTxn, r()).Err, ErrArchive)
		do[*pb.TxnResponse](healthy, KindTxn, r())
		require.Equal(t, healthy.m.Digest(), f.m.Digest())
	}
	require.Panics(t, func() { f.m.Dump() })
}
