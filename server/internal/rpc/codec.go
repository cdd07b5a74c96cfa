package rpc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// encodedMessage is a message that has its wire format already. The buffers are shared and are not written to.
type encodedMessage interface {
	encoded() mem.BufferSlice
}

// codec sends encoded messages as they are, and leaves all others to protobuf.
type codec struct{ encoding.CodecV2 }

// Codec returns the codec that the server of the client API must be given with grpc.ForceServerCodecV2: the watch
// service sends events that were encoded once for all watchers. All other messages are protobuf as ever.
func Codec() encoding.CodecV2 {
	return codec{encoding.GetCodecV2(proto.Name)}
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(encodedMessage); ok {
		return m.encoded(), nil
	}
	return c.CodecV2.Marshal(v)
}
