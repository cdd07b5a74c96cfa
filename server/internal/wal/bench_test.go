package wal_test

import (
	"fmt"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// BenchmarkAppend compares a durable Append with what one would write first: the same bytes at the end of a file, and
// fdatasync. Both take turns, so that they meet the same disk.
//
//	go test ./server/internal/wal -run '^$' -bench Append -benchtime 5000x
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("%dx300B", n), func(b *testing.B) {
			dir := b.TempDir()
			l, err := wal.Create(wal.Config{Dir: path.Join(dir, "wal"), Identity: me}, wal.Base{})
			require.NoError(b, err)
			plain, err := disk.OS().Create(path.Join(dir, "plain"))
			require.NoError(b, err)
			batch := wal.Batch{HardState: hard(1, 1, 1)}
			for range n {
				batch.Entries = append(batch.Entries, entry(0, 1, slices.Repeat([]byte{7}, 300)))
			}
			bytes := slices.Repeat([]byte{7}, 300*n)
			index, end := uint64(0), int64(0)
			var logged, appended []time.Duration
			b.ReportAllocs()
			for b.Loop() {
				for _, e := range batch.Entries {
					index++
					*e.Index = index
				}
				start := time.Now()
				if err := l.Append(batch, true); err != nil {
					b.Fatal(err)
				}
				middle := time.Now()
				if _, err := plain.WriteAt(bytes, end); err != nil {
					b.Fatal(err)
				}
				if err := plain.Sync(); err != nil {
					b.Fatal(err)
				}
				end += int64(len(bytes))
				logged, appended = append(logged, middle.Sub(start)), append(appended, time.Since(middle))
			}
			report(b, "log", logged)
			report(b, "plain", appended)
			require.NoError(b, plain.Close())
			require.NoError(b, l.Close())
		})
	}
}

func report(b *testing.B, name string, d []time.Duration) {
	slices.Sort(d)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(d[len(d)*p/100].Nanoseconds())/1e3, fmt.Sprintf("%s-p%d-us", name, p))
	}
}

// nothing is a file system that keeps nothing.
type nothing struct{ disk.FS }

func (nothing) MkdirAll(string) error            { return nil }
func (nothing) List(string) ([]string, error)    { return nil, nil }
func (nothing) Create(string) (disk.File, error) { return nothing{}, nil }
func (nothing) Open(string) (disk.File, error)   { return nothing{}, nil }
func (nothing) Rename(string, string) error      { return nil }
func (nothing) Remove(string) error              { return nil }
func (nothing) SyncDir(string) error             { return nil }

func (nothing) ReadAt(b []byte, _ int64) (int, error)  { return len(b), nil }
func (nothing) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (nothing) Size() (int64, error)                   { return 0, nil }
func (nothing) Sync() error                            { return nil }
func (nothing) Close() error                           { return nil }

// BenchmarkEncode is what an Append costs besides the disk.
func BenchmarkEncode(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("%dx300B", n), func(b *testing.B) {
			c := config(nil, 64<<20)
			c.FS = nothing{}
			l, err := wal.Create(c, wal.Base{})
			require.NoError(b, err)
			batch := wal.Batch{HardState: hard(1, 1, 1)}
			for range n {
				batch.Entries = append(batch.Entries, entry(0, 1, slices.Repeat([]byte{7}, 300)))
			}
			b.ReportAllocs()
			index := uint64(0)
			for b.Loop() {
				for _, e := range batch.Entries {
					index++
					*e.Index = index
				}
				if err := l.Append(batch, true); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen reads a log of 64 MiB in batches of one 300 B entry.
func BenchmarkOpen(b *testing.B) {
	m := disk.NewMem(1)
	c := config(m, 32<<20)
	l, err := wal.Create(c, wal.Base{})
	require.NoError(b, err)
	data := slices.Repeat([]byte{7}, 300)
	for i := range uint64(128 << 10) {
		require.NoError(b, l.Append(wal.Batch{Entries: []*raftpb.Entry{entry(i+1, 1, data)}}, true))
	}
	b.SetBytes(64 << 20)
	for b.Loop() {
		l, rec, err := wal.Open(c)
		if err != nil || len(rec.Entries) != 128<<10 {
			b.Fatal(err, len(rec.Entries))
		}
		_ = l
	}
}
