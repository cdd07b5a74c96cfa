package disk_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/internal/disk"
)

func TestReadOnlyChangesNothing(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(name, []byte("hello"), 0o400))
	f := disk.ReadOnly()
	for _, err := range []error{
		f.Rename(name, name+"2"), f.Remove(name), f.MkdirAll(filepath.Join(dir, "d")), f.SyncDir(dir),
	} {
		require.ErrorIs(t, err, fs.ErrPermission)
	}
	_, err := f.Create(name)
	require.ErrorIs(t, err, fs.ErrPermission)
	file, err := f.Open(name)
	require.NoError(t, err)
	_, err = file.WriteAt([]byte("x"), 0)
	require.Error(t, err)
	b := make([]byte, 5)
	_, err = file.ReadAt(b, 0)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b))
	require.NoError(t, file.Close())
	names, err := f.List(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"f"}, names)
}
