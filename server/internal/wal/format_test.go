package wal

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// TestTermsAgainstATable: runs know what a table of every entry knows.
func TestTermsAgainstATable(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		base := rng.Uint64N(5)
		var (
			runs  terms
			table []uint64 // of entries from base+1
			term  uint64
		)
		for range 300 {
			switch p := rng.IntN(20); {
			case p == 0 && len(table) > 0:
				n := rng.IntN(len(table) + 1)
				runs.cut(base + uint64(n))
				table = table[:n]
			case p == 1 && len(table) > 0:
				n := rng.IntN(len(table) + 1)
				base += uint64(n)
				runs.release(base)
				table = table[n:]
			default:
				term += uint64(rng.IntN(8) / 7)
				table = append(table, term)
				runs.add(base+uint64(len(table)), term)
			}
			last, ok := runs.last()
			require.Equal(t, len(table) > 0, ok && last.Index > base)
			if len(table) > 0 {
				require.Equal(t, Base{Index: base + uint64(len(table)), Term: table[len(table)-1]}, last)
			}
			for i, want := range table {
				require.Equal(t, want, runs.at(base+1+uint64(i)))
			}
		}
	}
}

// FuzzEntries: any payload is refused, or is what its entries encode to. The decoder has a checksum before it that keeps
// such payloads away, and must not rely on it.
func FuzzEntries(f *testing.F) {
	data := []byte("some data")
	good := frame{kind: kindBatch, payload: 2*entryHeader + len(data), count: 2, first: 7}
	buf := make([]byte, good.bytes())
	good.encode(buf, 1, []*raftpb.Entry{{Term: new(uint64), Data: data}, {}})
	f.Add(buf[frameHeader:frameHeader+good.payload], uint32(2), uint64(7))
	f.Add([]byte{}, uint32(0), uint64(0))
	f.Add(make([]byte, entryHeader), uint32(1<<31), uint64(1))
	f.Add(bytes.Repeat([]byte{255}, 64), uint32(2), uint64(1)<<63)
	f.Fuzz(func(t *testing.T, payload []byte, count uint32, first uint64) {
		in := frame{kind: kindBatch, payload: len(payload), count: count, first: first}
		entries, reason := decodeEntries(payload, &in)
		if reason != "" {
			return
		}
		if len(entries) != int(count) || payloadBytes(entries) != int64(len(payload)) {
			t.Fatalf("%d entries of %d bytes from %d and %d", len(entries), payloadBytes(entries), count, len(payload))
		}
		buf := make([]byte, in.bytes())
		chain := in.encode(buf, 3, entries)
		if !bytes.Equal(buf[frameHeader:frameHeader+len(payload)], payload) {
			t.Fatal("the entries encode to something else")
		}
		out, ok := decodeFrame(buf, 3)
		if got, full := whole(buf); !ok || !full || got != chain || out != in {
			t.Fatalf("%+v came back as %+v", in, out)
		}
		if _, ok := decodeFrame(buf, 4); ok {
			t.Fatal("a frame of another segment passes")
		}
	})
}

// FuzzFrame: a header that verifies is one that its fields encode to.
func FuzzFrame(f *testing.F) {
	seal := frame{kind: kindSeal, batch: 3, synced: 2, chain: 9, hasHard: true, hard: hardState{1, 2, 3}}
	b := make([]byte, sealBytes)
	seal.encodeHeader(b, 5)
	f.Add(b[:frameHeader], uint32(5), true)
	f.Add(make([]byte, frameHeader), uint32(0), false)
	f.Fuzz(func(t *testing.T, b []byte, seed uint32, fix bool) {
		if len(b) < frameHeader {
			return
		}
		b = bytes.Clone(b[:frameHeader])
		if fix { // past the checksum, which would keep nearly everything out
			sum := headerSum(b, seed)
			b[72], b[73], b[74], b[75] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		got, ok := decodeFrame(b, seed)
		if !ok {
			return
		}
		again := make([]byte, frameHeader)
		got.encodeHeader(again, seed)
		if !bytes.Equal(again, b) {
			t.Fatalf("%x came back as %x", b, again)
		}
	})
}
