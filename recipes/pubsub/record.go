package pubsub

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

// A record is the value of one key of the log: messages that one publisher has put
// into one partition in one commit.
//
//	byte 1, uvarint time in ms, uvarint messages, then for each message:
//	uvarint index: the Index of its offset, less the count of the key's id
//	text key, uvarint headers, text name and text value of each, text payload
//
// where a text is a uvarint length and as many bytes.
const recordVersion = 1

var errRecord = errors.New("record is damaged")

// draft is a message on its way into a record.
type draft struct {
	index     uint64 // in its commit
	partition int
	key       string
	header    Header
	payload   []byte
}

// bytes is a bound of what the draft takes in a record.
func (d *draft) bytes() int {
	n := 30 + len(d.key) + len(d.payload)
	for k, v := range d.header {
		n += 10 + len(k) + len(v)
	}
	return n
}

// encodeRecord makes a record of messages.
func encodeRecord(drafts []*draft, ms int64) []byte {
	size := 20
	for _, d := range drafts {
		size += d.bytes()
	}
	b := append(make([]byte, 0, size), recordVersion)
	b = binary.AppendUvarint(b, uint64(ms))
	b = binary.AppendUvarint(b, uint64(len(drafts)))
	for _, d := range drafts {
		b = binary.AppendUvarint(b, d.index)
		b = appendText(b, d.key)
		b = binary.AppendUvarint(b, uint64(len(d.header)))
		for _, name := range slices.Sorted(maps.Keys(d.header)) {
			b = appendText(appendText(b, name), d.header[name])
		}
		b = appendText(b, string(d.payload))
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeRecord reads the messages of an entry, in the order of their offsets. A
// record that can not be read is one message that says so: it must not stop a
// reader for ever, nor go unnoticed.
func decodeRecord(e sequence.Entry) []*message {
	out, err := readRecord(e)
	if err != nil {
		at := Offset{Revision: e.Revision, Index: e.ID.Count}
		return []*message{{partition: e.Lane, offset: at, payload: e.Value, damaged: err}}
	}
	return out
}

func readRecord(e sequence.Entry) ([]*message, error) {
	if len(e.Value) == 0 || e.Value[0] != recordVersion {
		return nil, fmt.Errorf("%w: unknown version", errRecord)
	}
	r := recordReader{rest: e.Value[1:]}
	ms, n := int64(r.uint()), r.uint()
	if n == 0 || n > uint64(len(r.rest)) {
		return nil, errRecord
	}
	block := make([]message, n)
	out := make([]*message, n)
	for i := range block {
		m := &block[i]
		m.partition, m.time = e.Lane, ms
		m.offset = Offset{Revision: e.Revision, Index: e.ID.Count + r.uint()}
		m.key = string(r.text())
		headers := r.uint()
		if headers > uint64(len(r.rest)) {
			return nil, errRecord
		}
		if headers > 0 {
			m.header = make(Header, headers)
		}
		for range headers {
			name := string(r.text())
			m.header[name] = string(r.text())
		}
		m.payload = r.text()
		out[i] = m
	}
	if r.failed || len(r.rest) > 0 {
		return nil, errRecord
	}
	return out, nil
}

// recordReader reads the parts of a record.
type recordReader struct {
	rest   []byte
	failed bool
}

func (r *recordReader) uint() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *recordReader) text() []byte {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.failed, r.rest = true, nil
		return nil
	}
	text := r.rest[:n:n]
	r.rest = r.rest[n:]
	return text
}

// decodeBatch reads the messages of entries of whole commits, in the order of
// their offsets.
func decodeBatch(entries []sequence.Entry) []*message {
	var out []*message
	for _, e := range entries {
		out = append(out, decodeRecord(e)...)
	}
	slices.SortStableFunc(out, func(a, b *message) int { return a.offset.Compare(b.offset) })
	return out
}
