package wal_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

func mustCreate(t testing.TB, c wal.Config, base wal.Base) *wal.Log {
	t.Helper()
	l, err := wal.Create(c, base)
	require.NoError(t, err)
	return l
}

func mustOpen(t testing.TB, c wal.Config) (*wal.Log, wal.Recovery) {
	t.Helper()
	l, rec, err := wal.Open(c)
	require.NoError(t, err)
	return l, rec
}

// appendRun appends entries of one term, one a batch, each synced.
func appendRun(t testing.TB, l *wal.Log, from, to, term uint64, bytes int) {
	t.Helper()
	for i := from; i <= to; i++ {
		require.NoError(t, l.Append(wal.Batch{Entries: []*raftpb.Entry{entry(i, term, make([]byte, bytes))}}, true))
	}
}

// spans renders what was recovered as base and runs of terms.
func spans(r wal.Recovery) string {
	s := fmt.Sprintf("%d@%d:", r.Base.Index, r.Base.Term)
	for _, e := range r.Entries {
		s += fmt.Sprintf(" %d@%d", e.GetIndex(), e.GetTerm())
	}
	return s
}

func TestCreateAndOpenSayWhatIsThere(t *testing.T) {
	m := disk.NewMem(1)
	c := config(m, 4096)
	_, _, err := wal.Open(c)
	require.ErrorIs(t, err, wal.ErrNotFound, "no directory")
	require.NoError(t, m.MkdirAll("/wal"))
	_, _, err = wal.Open(c)
	require.ErrorIs(t, err, wal.ErrNotFound, "an empty one")
	require.NoError(t, m.WriteFile("/wal/spare.tmp", nil))
	require.NoError(t, m.WriteFile("/wal/0.wal", []byte("another name")))

	l := mustCreate(t, c, wal.Base{Index: 5, Term: 2})
	_, err = wal.Create(c, wal.Base{})
	require.ErrorIs(t, err, wal.ErrExists)
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Close(), wal.ErrClosed)
	require.ErrorIs(t, l.Append(wal.Batch{}, true), wal.ErrClosed)
	require.ErrorIs(t, l.Release(1), wal.ErrClosed)
	require.Equal(t, []string{"/wal/0.wal", "/wal/0000000000000001.wal", "/wal/closed"}, m.Names())

	l, rec := mustOpen(t, c)
	require.Equal(t, wal.Recovery{Base: wal.Base{Index: 5, Term: 2}}, rec)
	require.NoError(t, l.Close())

	for _, bytes := range []int64{-1, 100, 4095, 4097, 2048} {
		c.SegmentBytes = bytes
		_, err = wal.Create(c, wal.Base{})
		require.ErrorContains(t, err, "SegmentBytes")
		_, _, err = wal.Open(c)
		require.ErrorContains(t, err, "SegmentBytes")
	}
}

func TestForeignLogAndUnknownVersionAreRefused(t *testing.T) {
	for _, file := range []string{"/wal/0000000000000001.wal", "/wal/closed"} {
		m := disk.NewMem(1)
		c := config(m, 4096)
		require.NoError(t, mustCreate(t, c, wal.Base{}).Close())
		if file != "/wal/closed" {
			require.NoError(t, m.Remove("/wal/closed"))
		}
		for _, id := range []wal.Identity{{ClusterID: 1, MemberID: me.MemberID}, {ClusterID: me.ClusterID, MemberID: 1}} {
			other := c
			other.Identity = id
			_, _, err := wal.Open(other)
			require.ErrorIs(t, err, wal.ErrForeign)
			require.ErrorContains(t, err, file)
		}
		b, err := m.ReadFile(file)
		require.NoError(t, err)
		b[8] = 2
		binary.LittleEndian.PutUint32(b[508:], crc32.Checksum(b[:508], crc32.MakeTable(crc32.Castagnoli)))
		require.NoError(t, m.WriteFile(file, b))
		_, _, err = wal.Open(c)
		require.ErrorIs(t, err, wal.ErrVersion)
		require.ErrorContains(t, err, "version 2 in "+file)
	}
}

// TestOverlap: entries at or below the last index replace the tail, within a batch's segment, across segments, and from
// right after the base.
func TestOverlap(t *testing.T) {
	m := disk.NewMem(1)
	c := config(m, 4096)
	l := mustCreate(t, c, wal.Base{Index: 2, Term: 1})
	appendRun(t, l, 3, 10, 1, 100) // two segments: 3-8 and 9-10
	appendRun(t, l, 10, 11, 2, 100)
	require.Equal(t, 2, l.Stats().Segments)
	rotated := l.Stats().Rotated

	// 7 is below the base of the segment being written: that takes a new one.
	require.NoError(t, l.Append(wal.Batch{Entries: []*raftpb.Entry{entry(7, 3, nil), entry(8, 3, nil)}}, true))
	require.Equal(t, rotated+1, l.Stats().Rotated)
	l, rec := reopened(t, c, m)
	require.Equal(t, "2@1: 3@1 4@1 5@1 6@1 7@3 8@3", spans(rec))

	require.NoError(t, l.Append(wal.Batch{Entries: []*raftpb.Entry{entry(3, 4, nil)}}, true))
	l, rec = reopened(t, c, m)
	require.Equal(t, "2@1: 3@4", spans(rec))

	// With the first segment released the log says that it begins after 8, until it is told of less: the segment of 7
	// says what comes before it.
	appendRun(t, l, 4, 5, 4, 100)
	require.NoError(t, l.Release(8))
	_, rec = reopened(t, c, m)
	require.Equal(t, "2@1: 3@4 4@4 5@4", spans(rec))
}

// reopened cuts the power and opens the log. The old one is gone: to close it would be to come back from the dead.
func reopened(t testing.TB, c wal.Config, m *disk.Mem) (*wal.Log, wal.Recovery) {
	t.Helper()
	m.Crash()
	require.NotContains(t, m.Names(), "/wal/closed")
	return mustOpen(t, c)
}

func TestEntriesThatDoNotJoinAreRefused(t *testing.T) {
	large := make([]byte, wal.MaxBatchBytes/2)
	bad := ptr(raftpb.EntryType(-1))
	for name, b := range map[string]wal.Batch{
		"gap":          {Entries: []*raftpb.Entry{entry(7, 1, nil)}},
		"at base":      {Entries: []*raftpb.Entry{entry(3, 1, nil)}},
		"zero":         {Entries: []*raftpb.Entry{entry(0, 1, nil)}},
		"inner gap":    {Entries: []*raftpb.Entry{entry(6, 1, nil), entry(8, 1, nil)}},
		"repeated":     {Entries: []*raftpb.Entry{entry(6, 1, nil), entry(6, 1, nil)}},
		"after reset":  {Reset: &wal.Base{Index: 9, Term: 1}, Entries: []*raftpb.Entry{entry(9, 1, nil)}},
		"beyond reset": {Reset: &wal.Base{Index: 9, Term: 1}, Entries: []*raftpb.Entry{entry(11, 1, nil)}},
		"too large":    {Entries: []*raftpb.Entry{entry(6, 1, large), entry(7, 1, large)}},
		"type":         {Entries: []*raftpb.Entry{{Index: ptr(uint64(6)), Type: bad}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := disk.NewMem(1)
			c := config(m, 4096)
			l := mustCreate(t, c, wal.Base{Index: 3, Term: 1})
			appendRun(t, l, 4, 5, 1, 10)
			before := m.Ops()
			err := l.Append(b, true)
			require.Error(t, err)
			require.Equal(t, err, l.Append(wal.Batch{}, true), "it is final")
			require.Equal(t, before, m.Ops())
			_, rec := reopened(t, c, m)
			require.Equal(t, "3@1: 4@1 5@1", spans(rec))
		})
	}
}

// TestEntriesComeBackAsTheyWere: all types, empty and large data, extreme numbers.
func TestEntriesComeBackAsTheyWere(t *testing.T) {
	m := disk.NewMem(1)
	c := config(m, 4096)
	base := wal.Base{Index: math.MaxUint64 - 10, Term: math.MaxUint64 - 1}
	l := mustCreate(t, c, base)
	b := wal.Batch{HardState: hard(math.MaxUint64, math.MaxUint64, math.MaxUint64)}
	for i, typ := range []raftpb.EntryType{raftpb.EntryNormal, raftpb.EntryConfChange, raftpb.EntryConfChangeV2, math.MaxInt32} {
		e := entry(base.Index+1+uint64(i), math.MaxUint64, slices.Repeat([]byte{byte(i)}, i*3000))
		e.Type = &typ
		b.Entries = append(b.Entries, e)
	}
	require.NoError(t, l.Append(b, true))
	want := model{base: base}.apply(b)
	b.Entries[1].Data[0] ^= 1 // the log has its own copy
	_, rec := reopened(t, c, m)
	b.Entries[1].Data[0] ^= 1
	require.Empty(t, want.differs(rec, 0))
	require.Nil(t, rec.Entries[0].Data)
}

// TestBatchLargerThanASegment gets one of its own, and the next ones are of the usual length again.
func TestBatchLargerThanASegment(t *testing.T) {
	m := disk.NewMem(1)
	c := config(m, 4096)
	l := mustCreate(t, c, wal.Base{})
	appendRun(t, l, 1, 4, 1, 100) // past the middle: a spare is ready, and too short
	require.Contains(t, m.Names(), "/wal/spare.tmp")
	appendRun(t, l, 5, 5, 1, 100_000)
	appendRun(t, l, 6, 12, 1, 100)
	require.NotContains(t, m.Names(), "/wal/large.tmp")
	var sizes []int
	for _, n := range m.Names() {
		b, err := m.ReadFile(n)
		require.NoError(t, err)
		sizes = append(sizes, len(b))
	}
	require.Equal(t, []int{4096, 101376, 4096, 4096}, sizes, "%v", m.Names())
	_, rec := reopened(t, c, m)
	require.Len(t, rec.Entries, 12)
	require.Len(t, rec.Entries[4].Data, 100_000)
}

// TestSegmentsGrow from a size that costs little to the one that is configured.
func TestSegmentsGrow(t *testing.T) {
	m := disk.NewMem(1)
	l := mustCreate(t, config(m, 5<<20), wal.Base{})
	for i := uint64(1); l.Stats().Segments < 5; i++ {
		appendRun(t, l, i, i, 1, 300_000)
	}
	var sizes []int
	for _, n := range m.Names() {
		b, err := m.ReadFile(n)
		require.NoError(t, err)
		sizes = append(sizes, len(b)>>20)
	}
	require.Equal(t, []int{1, 2, 4, 5, 5}, sizes, "%v", m.Names())
	require.NoError(t, l.Close())
}

// TestReleaseKeepsWhatIsNeeded: two segments, every segment with an entry above the index, and the HardState although it
// was written to a segment that is gone.
func TestReleaseKeepsWhatIsNeeded(t *testing.T) {
	m := disk.NewMem(1)
	c := config(m, 4096)
	l := mustCreate(t, c, wal.Base{})
	require.NoError(t, l.Append(wal.Batch{HardState: hard(4, 5, 6)}, true))
	appendRun(t, l, 1, 30, 1, 100) // 1-4, 5-10, 11-16, 17-22, 23-28, 29-30
	require.Equal(t, 6, l.Stats().Segments)
	require.NoError(t, l.Release(3))
	require.Equal(t, 6, l.Stats().Segments)
	require.NoError(t, l.Release(15))
	require.Equal(t, 4, l.Stats().Segments)
	l, rec := reopened(t, c, m)
	require.Equal(t, wal.Base{Index: 10, Term: 1}, rec.Base)
	require.Len(t, rec.Entries, 20)
	require.Equal(t, hard(4, 5, 6).String(), rec.HardState.String())
	require.NoError(t, l.Release(1<<60))
	require.Equal(t, 2, l.Stats().Segments)
	l, rec = reopened(t, c, m)
	require.Equal(t, wal.Base{Index: 22, Term: 1}, rec.Base)
	require.Len(t, rec.Entries, 8)
	require.NoError(t, l.Close())
}

// TestResetMakesRoom: a reset forgets entries above and below, takes its HardState along or the last one, and what is
// before it is released whatever its indices.
func TestResetMakesRoom(t *testing.T) {
	m := disk.NewMem(1)
	c := config(m, 4096)
	l := mustCreate(t, c, wal.Base{})
	require.NoError(t, l.Append(wal.Batch{HardState: hard(4, 5, 6)}, true))
	appendRun(t, l, 1, 30, 1, 100)
	require.NoError(t, l.Append(wal.Batch{Reset: &wal.Base{Index: 20, Term: 9}}, false))
	l, rec := reopened(t, c, m)
	require.Equal(t, "20@9:", spans(rec), "durable although nobody asked: a rotation is")
	require.Equal(t, hard(4, 5, 6).String(), rec.HardState.String())
	appendRun(t, l, 21, 22, 9, 100)
	require.NoError(t, l.Append(wal.Batch{Reset: &wal.Base{Index: 50, Term: 10}, HardState: hard(10, 1, 50),
		Entries: []*raftpb.Entry{entry(51, 10, nil)}}, true))
	require.NoError(t, l.Release(1))
	require.Equal(t, 2, l.Stats().Segments)
	l, rec = reopened(t, c, m)
	require.Equal(t, "50@10: 51@10", spans(rec))
	require.Equal(t, hard(10, 1, 50).String(), rec.HardState.String())
	require.NoError(t, l.Close())
}

// TestTornBytesAreKeptAside: what Open cuts off is in a file, the place is zero afterwards, the next batch goes there, and
// the number of such files is bounded.
func TestTornBytesAreKeptAside(t *testing.T) {
	m := disk.NewMem(1)
	c := config(m, 16384)
	l := mustCreate(t, c, wal.Base{})
	appendRun(t, l, 1, 2, 1, 100)
	for i := range 20 {
		appendRun(t, l, uint64(3+i), uint64(3+i), 1, 700) // two sectors
		appendRun(t, l, uint64(4+i), uint64(4+i), 1, 700)
		name := "/wal/0000000000000001.wal"
		b, err := m.ReadFile(name)
		require.NoError(t, err)
		last := 6*sector + 2*sector*int64(i)
		clear(b[last+sector : last+2*sector]) // the batch's second sector never made it
		require.NoError(t, m.WriteFile(name, b))
		lost := slices.Clone(b[last : last+sector])
		require.NotEqual(t, make([]byte, sector), lost)

		var rec wal.Recovery
		l, rec = reopened(t, c, m)
		require.Len(t, rec.Entries, 3+i)
		require.Equal(t, &wal.Torn{File: name, Offset: last, Bytes: sector, Copy: fmt.Sprintf("%s.torn-%x", name, last)}, rec.Torn)
		copied, err := m.ReadFile(rec.Torn.Copy)
		require.NoError(t, err)
		require.Equal(t, lost, copied)
		b, err = m.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, make([]byte, 4*sector), b[last:last+4*sector])
		if i == 10 {
			break
		}
	}
	for i := range 20 {
		require.NoError(t, m.WriteFile(fmt.Sprintf("/wal/0000000000000000.wal.torn-%02d", i), nil))
	}
	_, rec := reopened(t, c, m)
	require.Len(t, rec.Entries, 13)
	torn := slices.DeleteFunc(m.Names(), func(n string) bool { return !strings.Contains(n, ".torn-") })
	require.Len(t, torn, 16)
	require.Equal(t, "/wal/0000000000000000.wal.torn-15", torn[0], "the oldest go first")
}

// TestUnsyncedBatches: a sync covers all batches before it, an empty batch can ask for it, and what is not synced costs no
// sync.
func TestUnsyncedBatches(t *testing.T) {
	m := disk.NewMem(1)
	c := config(m, 16384)
	l := mustCreate(t, c, wal.Base{})
	require.Equal(t, wal.Stats{Segments: 1}, l.Stats())
	for i := range uint64(5) {
		require.NoError(t, l.Append(wal.Batch{Entries: []*raftpb.Entry{entry(i+1, 1, nil)}}, false))
	}
	require.Zero(t, l.Stats().Syncs)
	before := m.Ops()
	require.NoError(t, l.Append(wal.Batch{HardState: &raftpb.HardState{}}, false))
	require.Equal(t, before, m.Ops(), "nothing to write")
	require.NoError(t, l.Append(wal.Batch{}, true))
	require.NoError(t, l.Append(wal.Batch{}, true), "nothing to sync")
	require.Equal(t, wal.Stats{Appends: 5, Syncs: 1, Bytes: 5 * sector, Segments: 1}, l.Stats())
	l, rec := reopened(t, c, m)
	require.Len(t, rec.Entries, 5)
	require.NoError(t, l.Close())
}

// TestRecycledSegments: a released segment becomes the next one, is zero but for its new content, and what an old one held
// is rejected when it turns up in a new one all the same: as frames of their own, as the next batch, as the whole segment.
func TestRecycledSegments(t *testing.T) {
	m := disk.NewMem(1)
	c := config(m, 4096)
	l := mustCreate(t, c, wal.Base{})
	var old [][]byte // segments as they were before they were used again
	renamed := 0
	m.SetFault(func(op disk.Op) error {
		if op.Kind == disk.OpRename && path.Base(op.To) == "spare.tmp" {
			renamed++
			b, err := m.ReadFile(op.Name)
			require.NoError(t, err)
			old = append(old, b)
		}
		return nil
	})
	for i := uint64(1); i <= 60; i++ {
		appendRun(t, l, i, i, 1, 300)
		if i%6 == 1 { // right after a rotation
			require.NoError(t, l.Release(i))
		}
	}
	require.Greater(t, renamed, 4)
	m.SetFault(nil)
	_, rec := reopened(t, c, m)
	require.EqualValues(t, 60, rec.Entries[len(rec.Entries)-1].GetIndex())
	state := model{base: rec.Base, entries: rec.Entries}
	m.Crash()

	refused := 0
	for _, o := range old {
		refused += plantStale(t, m, c, state, o)
	}
	t.Logf("%d stale sectors refused", refused)
	require.Greater(t, refused, 150)
}

// plantStale puts every sector of a segment that was released, and then the whole of it, in the place of the newest one,
// and counts the sectors that Open refused.
func plantStale(t *testing.T, m *disk.Mem, c wal.Config, state model, o []byte) (refused int) {
	newest := ""
	for _, n := range m.Names() {
		if strings.HasSuffix(n, ".wal") {
			newest = n
		}
	}
	good, err := m.ReadFile(newest)
	require.NoError(t, err)
	defer func() { require.NoError(t, m.WriteFile(newest, good)) }()
	end := int(sector)
	for good[end] != 0 {
		end += sector
	}
	require.Less(t, end, len(good)-sector)
	for from := 0; from < len(o); from += sector {
		stale := o[from:][:sector]
		if stale[0] == 0 {
			continue
		}
		for at := 0; at < len(good); at += sector {
			b := slices.Clone(good)
			copy(b[at:], stale)
			require.NoError(t, m.WriteFile(newest, b))
			look := c
			look.FS = m.Clone(1)
			l, rec, err := wal.Open(look)
			if err == nil { // swept out of the spare room
				require.Greater(t, at, end)
				require.Empty(t, state.differs(rec, 0))
				require.NoError(t, l.Close())
				continue
			}
			var damage *wal.DamageError
			require.ErrorAs(t, err, &damage)
			refused++
		}
	}
	require.NoError(t, m.WriteFile(newest, o))
	_, _, err = wal.Open(c)
	var damage *wal.DamageError
	require.ErrorAs(t, err, &damage)
	return refused
}

// TestMarkOfAnotherTime: a mark that does not fit the log is damage of the log, wherever they differ.
func TestMarkOfAnotherTime(t *testing.T) {
	m := disk.NewMem(1)
	c := config(m, 4096)
	l := mustCreate(t, c, wal.Base{})
	var marks [][]byte
	for i := uint64(1); i <= 10; i++ {
		appendRun(t, l, i, i, 1, 10)
		require.NoError(t, l.Close())
		b, err := m.ReadFile("/wal/closed")
		require.NoError(t, err)
		marks = append(marks, b)
		l, _ = mustOpen(t, c)
		require.NotContains(t, m.Names(), "/wal/closed")
	}
	require.NoError(t, l.Close())
	for i, mark := range marks {
		require.NoError(t, m.WriteFile("/wal/closed", mark))
		l, _, err := wal.Open(c)
		if i == len(marks)-1 {
			require.NoError(t, err)
			require.NoError(t, l.Close())
			continue
		}
		var damage *wal.DamageError
		require.ErrorAs(t, err, &damage, "mark %d", i)
		require.ErrorContains(t, err, "closed")
		require.ErrorContains(t, err, "offset")
	}
}

// TestAppendAllocatesNothing once its buffer is as long as the batches are.
func TestAppendAllocatesNothing(t *testing.T) {
	m := disk.NewMem(1)
	l := mustCreate(t, config(m, 1<<20), wal.Base{})
	e := entry(0, 1, make([]byte, 300))
	b := wal.Batch{Entries: []*raftpb.Entry{e}, HardState: hard(1, 1, 1)}
	allocs := testing.AllocsPerRun(500, func() {
		*e.Index++
		if err := l.Append(b, true); err != nil {
			t.Fatal(err)
		}
	})
	require.Zero(t, allocs)
	require.NoError(t, l.Close())
}

// TestFailureIsTheFirstOne: later calls say what went wrong first.
func TestFailureIsTheFirstOne(t *testing.T) {
	m := disk.NewMem(1)
	l := mustCreate(t, config(m, 4096), wal.Base{})
	first := errors.New("first")
	m.SetFault(func(disk.Op) error { return first })
	require.ErrorIs(t, l.Append(wal.Batch{HardState: hard(1, 1, 1)}, true), first)
	m.SetFault(func(disk.Op) error { return errors.New("second") })
	require.ErrorIs(t, l.Append(wal.Batch{HardState: hard(1, 1, 1)}, true), first)
	require.ErrorIs(t, l.Release(1), first)
	require.ErrorIs(t, l.Close(), first)
}
