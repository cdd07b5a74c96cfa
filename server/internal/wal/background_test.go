package wal_test

import (
	"errors"
	"path"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// onSpare calls f before every write to a spare segment.
func onSpare(m *disk.Mem, f func() error) {
	m.SetFault(func(op disk.Op) error {
		if op.Kind == disk.OpWrite && path.Base(op.Name) == "spare.tmp" {
			return f()
		}
		return nil
	})
}

// TestBackgroundWork: appending, releasing and asking for figures at once, with the stock kept by its goroutine.
func TestBackgroundWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := disk.NewMem(1)
		c := config(m, 8192)
		c.Inline = false
		l := mustCreate(t, c, wal.Base{})
		const entries = 2000
		appended := make(chan uint64, 16)
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range appended {
				if err := l.Release(i); err != nil {
					t.Error(err)
				}
				l.Stats()
			}
		})
		for i := uint64(1); i <= entries; i++ {
			appendRun(t, l, i, i, 1, 300)
			if i%10 == 0 {
				appended <- i
			}
		}
		close(appended)
		wg.Wait()
		synctest.Wait() // for the goroutine to have nothing left to do
		require.Equal(t, 2, l.Stats().Segments)
		require.LessOrEqual(t, len(m.Names()), 3, "two segments and perhaps a spare")
		require.NoError(t, l.Close())
		c.Inline = true
		l, rec := mustOpen(t, c)
		require.Equal(t, uint64(entries), rec.Base.Index+uint64(len(rec.Entries)))
		require.Less(t, len(rec.Entries), 30)
		require.NoError(t, l.Close())
	})
}

// TestRotationWaitsForTheSpare that is being made instead of making another, and a failure to make it is the log's.
func TestRotationWaitsForTheSpare(t *testing.T) {
	for _, fail := range []error{nil, errors.New("no room")} {
		synctest.Test(t, func(t *testing.T) {
			m := disk.NewMem(1)
			c := config(m, 4096)
			c.Inline = false
			l := mustCreate(t, c, wal.Base{})
			gate := make(chan struct{})
			onSpare(m, func() error { <-gate; return fail })
			appendRun(t, l, 1, 5, 1, 100) // the segment is full
			synctest.Wait()               // and the next one is being made
			var err error
			done := false
			go func() {
				err = l.Append(wal.Batch{Entries: []*raftpb.Entry{entry(6, 1, nil)}}, true)
				done = true
			}()
			synctest.Wait()
			require.False(t, done)
			require.EqualValues(t, 5, l.Stats().Appends, "the lock is free")
			close(gate)
			synctest.Wait()
			require.True(t, done)
			m.SetFault(nil)
			if fail != nil {
				require.ErrorIs(t, err, fail)
				require.ErrorIs(t, l.Close(), fail)
				return
			}
			require.NoError(t, err)
			require.EqualValues(t, 1, l.Stats().Rotated)
			require.NoError(t, l.Close())
		})
	}
}

// TestCloseStopsTheBackgroundWork in the middle of a segment, and leaves nothing of it.
func TestCloseStopsTheBackgroundWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := disk.NewMem(1)
		c := config(m, 64<<20)
		c.Inline = false
		l := mustCreate(t, c, wal.Base{})
		writes := 0
		gate := make(chan struct{})
		onSpare(m, func() error { writes++; <-gate; return nil })
		appendRun(t, l, 1, 1, 1, 600<<10)
		synctest.Wait()
		require.Equal(t, 1, writes)
		var err error
		done := false
		go func() { err = l.Close(); done = true }()
		synctest.Wait()
		require.False(t, done)
		close(gate)
		synctest.Wait()
		require.True(t, done)
		require.NoError(t, err)
		require.Equal(t, 1, writes)
		require.Equal(t, []string{"/wal/0000000000000001.wal", "/wal/closed"}, m.Names())
	})
}

// TestCloseWhileAppendWaits for the spare that Close stops the making of: the batch gets a segment all the same, or comes
// too late, and the log is closed as it is.
func TestCloseWhileAppendWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := disk.NewMem(1)
		c := config(m, 1<<20)
		c.Inline = false
		l := mustCreate(t, c, wal.Base{})
		gate := make(chan struct{})
		onSpare(m, func() error { <-gate; return nil })
		appendRun(t, l, 1, 1, 1, 900<<10)
		synctest.Wait()
		appended, closed := make(chan error, 1), make(chan error, 1)
		go func() {
			appended <- l.Append(wal.Batch{Entries: []*raftpb.Entry{entry(2, 1, make([]byte, 200<<10))}}, true)
		}()
		synctest.Wait()
		go func() { closed <- l.Close() }()
		synctest.Wait()
		require.Empty(t, appended)
		require.Empty(t, closed)
		close(gate)
		require.NoError(t, <-closed)
		entries := 2
		if err := <-appended; err != nil { // Close got the lock first
			require.ErrorIs(t, err, wal.ErrClosed)
			entries = 1
		}
		c.Inline = true
		l, rec := mustOpen(t, c)
		require.Len(t, rec.Entries, entries)
		require.NoError(t, l.Close())
	})
}

// TestOperatingSystem does a little of everything on real files.
func TestOperatingSystem(t *testing.T) {
	c := wal.Config{Dir: path.Join(t.TempDir(), "a", "wal"), Identity: me, SegmentBytes: 64 << 10}
	l := mustCreate(t, c, wal.Base{})
	want := model{}
	for i := uint64(1); i <= 300; i++ {
		b := wal.Batch{Entries: []*raftpb.Entry{entry(i, 1, make([]byte, 2000))}, HardState: hard(1, 2, i)}
		require.NoError(t, l.Append(b, i%100 == 0))
		want = want.apply(b)
		require.NoError(t, l.Release(i/2))
	}
	require.NoError(t, l.Close())
	for range 2 {
		var rec wal.Recovery
		l, rec = mustOpen(t, c)
		require.Empty(t, want.differs(rec, 150))
		b := wal.Batch{Reset: &wal.Base{Index: 1000, Term: 4}}
		require.NoError(t, l.Append(b, true))
		want = want.apply(b)
		require.NoError(t, l.Close())
	}
}
