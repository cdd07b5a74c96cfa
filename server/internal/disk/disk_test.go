package disk_test

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/internal/disk"
)

// TestFileSystems holds both file systems to what FS promises to a program whose machine stays up.
func TestFileSystems(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (disk.FS, string){
		"os":  func(t *testing.T) (disk.FS, string) { return disk.OS(), t.TempDir() },
		"mem": func(t *testing.T) (disk.FS, string) { return disk.NewMem(1), "/data" },
	} {
		t.Run(name, func(t *testing.T) {
			f, root := open(t)
			checkFileSystem(t, f, filepath.Join(root, "a", "b"))
		})
	}
}

func checkFileSystem(t *testing.T, f disk.FS, dir string) {
	_, err := f.List(dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = f.Create(filepath.Join(dir, "x"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, f.MkdirAll(dir))
	require.NoError(t, f.MkdirAll(dir), "a directory that exists is no error")
	_, err = f.Open(filepath.Join(dir, "x"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	file, err := f.Create(filepath.Join(dir, "x"))
	require.NoError(t, err)
	n, err := file.WriteAt([]byte("world"), 700)
	require.NoError(t, err)
	require.Equal(t, 5, n)
	_, err = file.WriteAt([]byte("hello"), 0)
	require.NoError(t, err)
	require.NoError(t, file.Sync())
	size, err := file.Size()
	require.NoError(t, err)
	require.EqualValues(t, 705, size)
	want := append(append([]byte("hello"), make([]byte, 695)...), "world"...)
	got := make([]byte, 705)
	_, err = file.ReadAt(got, 0)
	require.NoError(t, err)
	require.Equal(t, want, got)
	n, err = file.ReadAt(make([]byte, 10), 700)
	require.Equal(t, 5, n)
	require.Equal(t, io.EOF, err)
	_, err = file.ReadAt(make([]byte, 1), 705)
	require.Equal(t, io.EOF, err)
	_, err = file.WriteAt([]byte("x"), -1)
	require.Error(t, err)
	_, err = file.ReadAt(make([]byte, 1), -1)
	require.Error(t, err)

	// An open file follows its renaming, and a second handle sees the same bytes.
	second, err := f.Create(filepath.Join(dir, "y"))
	require.NoError(t, err)
	require.NoError(t, f.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "y")))
	_, err = file.WriteAt([]byte("J"), 0)
	require.NoError(t, err)
	again, err := f.Open(filepath.Join(dir, "y"))
	require.NoError(t, err)
	_, err = again.ReadAt(got[:5], 0)
	require.NoError(t, err)
	require.Equal(t, "Jello", string(got[:5]))

	_, err = f.Create(filepath.Join(dir, "w"))
	require.NoError(t, err)
	require.NoError(t, f.SyncDir(dir))
	names, err := f.List(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"w", "y"}, names)
	require.ErrorIs(t, f.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "z")), fs.ErrNotExist)
	require.ErrorIs(t, f.Remove(filepath.Join(dir, "x")), fs.ErrNotExist)
	require.ErrorIs(t, f.SyncDir(filepath.Join(dir, "none")), fs.ErrNotExist)
	require.NoError(t, f.Remove(filepath.Join(dir, "w")))
	truncated, err := f.Create(filepath.Join(dir, "y"))
	require.NoError(t, err)
	size, err = truncated.Size()
	require.NoError(t, err)
	require.Zero(t, size)
	for _, c := range []disk.File{file, second, again, truncated} {
		require.NoError(t, c.Close())
	}
	_, err = file.WriteAt([]byte("x"), 0)
	require.ErrorIs(t, err, fs.ErrClosed)
	require.ErrorIs(t, file.Sync(), fs.ErrClosed)
}

func TestOSKeepsFilesPrivateAndReportsBadDirectories(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	f := disk.OS()
	require.NoError(t, f.MkdirAll(dir))
	file, err := f.Create(filepath.Join(dir, "x"))
	require.NoError(t, err)
	require.NoError(t, file.Close())
	info, err := os.Stat(filepath.Join(dir, "x"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	info, err = os.Stat(dir)
	require.NoError(t, err)
	require.EqualValues(t, 0o700, info.Mode().Perm())
	require.Error(t, f.MkdirAll(filepath.Join(dir, "x")), "a file is no directory")
	require.Error(t, f.MkdirAll(filepath.Join(dir, "x", "y")))
}

func create(t *testing.T, m *disk.Mem, name string, b []byte) disk.File {
	t.Helper()
	require.NoError(t, m.MkdirAll("/d"))
	f, err := m.Create(name)
	require.NoError(t, err)
	write(t, f, b, 0)
	return f
}

func write(t *testing.T, f disk.File, b []byte, off int64) {
	t.Helper()
	_, err := f.WriteAt(b, off)
	require.NoError(t, err)
}

func sectors(n int, fill byte) []byte { return bytes.Repeat([]byte{fill}, n*disk.SectorBytes) }

// TestCrashKeepsWhatWasSynced: a synced file under a synced name survives every crash, and its handle does not.
func TestCrashKeepsWhatWasSynced(t *testing.T) {
	for seed := range uint64(50) {
		m := disk.NewMem(seed)
		f := create(t, m, "/d/x", sectors(3, 'a'))
		require.NoError(t, f.Sync())
		require.NoError(t, m.SyncDir("/d"))
		m.Crash()
		got, err := m.ReadFile("/d/x")
		require.NoError(t, err)
		require.Equal(t, sectors(3, 'a'), got)
		_, err = f.WriteAt([]byte("x"), 0)
		require.ErrorIs(t, err, disk.ErrPowerCut)
		require.ErrorIs(t, f.Sync(), disk.ErrPowerCut)
	}
}

// TestCrashTearsWrites: un-synced sectors hold one of the states that they went through, whole; all combinations of two
// sectors and three states come up.
func TestCrashTearsWrites(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(400) {
		m := disk.NewMem(seed)
		f := create(t, m, "/d/x", sectors(2, 'a'))
		require.NoError(t, f.Sync())
		require.NoError(t, m.SyncDir("/d"))
		write(t, f, sectors(2, 'b'), 0)
		write(t, f, sectors(2, 'c'), 0)
		m.Crash()
		got, err := m.ReadFile("/d/x")
		require.NoError(t, err)
		require.Len(t, got, 2*disk.SectorBytes)
		for s := range 2 {
			sector := got[s*disk.SectorBytes:][:disk.SectorBytes]
			require.Equal(t, sectors(1, sector[0]), sector, "a sector is never mixed")
		}
		seen[string([]byte{got[0], got[disk.SectorBytes]})]++
	}
	for _, first := range "abc" {
		for _, second := range "abc" {
			require.NotZero(t, seen[string([]rune{first, second})], "%c%c never came up: %v", first, second, seen)
		}
	}
}

// TestCrashForgetsNamesAndLengths: Sync of a file does not make its name durable, and a length may be lost with the
// bytes that made it.
func TestCrashForgetsNamesAndLengths(t *testing.T) {
	var noName, oldName, newName, short, long int
	for seed := range uint64(200) {
		m := disk.NewMem(seed)
		f := create(t, m, "/d/x", sectors(1, 'a'))
		require.NoError(t, f.Sync())
		m2 := m.Clone(seed + 1000)
		m2.Crash()
		if len(m2.Names()) == 0 {
			noName++
		}
		require.NoError(t, m.SyncDir("/d"))
		write(t, f, sectors(1, 'b'), disk.SectorBytes)
		require.NoError(t, m.Rename("/d/x", "/d/y"))
		m.Crash()
		names := m.Names()
		require.Len(t, names, 1, "a rename is one step")
		if names[0] == "/d/x" {
			oldName++
		} else {
			newName++
		}
		got, err := m.ReadFile(names[0])
		require.NoError(t, err)
		require.Equal(t, sectors(1, 'a'), got[:disk.SectorBytes])
		if len(got) == 2*disk.SectorBytes {
			long++
		} else {
			short++
		}
	}
	for name, n := range map[string]int{"noName": noName, "oldName": oldName, "newName": newName, "short": short, "long": long} {
		require.Greater(t, n, 20, name)
	}
}

// TestDirectoryChangesSurviveInAnyCombination: of two removals without SyncDir between, either may be the one that lasts.
func TestDirectoryChangesSurviveInAnyCombination(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(100) {
		m := disk.NewMem(seed)
		create(t, m, "/d/x", nil)
		create(t, m, "/d/y", nil)
		require.NoError(t, m.SyncDir("/d"))
		require.NoError(t, m.Remove("/d/x"))
		require.NoError(t, m.Remove("/d/y"))
		m.Crash()
		left, err := m.List("/d")
		require.NoError(t, err)
		seen[string(bytes.Join(toBytes(left), nil))]++
	}
	require.Len(t, seen, 4, "%v", seen)
}

func toBytes(names []string) (out [][]byte) {
	for _, n := range names {
		out = append(out, []byte(n))
	}
	return out
}

// TestFailedSyncLosesPages: after a failed Sync the bytes are readable and a later Sync succeeds, but only sectors that
// were written again are durable.
func TestFailedSyncLosesPages(t *testing.T) {
	fault := io.ErrUnexpectedEOF
	lost := 0
	for seed := range uint64(50) {
		m := disk.NewMem(seed)
		f := create(t, m, "/d/x", sectors(2, 'a'))
		require.NoError(t, f.Sync())
		require.NoError(t, m.SyncDir("/d"))
		write(t, f, sectors(2, 'b'), 0)
		m.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpSync {
				return fault
			}
			return nil
		})
		require.ErrorIs(t, f.Sync(), fault)
		m.SetFault(nil)
		write(t, f, sectors(1, 'b'), 0)
		require.NoError(t, f.Sync())
		got, err := m.ReadFile("/d/x")
		require.NoError(t, err)
		require.Equal(t, sectors(2, 'b'), got)
		m.Crash()
		got, err = m.ReadFile("/d/x")
		require.NoError(t, err)
		require.Equal(t, sectors(1, 'b'), got[:disk.SectorBytes], "written again and synced")
		if got[disk.SectorBytes] == 'a' {
			lost++
		}
	}
	require.Greater(t, lost, 10)
	require.Less(t, lost, 50)
}

// TestFaultsFailEveryOperation: each operation is announced once, in order, and fails without effect. A failed write may
// leave leading sectors.
func TestFaultsFailEveryOperation(t *testing.T) {
	fault := io.ErrUnexpectedEOF
	m := disk.NewMem(3)
	f := create(t, m, "/d/x", sectors(1, 'a'))
	var seen []disk.Op
	m.SetFault(func(op disk.Op) error { seen = append(seen, op); return fault })
	before := m.Ops()
	short := 0
	for range 30 {
		n, err := f.WriteAt(sectors(4, 'b'), 100)
		require.ErrorIs(t, err, fault)
		require.True(t, n == 0 || (n+100)%disk.SectorBytes == 0, "%d", n)
		if n > 0 {
			short++
		}
	}
	require.NotZero(t, short)
	seen = seen[:0]
	for _, try := range []func() error{
		func() error { _, err := m.Create("/d/y"); return err },
		func() error { _, err := m.Open("/d/x"); return err },
		func() error { return m.Rename("/d/x", "/d/y") },
		func() error { return m.Remove("/d/x") },
		func() error { _, err := m.List("/d"); return err },
		func() error { return m.MkdirAll("/e") },
		func() error { return m.SyncDir("/d") },
		func() error { _, err := f.ReadAt(make([]byte, 7), 3); return err },
		func() error { _, err := f.Size(); return err },
		f.Sync,
		f.Close,
	} {
		require.ErrorIs(t, try(), fault)
	}
	m.SetFault(nil)
	require.Equal(t, []string{"/d/x"}, m.Names())
	_, err := m.List("/e")
	require.ErrorIs(t, err, fs.ErrNotExist)
	var kinds []string
	for i, op := range seen {
		kinds = append(kinds, op.Kind.String())
		require.Equal(t, before+30+uint64(i)+1, op.N)
	}
	require.Equal(t, []string{"create", "open", "rename", "remove", "list", "mkdir", "syncdir", "read", "size", "sync", "close"}, kinds)
	require.Equal(t, disk.Op{Kind: disk.OpRead, Name: "/d/x", Offset: 3, Length: 7, N: seen[7].N}, seen[7])
	require.Equal(t, "/d/y", seen[2].To)
}

// TestCrashInsideAFault: the operation that the power cut hits has no effect afterwards.
func TestCrashInsideAFault(t *testing.T) {
	m := disk.NewMem(4)
	f := create(t, m, "/d/x", sectors(1, 'a'))
	require.NoError(t, f.Sync())
	require.NoError(t, m.SyncDir("/d"))
	m.SetFault(func(disk.Op) error { m.Crash(); return disk.ErrPowerCut })
	_, err := f.WriteAt(sectors(8, 'b'), 0)
	require.ErrorIs(t, err, disk.ErrPowerCut)
	got, err := m.ReadFile("/d/x")
	require.NoError(t, err)
	require.Equal(t, sectors(1, 'a'), got)
}

// TestSameSeedSameDisk: what a crash leaves depends on the seed and the calls alone.
func TestSameSeedSameDisk(t *testing.T) {
	run := func(seed uint64) []byte {
		m := disk.NewMem(seed)
		for i := range 8 {
			f := create(t, m, "/d/"+string(rune('a'+i)), sectors(5, byte(i)))
			write(t, f, sectors(9, 'x'), 700)
		}
		m.Crash()
		var all []byte
		for _, n := range m.Names() {
			b, err := m.ReadFile(n)
			require.NoError(t, err)
			all = append(append(all, n...), b...)
		}
		return all
	}
	for seed := range uint64(20) {
		require.Equal(t, run(seed), run(seed))
	}
	require.NotEqual(t, run(1), run(2))
}

// TestCloneIsIndependent: a clone carries pending writes and names, and neither side sees the other's later ones.
func TestCloneIsIndependent(t *testing.T) {
	m := disk.NewMem(5)
	f := create(t, m, "/d/x", sectors(2, 'a'))
	c := m.Clone(6)
	write(t, f, []byte("later"), 0)
	got, err := c.ReadFile("/d/x")
	require.NoError(t, err)
	require.Equal(t, sectors(2, 'a'), got)
	require.NoError(t, c.WriteFile("/d/x", []byte("patched")))
	c.Crash()
	got, err = c.ReadFile("/d/x")
	require.NoError(t, err)
	require.Equal(t, "patched", string(got))
	got, err = m.ReadFile("/d/x")
	require.NoError(t, err)
	require.Equal(t, "later", string(got[:5]))
	require.ErrorIs(t, m.WriteFile("/none/x", nil), fs.ErrNotExist)
}

// BenchmarkMemAppend is what a simulation pays for a synced write, whatever the file's length.
func BenchmarkMemAppend(b *testing.B) {
	m := disk.NewMem(1)
	f, err := m.Create("x")
	require.NoError(b, err)
	_, err = f.WriteAt(make([]byte, 1<<20), 0)
	require.NoError(b, err)
	require.NoError(b, f.Sync())
	buf := make([]byte, 512)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := f.WriteAt(buf, int64(i%2048)*512); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}
