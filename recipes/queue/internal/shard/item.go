package shard

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"
)

// ErrDamaged: a value is not one that this package has written.
var ErrDamaged = errors.New("queue: value can not be read")

// formatVersion is the first byte of items and journals.
const formatVersion = 1

// Item is what waits in a queue: one message, or a chunk of them that share
// everything but their payloads.
type Item struct {
	Key    string // where it was read; not in the value
	Create int64

	Job       string // its name for life
	Lane      int
	Failures  int // runs that ended with an error
	Crashes   int // runs that ended with their worker
	Group     string
	Unique    string // hash of the unique key; empty for none
	AtStart   bool   // the unique key is free again once a run starts
	Enqueued  int64  // ms since 1970
	Expires   int64  // ms since 1970; 0 for never
	Attempts  int    // may fail so often; 0 for what the worker says
	Result    int64  // for how many seconds a result is kept; 0 for none
	LastError string
	Header    map[string]string
	Chunk     int // number of messages; 0 for one that is no chunk
	Payload   []byte
}

// Tags of the fields in a value. They are written in this order, and a tag that
// is not known is skipped.
const (
	tagJob = iota + 1
	tagLane
	tagFailures
	tagCrashes
	tagGroup
	tagUnique
	tagAtStart
	tagEnqueued
	tagExpires
	tagAttempts
	tagResult
	tagLastError
	tagHeader
	tagChunk
	tagPayload
)

type encoder []byte

func (e *encoder) bytes(tag byte, b string) {
	if b == "" {
		return
	}
	*e = append(*e, tag)
	*e = binary.AppendUvarint(*e, uint64(len(b)))
	*e = append(*e, b...)
}

func (e *encoder) number(tag byte, n int64) {
	if n == 0 {
		return
	}
	var b [binary.MaxVarintLen64]byte
	e.bytes(tag, string(b[:binary.PutUvarint(b[:], uint64(n))]))
}

// Encode returns the item's value.
func (it *Item) Encode() []byte {
	e := make(encoder, 0, 96+len(it.Payload))
	e = append(e, formatVersion)
	e.bytes(tagJob, it.Job)
	e.number(tagLane, int64(it.Lane))
	e.number(tagFailures, int64(it.Failures))
	e.number(tagCrashes, int64(it.Crashes))
	e.bytes(tagGroup, it.Group)
	e.bytes(tagUnique, it.Unique)
	if it.AtStart {
		e.number(tagAtStart, 1)
	}
	e.number(tagEnqueued, it.Enqueued)
	e.number(tagExpires, it.Expires)
	e.number(tagAttempts, int64(it.Attempts))
	e.number(tagResult, it.Result)
	e.bytes(tagLastError, it.LastError)
	for _, k := range slices.Sorted(maps.Keys(it.Header)) {
		e.bytes(tagHeader, k+"\x00"+it.Header[k])
	}
	e.number(tagChunk, int64(it.Chunk))
	e = append(e, tagPayload)
	e = binary.AppendUvarint(e, uint64(len(it.Payload)))
	return append(e, it.Payload...)
}

// DecodeItem reads an item.
func DecodeItem(kv KV) (*Item, error) {
	it := &Item{Key: kv.Key, Create: kv.Create}
	b := kv.Value
	if len(b) == 0 || b[0] != formatVersion {
		return it, ErrDamaged
	}
	for b = b[1:]; len(b) > 0; {
		tag := b[0]
		n, w := binary.Uvarint(b[1:])
		if w <= 0 || n > uint64(len(b)-1-w) {
			return it, ErrDamaged
		}
		field := b[1+w : 1+w+int(n)]
		b = b[1+w+int(n):]
		it.set(tag, field)
	}
	return it, nil
}

func (it *Item) set(tag byte, field []byte) {
	n, _ := binary.Uvarint(field)
	switch tag {
	case tagJob:
		it.Job = string(field)
	case tagLane:
		it.Lane = int(n)
	case tagFailures:
		it.Failures = int(n)
	case tagCrashes:
		it.Crashes = int(n)
	case tagGroup:
		it.Group = string(field)
	case tagUnique:
		it.Unique = string(field)
	case tagAtStart:
		it.AtStart = n == 1
	case tagEnqueued:
		it.Enqueued = int64(n)
	case tagExpires:
		it.Expires = int64(n)
	case tagAttempts:
		it.Attempts = int(n)
	case tagResult:
		it.Result = int64(n)
	case tagLastError:
		it.LastError = string(field)
	case tagHeader:
		if it.Header == nil {
			it.Header = make(map[string]string)
		}
		k, v, _ := strings.Cut(string(field), "\x00")
		it.Header[k] = v
	case tagChunk:
		it.Chunk = int(n)
	case tagPayload:
		it.Payload = field
	}
}

// Pack puts messages into the payload of a chunk.
func Pack(messages [][]byte) []byte {
	var out []byte
	for _, m := range messages {
		out = binary.AppendUvarint(out, uint64(len(m)))
		out = append(out, m...)
	}
	return out
}

// Part returns one message of a chunk, or the payload of an item that is none.
func (it *Item) Part(part int) ([]byte, error) {
	if it.Chunk == 0 {
		return it.Payload, nil
	}
	b := it.Payload
	for i := 0; ; i++ {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return nil, ErrDamaged
		}
		if i == part {
			return b[w : w+int(n)], nil
		}
		b = b[w+int(n):]
	}
}

// parts is how many messages the item has.
func (it *Item) parts() int { return max(1, it.Chunk) }

// part returns a message of a chunk as an item of its own.
func (it *Item) part(part int) *Item {
	one := *it
	if it.Chunk > 0 {
		one.Payload, _ = it.Part(part)
		one.Job, one.Chunk = PartID(it.Job, part), 0
	}
	return &one
}
