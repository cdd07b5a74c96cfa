package replica

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBatchRoundTrip(t *testing.T) {
	for _, b := range []Batch{
		{Commands: [][]byte{}},
		{Origin: 1, Sequence: 2, Term: 3, Commands: [][]byte{{}}},
		{Origin: ^uint64(0), Sequence: ^uint64(0), Term: 1 << 40, Commands: [][]byte{[]byte("a"), {}, bytes.Repeat([]byte("b"), 300)}},
	} {
		enc := EncodeBatch(b)
		require.Equal(t, len(enc), cap(enc), "one allocation of the right size")
		got, err := DecodeBatch(enc)
		require.NoError(t, err)
		require.Equal(t, b, got)
		for n := range enc {
			_, err := DecodeBatch(enc[:n])
			require.ErrorIs(t, err, ErrBadBatch)
		}
		_, err = DecodeBatch(append(enc, 0))
		require.ErrorIs(t, err, ErrBadBatch)
	}
}

func TestDecodeBatchRefuses(t *testing.T) {
	origin := make([]byte, 8)
	enc := func(format byte, rest ...byte) []byte { return append(append([]byte{format}, origin...), rest...) }
	for name, b := range map[string][]byte{
		"format":            enc(2, 1, 1, 0),
		"long varint":       enc(1, 0x80, 0x00, 1, 0),
		"many commands":     enc(1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f),
		"length overflow":   enc(1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"varint too long":   enc(1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"command cut short": enc(1, 1, 1, 1, 2, 0),
	} {
		_, err := DecodeBatch(b)
		require.ErrorIs(t, err, ErrBadBatch, name)
		_, err = checkBatch(b)
		require.ErrorIs(t, err, ErrBadBatch, name)
	}
}

// An encoded batch is on every member's disk: its layout may not change under the same format byte.
func TestBatchLayout(t *testing.T) {
	got := EncodeBatch(Batch{Origin: 0x0807060504030201, Sequence: 300, Term: 5, Commands: [][]byte{[]byte("ab"), []byte("c")}})
	require.Equal(t, []byte{1, 1, 2, 3, 4, 5, 6, 7, 8, 0xac, 2, 5, 2, 2, 'a', 'b', 1, 'c'}, got)
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(EncodeBatch(Batch{Origin: 1, Sequence: 2, Term: 3, Commands: [][]byte{[]byte("abc"), {}}}))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := DecodeBatch(data)
		_, checked := checkBatch(data)
		if (err == nil) != (checked == nil) {
			t.Fatalf("decode says %v, check says %v", err, checked)
		}
		if err != nil {
			return
		}
		if again := EncodeBatch(b); !bytes.Equal(again, data) {
			t.Fatalf("%x decodes and encodes to %x", data, again)
		}
	})
}
