package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/stretchr/testify/require"
)

// BenchmarkImport reads and imports a snapshot of 500,000 keys.
func BenchmarkImport(b *testing.B) {
	const keys = 500_000
	s := create(b, 1)
	ch := state.Changes{Index: 2, Term: 1, Revision: 1 + keys, Compact: -1}
	for i := range int64(keys) {
		ch.Versions = append(ch.Versions, &state.Version{
			Key: fmt.Sprintf("key/%09d", i), Value: make([]byte, 100), Create: 2 + i, Mod: 2 + i, Count: 1,
		})
	}
	require.NoError(b, s.Save(ch, nil))
	require.NoError(b, s.Close())
	ch = state.Changes{}
	runtime.GC()
	for b.Loop() {
		src, err := OpenSource(s.path, false)
		require.NoError(b, err)
		to := filepath.Join(b.TempDir(), "db")
		_, err = src.Import(to, restored)
		require.NoError(b, err)
		require.NoError(b, src.Close())
		require.NoError(b, os.Remove(to))
	}
	b.ReportMetric(keys*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
}
