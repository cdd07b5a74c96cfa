// Package codecgrpc is package codec as gRPC takes it.
package codecgrpc

import (
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/internal/codec"
)

// wire encodes what is a protobuf message; whatever else programs may send is its CodecV2's to judge.
type wire struct{ encoding.CodecV2 }

// New returns a codec that sends and receives the same bytes as gRPC's own for protobuf, and has its name.
func New() encoding.CodecV2 { return wire{encoding.GetCodecV2(grpcproto.Name)} }

// Marshal implements encoding.CodecV2. As in gRPC's own codec, large buffers come from its pool.
func (w wire) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return w.CodecV2.Marshal(v)
	}
	size := codec.Size(m)
	if mem.IsBelowBufferPoolingThreshold(size) {
		b, err := codec.AppendSized(make([]byte, 0, size), m, size)
		if err != nil {
			return nil, err
		}
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(size)
	b, err := codec.AppendSized((*buf)[:0], m, size)
	if err != nil {
		pool.Put(buf)
		return nil, err
	}
	*buf = b
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (w wire) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return w.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return codec.Unmarshal(buf.ReadOnlyData(), m)
}
