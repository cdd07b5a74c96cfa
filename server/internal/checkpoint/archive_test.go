package checkpoint

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/stretchr/testify/require"
)

// collect returns all versions of a scan.
func collect(t testing.TB, s *Store, from, to int64) (all []*state.Version) {
	t.Helper()
	require.NoError(t, s.Scan(from, to, func(v *state.Version) bool { all = append(all, v); return true }))
	return all
}

func TestArchive(t *testing.T) {
	s := create(t, 1)
	var versions []*state.Version
	for main := int64(2); main < 1000; main++ { // more than a batch of Scan
		for sub := range main % 3 {
			versions = append(versions, &state.Version{Key: "k", Value: []byte{byte(main), byte(sub)}, Create: 2, Mod: main, Sub: sub, Count: main, Lease: sub})
		}
	}
	versions[5] = &state.Version{Key: "k", Mod: versions[5].Mod, Sub: versions[5].Sub, Deleted: true}
	versions[6].Value = make([]byte, scanBytesMax) // fills a batch by itself
	require.NoError(t, s.Save(state.Changes{Index: 1, Term: 1, Revision: 1000, Compact: -1, Versions: versions}, nil))

	for _, v := range versions {
		got, err := s.Version(v.Revision())
		require.NoError(t, err)
		require.Equal(t, v, got)
	}
	for _, rev := range []state.Revision{{Main: 1}, {Main: 2, Sub: 9}, {Main: 1000}, {Main: -1}, {Main: 1 << 62, Sub: 1 << 62}} {
		got, err := s.Version(rev)
		require.NoError(t, err)
		require.Nil(t, got, "%v", rev)
	}
	require.Equal(t, versions, collect(t, s, -5, 1<<62))
	for _, span := range [][2]int64{{2, 2}, {4, 5}, {500, 800}, {998, 2000}, {7, 6}, {3000, 4000}} {
		want := slices.Clone(versions)
		want = slices.DeleteFunc(want, func(v *state.Version) bool { return v.Mod < span[0] || v.Mod > span[1] })
		got := collect(t, s, span[0], span[1])
		require.Equal(t, len(want), len(got), "%v", span)
		for i := range want {
			require.Equal(t, want[i], got[i])
		}
	}
	seen := 0
	require.NoError(t, s.Scan(0, 1000, func(*state.Version) bool { seen++; return seen < 600 }))
	require.Equal(t, 600, seen)
}

// Reads and snapshots go on beside Saves, and each sees what was saved: complete transactions, unchanged rows.
func TestReadersBesideSave(t *testing.T) {
	const rounds, rowsEach = 60, 50
	s := create(t, 1)
	var saved atomic.Int64 // revision
	saved.Store(1)
	var done atomic.Bool
	var wg sync.WaitGroup
	version := func(main, sub int64) *state.Version {
		return &state.Version{Key: "key", Value: []byte{byte(main), byte(sub), 7}, Create: 2, Mod: main, Sub: sub, Count: main}
	}
	for range 2 {
		wg.Go(func() {
			for !done.Load() {
				low := saved.Load()
				next := state.Revision{Main: 2}
				err := s.Scan(2, 1<<60, func(v *state.Version) bool {
					if v.Revision() != next || v.Value[2] != 7 || v.Value[0] != byte(v.Mod) {
						t.Errorf("got %v after %v", v.Revision(), next)
						return false
					}
					if next.Sub++; next.Sub == rowsEach {
						next = state.Revision{Main: next.Main + 1}
					}
					return true
				})
				if err != nil || next.Sub != 0 || next.Main <= low {
					t.Errorf("scan ended at %v with %d saved: %v", next, low, err)
				}
				if v, err := s.Version(state.Revision{Main: low, Sub: 3}); low > 1 && (err != nil || v == nil) {
					t.Errorf("version at %d: %v", low, err)
				}
				s.Size()
				s.Meta()
			}
		})
	}
	wg.Go(func() {
		for !done.Load() {
			snapshot, err := s.Snapshot()
			if err != nil {
				t.Error(err)
				return
			}
			if n, err := snapshot.WriteTo(io.Discard); err != nil || n != snapshot.Size() {
				t.Errorf("wrote %d of %d: %v", n, snapshot.Size(), err)
			}
			if err := snapshot.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	for main := int64(2); main < rounds; main++ {
		ch := state.Changes{Index: uint64(main), Term: 1, Revision: main, Compact: -1}
		for sub := range int64(rowsEach) {
			ch.Versions = append(ch.Versions, version(main, sub))
		}
		require.NoError(t, s.Save(ch, nil))
		saved.Store(main)
	}
	done.Store(true)
	wg.Wait()
}
