package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	// MaxMessageBytes bounds one encoded raft message. A larger one is dropped by the sender and refused by the receiver.
	MaxMessageBytes = 16 << 20

	headerBytes    = 16
	frameSoftBytes = 1 << 20                // a frame takes no further message beyond this
	frameMaxBytes  = MaxMessageBytes + 1024 // the body with one message of the largest size and its length
	reasonMaxBytes = 1 << 10                // of a text that tells why
	helloBytes     = 25
	callIDBytes    = 8
	sizeBytes      = 8
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errChecksum = errors.New("frame checksum mismatch")
	errFraming  = errors.New("frame is malformed")
)

// frameKind tells what a frame's body is; see the wire format in the package comment.
type frameKind byte

const (
	frameHello frameKind = 1 + iota
	frameRefusal
	frameMessages
	framePulse
	frameQuestion
	frameAnswer
	frameCancel
	frameHead
	frameData
	frameEnd
	frameDone
	frameExpelled
	frameMembers
)

// bodyMax bounds the body of each kind.
var bodyMax = [...]int{
	frameHello:    helloBytes,
	frameRefusal:  reasonMaxBytes,
	frameMessages: frameMaxBytes,
	framePulse:    0,
	frameQuestion: callIDBytes + 1 + maxCallBytes,
	frameAnswer:   callIDBytes + 1 + maxCallBytes,
	frameCancel:   callIDBytes,
	frameHead:     sizeBytes + frameSoftBytes,
	frameData:     chunkBytes,
	frameEnd:      sizeBytes + 32,
	frameDone:     0,
	frameExpelled: 0,
	frameMembers:  maxCallBytes,
}

// begin makes room for the header at the start of a buffer that is used again.
func begin(b []byte) []byte {
	return append(b[:0], make([]byte, headerBytes)...)
}

// seal fills in the header of b, which began with begin.
func seal(b []byte, kind frameKind) []byte {
	putHeader(b, len(b)-headerBytes, kind, crc32.Checksum(b[headerBytes:], castagnoli))
	return b
}

func putHeader(b []byte, length int, kind frameKind, sum uint32) {
	binary.LittleEndian.PutUint32(b, uint32(length))
	binary.LittleEndian.PutUint32(b[4:], uint32(kind))
	binary.LittleEndian.PutUint32(b[8:], sum)
	binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
}

// sealed makes a frame of parts.
func sealed(kind frameKind, parts ...[]byte) []byte {
	n := headerBytes
	for _, p := range parts {
		n += len(p)
	}
	b := begin(make([]byte, 0, n))
	for _, p := range parts {
		b = append(b, p...)
	}
	return seal(b, kind)
}

// parseHeader believes a length only after its checksum and its bound.
func parseHeader(h []byte, limit int) (kind frameKind, length int, sum uint32, err error) {
	if binary.LittleEndian.Uint32(h[12:]) != crc32.Checksum(h[:12], castagnoli) {
		return 0, 0, 0, errChecksum
	}
	k, n := binary.LittleEndian.Uint32(h[4:]), binary.LittleEndian.Uint32(h)
	if k == 0 || k >= uint32(len(bodyMax)) {
		return 0, 0, 0, fmt.Errorf("%w: kind %d", errFraming, k)
	}
	if n > uint32(min(limit, bodyMax[k])) {
		return 0, 0, 0, fmt.Errorf("%w: kind %d with %d bytes", errFraming, k, n)
	}
	return frameKind(k), int(n), binary.LittleEndian.Uint32(h[8:]), nil
}

// encodeMessages packs a batch into one frame, in the memory of b. The messages are read, never changed: raft and other
// senders read the same entries meanwhile (R23). sizes is scratch space.
func encodeMessages(b []byte, batch []*raftpb.Message, sizes []int) (frame []byte, _ []int, _ error) {
	sizes, total := sizes[:0], headerBytes
	for _, m := range batch {
		n := proto.Size(m)
		sizes = append(sizes, n)
		total += protowire.SizeVarint(uint64(n)) + n
	}
	if cap(b) < total {
		b = make([]byte, 0, total)
	}
	b = begin(b)
	options := proto.MarshalOptions{UseCachedSize: true}
	for i, m := range batch {
		b = protowire.AppendVarint(b, uint64(sizes[i]))
		encoded, err := options.MarshalAppend(b, m)
		if err != nil {
			return nil, sizes, fmt.Errorf("encode %v: %w", m.GetType(), err)
		}
		b = encoded
	}
	return seal(b, frameMessages), sizes, nil
}

// decodeMessages appends the messages of a body to ms, in order. They share no memory with it.
func decodeMessages(body []byte, ms []*raftpb.Message) ([]*raftpb.Message, error) {
	for len(body) > 0 {
		size, n := protowire.ConsumeVarint(body)
		if n < 0 || size > uint64(len(body)-n) {
			return ms, errFraming
		}
		m := &raftpb.Message{}
		if err := proto.Unmarshal(body[n:n+int(size)], m); err != nil {
			return ms, fmt.Errorf("decode raft message: %w", err)
		}
		ms = append(ms, m)
		body = body[n+int(size):]
	}
	return ms, nil
}
