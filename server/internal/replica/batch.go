package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// Batch is what one log entry carries: the commands that were packed together, and the header that decides whether
// they count.
type Batch struct {
	Origin   uint64 // one start of one member
	Sequence uint64 // increases by one a batch of that origin
	Term     uint64 // the proposer's term; the batch counts only in an entry of this term
	Commands [][]byte
}

// batchFormat is the first byte of an encoded batch. Another layout takes another byte, and may be proposed only when
// all members know it.
const batchFormat = 1

// minBatchLen is the length of the shortest encoding: format, origin, and one byte each for sequence, term and count.
const minBatchLen = 1 + 8 + 1 + 1 + 1

// ErrBadBatch says that bytes are not an encoded batch.
var ErrBadBatch = errors.New("replica: malformed batch")

// EncodeBatch returns b as the payload of a log entry:
//
//	format byte | origin, 8 bytes little endian | sequence | term | count | count times: length, command
//
// where numbers without a width are unsigned varints.
func EncodeBatch(b Batch) []byte {
	buf := make([]byte, 0, batchHeaderSize(b.Sequence, b.Term, len(b.Commands))+commandsSize(b.Commands))
	buf = appendBatchHeader(buf, b.Origin, b.Sequence, b.Term, len(b.Commands))
	for _, c := range b.Commands {
		buf = appendCommand(buf, c)
	}
	return buf
}

// DecodeBatch is the inverse of [EncodeBatch]. The commands share memory with buf. It accepts exactly the encodings
// that EncodeBatch makes, and never panics; every error wraps [ErrBadBatch].
func DecodeBatch(buf []byte) (Batch, error) {
	b, count, rest, err := decodeBatchHeader(buf)
	if err != nil {
		return Batch{}, err
	}
	b.Commands = make([][]byte, count)
	for i := range b.Commands {
		if b.Commands[i], rest, err = decodeCommand(rest); err != nil {
			return Batch{}, fmt.Errorf("command %d of %d: %w", i, count, err)
		}
	}
	if len(rest) > 0 {
		return Batch{}, fmt.Errorf("%w: %d bytes after the last command", ErrBadBatch, len(rest))
	}
	return b, nil
}

// checkBatch is DecodeBatch without the commands, for a leader that only passes them on.
func checkBatch(buf []byte) (Batch, error) {
	b, count, rest, err := decodeBatchHeader(buf)
	for i := uint64(0); i < count && err == nil; i++ {
		_, rest, err = decodeCommand(rest)
	}
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes after the last command", ErrBadBatch, len(rest))
	}
	return b, err
}

func decodeCommand(b []byte) (command, rest []byte, err error) {
	n, rest, err := uvarint(b)
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(rest)) {
		return nil, nil, fmt.Errorf("%w: %d bytes of %d", ErrBadBatch, len(rest), n)
	}
	return rest[:n:n], rest[n:], nil
}

func decodeBatchHeader(buf []byte) (b Batch, count uint64, rest []byte, err error) {
	if len(buf) < minBatchLen {
		return Batch{}, 0, nil, fmt.Errorf("%w: %d bytes", ErrBadBatch, len(buf))
	}
	if buf[0] != batchFormat {
		return Batch{}, 0, nil, fmt.Errorf("%w: format %d", ErrBadBatch, buf[0])
	}
	b.Origin = binary.LittleEndian.Uint64(buf[1:])
	rest = buf[9:]
	for _, field := range []*uint64{&b.Sequence, &b.Term, &count} {
		if *field, rest, err = uvarint(rest); err != nil {
			return Batch{}, 0, nil, fmt.Errorf("%w: header", err)
		}
	}
	// A command takes a byte at least, so this bounds what a false count can make the caller allocate.
	if count > uint64(len(rest)) {
		return Batch{}, 0, nil, fmt.Errorf("%w: %d commands in %d bytes", ErrBadBatch, count, len(rest))
	}
	return b, count, rest, nil
}

// commandsIn is how many commands e carries. A change of members has none.
func commandsIn(e *raftpb.Entry) int {
	if e.GetType() != raftpb.EntryNormal {
		return 0
	}
	_, n, _, err := decodeBatchHeader(e.GetData())
	if err != nil {
		return 0
	}
	return int(n)
}

// uvarint reads one varint, in its shortest form only, so that a batch has one encoding.
func uvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, nil, fmt.Errorf("%w: bad varint", ErrBadBatch)
	}
	return v, b[n:], nil
}

func appendBatchHeader(buf []byte, origin, sequence, term uint64, count int) []byte {
	buf = append(buf, batchFormat)
	buf = binary.LittleEndian.AppendUint64(buf, origin)
	buf = binary.AppendUvarint(buf, sequence)
	buf = binary.AppendUvarint(buf, term)
	return binary.AppendUvarint(buf, uint64(count))
}

func appendCommand(buf, c []byte) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(c)))
	return append(buf, c...)
}

func batchHeaderSize(sequence, term uint64, count int) int {
	return 1 + 8 + uvarintSize(sequence) + uvarintSize(term) + uvarintSize(uint64(count))
}

func commandsSize(commands [][]byte) int {
	n := 0
	for _, c := range commands {
		n += commandSize(c)
	}
	return n
}

func commandSize(c []byte) int { return uvarintSize(uint64(len(c))) + len(c) }

func uvarintSize(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
