package pubsub

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

func entryOf(value []byte) sequence.Entry {
	return sequence.Entry{Lane: 3, ID: sequence.ID{Seed: 7, Count: 100}, Revision: 9, Value: value}
}

func sampleRecord() ([]*draft, []byte) {
	drafts := []*draft{
		{index: 0, key: "k", header: Header{"b": "2", "a": ""}, payload: []byte("one")},
		{index: 2, payload: []byte{}},
		{index: 300, key: "ü", payload: make([]byte, 300)},
	}
	return drafts, encodeRecord(drafts, 1_700_000_000_123)
}

func TestRecord(t *testing.T) {
	drafts, value := sampleRecord()
	got := decodeRecord(entryOf(value))
	require.Len(t, got, len(drafts))
	for i, d := range drafts {
		require.NoError(t, got[i].damaged)
		require.Equal(t, d.key, got[i].key)
		require.Equal(t, d.header, got[i].header)
		require.Equal(t, d.payload, got[i].payload)
		require.Equal(t, Offset{Revision: 9, Index: 100 + d.index}, got[i].offset)
		require.EqualValues(t, 1_700_000_000_123, got[i].time)
		require.Equal(t, 3, got[i].partition)
	}
	size := 0
	for _, d := range drafts {
		size += d.bytes()
	}
	require.LessOrEqual(t, len(value), size+20, "bytes is a bound")
}

// A record that is cut off anywhere is one message that says that it is damaged.
func TestRecordDamaged(t *testing.T) {
	_, value := sampleRecord()
	for n := range len(value) {
		got := decodeRecord(entryOf(value[:n]))
		require.Len(t, got, 1)
		require.ErrorIs(t, got[0].damaged, errRecord, "%d bytes", n)
		require.Equal(t, Offset{Revision: 9, Index: 100}, got[0].offset)
	}
	require.ErrorIs(t, decodeRecord(entryOf(append(value, 0)))[0].damaged, errRecord)
}

func FuzzRecord(f *testing.F) {
	_, value := sampleRecord()
	f.Add(value)
	f.Add([]byte{recordVersion, 0, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, m := range decodeRecord(entryOf(value)) {
			if m.bytes() < messageOverheadBytes {
				t.Error("a message without a size")
			}
		}
	})
}

// The messages of one commit come in the order of the calls, whatever their
// partitions.
func TestBatchOrder(t *testing.T) {
	var drafts []*draft
	for i := range 20 {
		drafts = append(drafts, &draft{partition: i * 7 % 3, payload: fmt.Append(nil, i)})
	}
	w := newWrite(drafts, 1)
	require.Len(t, w.records, 3)
	var entries []sequence.Entry
	for _, r := range w.records {
		e := sequence.Entry{Lane: r.partition, ID: sequence.ID{Count: 50}, Revision: 4, Note: r.note, Value: r.value}
		entries = append(entries, e)
		messages, bytes, _ := readNote(r.note)
		require.EqualValues(t, len(decodeRecord(e)), messages)
		require.EqualValues(t, len(r.value), bytes)
		all := decodeRecord(e)
		require.Equal(t, all[len(all)-1].offset, endOf(e))
	}
	for i, m := range decodeBatch(entries) {
		require.Equal(t, fmt.Sprint(i), string(m.payload))
		require.Equal(t, Offset{Revision: 4, Index: 50 + uint64(i)}, m.offset)
	}
}

func TestOffsets(t *testing.T) {
	o := Offset{Revision: 12, Index: 3}
	back, err := ParseOffset(o.String())
	require.NoError(t, err)
	require.Equal(t, o, back)
	end, err := ParseOffset("12")
	require.NoError(t, err)
	require.Equal(t, client.Revision(12), end.Revision)
	require.Positive(t, end.Compare(o))
	require.Negative(t, end.Compare(Offset{Revision: 13}))
	for _, text := range []string{"", "x", "1.", ".1", "-1", "1.x", "1.-1"} {
		_, err := ParseOffset(text)
		require.ErrorIs(t, err, errOffset, text)
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a/b", false}, {"a/b", "a", false},
		{"*", "a", true}, {"*", "a/b", false}, {"*/b", "a/b", true}, {"*/b", "a/c", false}, {"a/*", "a", false},
		{"**", "a", true}, {"**", "a/b/c", true}, {"a/**", "a/b/c", true}, {"a/**", "a", false}, {"a/**", "ab/c", false},
	} {
		require.Equal(t, c.want, matches(c.pattern, c.name), "%s %s", c.pattern, c.name)
	}
}
