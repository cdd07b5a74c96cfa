package rpc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/internal/codec"
	"github.com/latchkey-go/latchkey/internal/codec/codecgrpc"
	"github.com/latchkey-go/latchkey/server/internal/front"
)

// encodedMessage is a message that has its wire format already. The buffers are shared and are not written to.
type encodedMessage interface {
	encoded() mem.BufferSlice
}

// sharingCodec sends encoded messages as they are, and encodes all others as protobuf does.
type sharingCodec struct{ encoding.CodecV2 }

// Codec returns the codec that the server of the client API must be given with grpc.ForceServerCodecV2: the watch
// service sends events that were encoded once for all watchers. All other messages are protobuf as ever.
func Codec() encoding.CodecV2 {
	return sharingCodec{codecgrpc.New()}
}

// Marshal implements encoding.CodecV2.
func (c sharingCodec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(encodedMessage); ok {
		return m.encoded(), nil
	}
	return c.CodecV2.Marshal(v)
}

// Encoder returns what encodes the answers of calls that are answered directly.
func Encoder() front.Encoder { return encoder{} }

type encoder struct{}

func (encoder) Size(m proto.Message) int { return codec.Size(m) }

func (encoder) AppendSized(b []byte, m proto.Message, size int) ([]byte, error) {
	return codec.AppendSized(b, m, size)
}
