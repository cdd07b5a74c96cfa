package checkpoint

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/stretchr/testify/require"
)

// benchVersions returns n versions from revision first on: 30-byte keys, out of order, and 100-byte values.
func benchVersions(first, n int64) []*state.Version {
	versions := make([]*state.Version, n)
	for i := range versions {
		rev := first + int64(i)
		versions[i] = &state.Version{
			Key: fmt.Sprintf("bench/%024d", uint64(rev)*0x9e3779b97f4a7c15>>20), Value: make([]byte, 100), Create: rev, Mod: rev, Count: 1,
		}
	}
	return versions
}

func benchStore(b *testing.B, rows int64) *Store {
	b.Helper()
	path := filepath.Join(b.TempDir(), "db")
	require.NoError(b, Create(path, Meta{ClusterID: 1, MemberID: 1}, nil))
	s := open(b, path)
	for first := int64(2); first < 2+rows; first += 10_000 {
		n := min(10_000, 2+rows-first)
		ch := state.Changes{Index: uint64(first), Term: 1, Revision: first + n - 1, Compact: -1, Versions: benchVersions(first, n)}
		require.NoError(b, s.Save(ch, nil))
	}
	return s
}

func BenchmarkSave(b *testing.B) {
	for _, rows := range []int64{0, 100, 10_000} {
		for _, held := range []int64{0, 500_000} {
			b.Run(fmt.Sprintf("rows=%d/held=%d", rows, held), func(b *testing.B) {
				s := benchStore(b, held)
				index, next := uint64(held+10), held+2
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					b.StopTimer()
					index++
					ch := state.Changes{Index: index, Term: 1, Revision: max(next+rows-1, 1), Compact: -1, Versions: benchVersions(next, rows)}
					next += rows
					b.StartTimer()
					require.NoError(b, s.Save(ch, nil))
				}
				b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

// BenchmarkSaveAndCompact overwrites: each Save writes rows and removes as many, all over the file.
func BenchmarkSaveAndCompact(b *testing.B) {
	const held, rows = 200_000, 2_000
	s := benchStore(b, held)
	index, next := uint64(held+10), int64(held+2)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		b.StopTimer()
		index++
		ch := state.Changes{Index: index, Term: 1, Revision: next + rows - 1, Compact: -1, Versions: benchVersions(next, rows)}
		for j := range int64(rows) {
			ch.Removed = append(ch.Removed, state.Revision{Main: 2 + (j*97+int64(i)*13)%held})
		}
		next += rows
		b.StartTimer()
		require.NoError(b, s.Save(ch, nil))
	}
}

func BenchmarkOpenAndLoad(b *testing.B) {
	const rows = 200_000
	s := benchStore(b, rows)
	require.NoError(b, s.Close())
	b.Run("open", func(b *testing.B) {
		for range b.N {
			opened, err := Open(s.path)
			require.NoError(b, err)
			require.NoError(b, opened.Close())
		}
		b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("load", func(b *testing.B) {
		s := open(b, s.path)
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			_, err := s.Load(state.Config{})
			require.NoError(b, err)
		}
		b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
}

func BenchmarkVersion(b *testing.B) {
	const rows = 200_000
	s := benchStore(b, rows)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		v, err := s.Version(state.Revision{Main: 2 + int64(i)*7919%rows})
		require.NoError(b, err)
		require.NotNil(b, v)
	}
}

func BenchmarkScan(b *testing.B) {
	const rows = 200_000
	s := benchStore(b, rows)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		n := 0
		require.NoError(b, s.Scan(0, 1<<60, func(*state.Version) bool { n++; return true }))
		require.Equal(b, rows, n)
	}
	b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
