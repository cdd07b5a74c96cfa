package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A history over many chunks starts anywhere, and shows the same whatever happens afterwards.
func TestHistorySnapshots(t *testing.T) {
	const writes = 5*chunkEvents + 17
	f := &fixture{T: t, m: New(Config{HistoryBytes: 64 << 20})}
	require.EqualValues(t, 1, f.m.History().First(), "nothing happened before, so nothing is missing")
	require.EqualValues(t, 1, f.m.History().Last())
	require.Empty(t, f.events(0))

	var snapshots []History
	for i := range writes {
		f.index++
		f.m.Apply(f.index, 1, []Command{putOf([]byte("k"), fmt.Append(nil, i))})
		if i%100 == 0 || i > writes-3 {
			snapshots = append(snapshots, f.m.History())
		}
	}
	require.NoError(t, f.m.Check())
	for _, h := range snapshots {
		for _, from := range []int64{0, 2, 3, h.Last() / 2, h.Last() - 1, h.Last(), h.Last() + 1, h.Last() + 2} {
			next := max(from, 2)
			for e := range h.From(from) {
				require.Equal(t, next, e.Version.Mod)
				require.Equal(t, fmt.Sprint(next-2), string(e.Version.Value))
				next++
			}
			require.Equal(t, max(h.Last()+1, from, 2), next, "from %d", from)
		}
	}
	h := f.m.History()
	for rev := int64(1); rev <= h.Last()+1; rev++ {
		v := h.find(Revision{Main: rev})
		require.Equal(t, rev > 1 && rev <= h.Last(), v != nil, "revision %d", rev)
		require.Nil(t, h.find(Revision{Main: rev, Sub: 1}))
	}
}

// The window keeps to its bytes once the archive allows it; a revision that was cut is not complete, and not shown.
func TestHistoryDrops(t *testing.T) {
	a := newMemory()
	f := &fixture{T: t, m: New(Config{HistoryBytes: 1024, Archive: a})}
	do[any](f, KindTxn, &txnRequest{Success: ops(opPut("a", "1"), opPut("b", "1"), opPut("c", "1"))})
	for i := range 20 {
		f.put(fmt.Sprintf("k%d=v", i))
	}
	require.EqualValues(t, 1, f.m.History().First(), "nothing is archived")
	require.Greater(t, f.m.window.bytes, 1024)
	a.save(f.m.TakeChanges())
	f.m.Archived(2)
	require.EqualValues(t, 3, f.m.History().First())
	f.m.Archived(10)
	require.EqualValues(t, 11, f.m.History().First())
	f.m.Archived(5)
	f.m.Archived(100)
	require.LessOrEqual(t, f.m.window.bytes, 1024)
	require.NoError(t, f.m.Check())

	// Chunks of one event each: the first event of revision 23 is dropped, the others go on.
	kept := f.m.History()
	do[any](f, KindTxn, &txnRequest{Success: ops(opPut("a", "2"), opPut("b", "2"), opPut("c", "2"))})
	a.save(f.m.TakeChanges())
	f.m.window.limit = 300
	f.m.Archived(23)
	h := f.m.History()
	require.EqualValues(t, 24, h.First())
	require.Empty(t, f.events(0))
	require.Nil(t, h.find(Revision{Main: 23}))
	require.NotNil(t, h.find(Revision{Main: 23, Sub: 2}), "what is there is found though it is not shown")
	f.put("z=1")
	require.Equal(t, "z=1@24.0", f.events(0))
	next := kept.First()
	for e := range kept.From(0) {
		require.Equal(t, next, e.Version.Mod, "a snapshot keeps what it shows")
		next++
	}
	require.Equal(t, kept.Last()+1, next)
}

// A version that left the window and is kept by the event that replaced it counts there.
func TestHistoryCountsPrev(t *testing.T) {
	a := newMemory()
	f := &fixture{T: t, m: New(Config{HistoryBytes: 1000, Archive: a})}
	f.put("a=" + strings.Repeat("x", 2000))
	a.save(f.m.TakeChanges())
	f.put("b=1")
	f.m.Archived(2)
	require.EqualValues(t, 3, f.m.History().First())
	small := f.m.window.bytes
	f.put("b=2")
	require.Less(t, f.m.window.bytes, 2*small+1)
	f.put("a=2")
	require.Greater(t, f.m.window.bytes, 2000)
	require.Len(t, slices.Collect(f.m.History().From(5)), 1)
}

// Without an archive nothing is ever dropped.
func TestHistoryWithoutArchive(t *testing.T) {
	f := &fixture{T: t, m: New(Config{HistoryBytes: 1})}
	for range 5 {
		f.put("a=1")
	}
	f.m.Archived(100)
	require.EqualValues(t, 1, f.m.History().First())
	require.Equal(t, "a=1(2.3.2)", f.all(3))
}
