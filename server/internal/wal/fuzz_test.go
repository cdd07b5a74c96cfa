package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// refit gives a patched segment checksums that match, as far as it has headers.
func refit(b []byte) {
	table := crc32.MakeTable(crc32.Castagnoli)
	le := binary.LittleEndian
	if len(b) < sector {
		return
	}
	le.PutUint32(b[508:], crc32.Checksum(b[:508], table))
	seed := crc32.Checksum(b[64:72], table)
	chain := le.Uint32(b[508:])
	for at := sector; at+sector <= len(b); {
		f := b[at:]
		if le.Uint32(f) != 0x4b4c4246 {
			at += sector
			continue
		}
		le.PutUint32(f[68:], chain)
		le.PutUint32(f[72:], crc32.Update(seed, table, f[:72]))
		n := (76 + 8 + int(le.Uint32(f[8:])) + sector - 1) / sector * sector
		if n > len(f) {
			return
		}
		chain = crc32.Checksum(f[:n-4], table)
		le.PutUint32(f[n-4:], chain)
		at += n
	}
}

// FuzzOpen makes any bytes the newest segment, with checksums that match or without. Open refuses, or the log that it finds
// is there again the next time. It allocates no more than the file's length allows: lengths that the bytes claim count
// for nothing until they verify.
func FuzzOpen(f *testing.F) {
	m := disk.NewMem(1)
	c := config(m, 4096)
	l, err := wal.Create(c, wal.Base{})
	require.NoError(f, err)
	for i := range uint64(4) {
		b := wal.Batch{Entries: []*raftpb.Entry{entry(i+1, 1, make([]byte, 400*i))}, HardState: hard(1, 1, i)}
		require.NoError(f, l.Append(b, true))
	}
	names := m.Names()
	newest := names[len(names)-2] // a spare comes last
	good, err := m.ReadFile(newest)
	require.NoError(f, err)
	f.Add(good, uint16(0), false, false)
	f.Add([]byte{}, uint16(0), true, false)
	f.Add(good[:600], uint16(1024), false, false)
	f.Add([]byte{0, 0, 0, 0}, uint16(512+8), false, false)
	f.Add(make([]byte, 512), uint16(1024), false, false)
	for at := range uint16(76) { // every field, alone
		f.Add([]byte{0xff}, at, false, true)
		f.Add([]byte{0xff}, 1024+at, false, true)
		f.Add([]byte{0}, 1024+at, false, true)
	}
	f.Fuzz(func(t *testing.T, patch []byte, at uint16, alone, fit bool) {
		m := m.Clone(1)
		b := patch
		if !alone { // a part of a good one
			b = append(make([]byte, 0, len(good)), good...)
			if int(at) < len(b) {
				copy(b[at:], patch)
			}
		}
		if fit {
			b = bytes.Clone(b)
			refit(b)
		}
		require.NoError(t, m.WriteFile(newest, b))
		c := c
		c.FS = m
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		l, rec, err := wal.Open(c)
		runtime.ReadMemStats(&after)
		if n, limit := after.TotalAlloc-before.TotalAlloc, uint64(64<<10+32*len(b)); n > limit {
			t.Fatalf("%d bytes allocated for a file of %d", n, len(b))
		}
		var damage *wal.DamageError
		if err != nil {
			if !errors.As(err, &damage) && !errors.Is(err, wal.ErrForeign) && !errors.Is(err, wal.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		want := model{base: rec.Base, entries: rec.Entries, hard: rec.HardState}
		if want.last().Index == math.MaxUint64 {
			return // there is no next entry
		}
		e := entry(want.last().Index+1, 9, []byte("more"))
		require.NoError(t, l.Append(wal.Batch{Entries: []*raftpb.Entry{e}}, true))
		m.Crash()
		want = want.apply(wal.Batch{Entries: []*raftpb.Entry{e}})
		l, rec, err = wal.Open(c)
		require.NoError(t, err)
		require.Empty(t, want.differs(rec, 0))
		require.NoError(t, l.Close())
	})
}
