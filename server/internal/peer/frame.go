package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	// MaxMessageBytes bounds one encoded raft message. A larger one is dropped by the sender and refused by the receiver.
	MaxMessageBytes = 16 << 20

	checksumBytes  = 4
	frameSoftBytes = 1 << 20                // a frame takes no further message beyond this
	frameMaxBytes  = MaxMessageBytes + 1024 // one message of the largest size and its framing
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errChecksum = errors.New("frame checksum mismatch")
	errFraming  = errors.New("frame is malformed")
)

// frame is one gRPC message: a checksum and a body. It owns its buffer until it is sent or freed.
type frame struct{ buf mem.Buffer }

// body is valid until free.
func (f *frame) body() []byte { return f.buf.ReadOnlyData()[checksumBytes:] }

func (f *frame) free() {
	if f.buf != nil {
		f.buf.Free()
		f.buf = nil
	}
}

// allocate returns an empty body with room for n bytes; the checksum's place is already taken.
func allocate(n int) *[]byte {
	n += checksumBytes
	if mem.IsBelowBufferPoolingThreshold(n) {
		// gRPC's pool never gets such small buffers back, so taking one from it would only waste its size class.
		b := make([]byte, checksumBytes, n)
		return &b
	}
	b := mem.DefaultBufferPool().Get(n)
	*b = (*b)[:checksumBytes]
	return b
}

// seal turns a buffer of allocate into a frame.
func seal(b *[]byte) *frame {
	binary.LittleEndian.PutUint32(*b, crc32.Checksum((*b)[checksumBytes:], castagnoli))
	return &frame{buf: mem.NewBuffer(b, mem.DefaultBufferPool())}
}

func sealBytes(parts ...[]byte) *frame {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := allocate(n)
	for _, p := range parts {
		*b = append(*b, p...)
	}
	return seal(b)
}

// codec moves frames through gRPC without another encoding. Its errors end the stream.
type codec struct{}

var _ encoding.CodecV2 = codec{}

// Marshal gives the frame's buffer away: gRPC frees it when the bytes are sent.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("peer codec can not encode a %T", v)
	}
	b := f.buf
	f.buf = nil
	return mem.BufferSlice{b}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("peer codec can not decode into a %T", v)
	}
	if data.Len() < checksumBytes {
		return errFraming
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	b := buf.ReadOnlyData()
	if binary.LittleEndian.Uint32(b) != crc32.Checksum(b[checksumBytes:], castagnoli) {
		buf.Free()
		return errChecksum
	}
	f.buf = buf
	return nil
}

func (codec) Name() string { return "latchkey-peer" }

// encodeMessages packs a batch into one frame. The messages are read, never changed: raft and other senders read the
// same entries meanwhile (R23). sizes is scratch space.
func encodeMessages(batch []*raftpb.Message, sizes []int) (*frame, []int, error) {
	sizes, total := sizes[:0], 0
	for _, m := range batch {
		n := proto.Size(m)
		sizes = append(sizes, n)
		total += protowire.SizeVarint(uint64(n)) + n
	}
	b := allocate(total)
	options := proto.MarshalOptions{UseCachedSize: true}
	for i, m := range batch {
		*b = protowire.AppendVarint(*b, uint64(sizes[i]))
		encoded, err := options.MarshalAppend(*b, m)
		if err != nil {
			return nil, sizes, fmt.Errorf("encode %v: %w", m.GetType(), err)
		}
		*b = encoded
	}
	return seal(b), sizes, nil
}

// decodeMessages calls fn for each message of a body, in order. The messages share no memory with it.
func decodeMessages(body []byte, fn func(*raftpb.Message) error) error {
	for len(body) > 0 {
		size, n := protowire.ConsumeVarint(body)
		if n < 0 || size > uint64(len(body)-n) {
			return errFraming
		}
		m := &raftpb.Message{}
		if err := proto.Unmarshal(body[n:n+int(size)], m); err != nil {
			return fmt.Errorf("decode raft message: %w", err)
		}
		if err := fn(m); err != nil {
			return err
		}
		body = body[n+int(size):]
	}
	return nil
}
