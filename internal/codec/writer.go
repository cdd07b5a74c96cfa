package codec

import (
	"math/bits"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// The wire types of fields, in the low bits of their tags.
const (
	varintType = 0
	bytesType  = 2
)

// A message is written from its end to its beginning: so the length of a nested message, which stands in front of it, is
// known when it is needed, and no length is computed twice. Each function below writes at the end of b and returns b
// without what it wrote. A tag is a byte: no hot field but one has a larger number than 15.

func sizeVarint(v uint64) int { return (9*bits.Len64(v) + 64) / 64 }

func writeVarint(b []byte, v uint64) []byte {
	if v < 0x80 {
		n := len(b) - 1
		b[n] = byte(v)
		return b[:n]
	}
	n := len(b) - sizeVarint(v)
	rest := b[:n]
	for ; v >= 0x80; n++ {
		b[n] = byte(v) | 0x80
		v >>= 7
	}
	b[n] = byte(v)
	return rest
}

func writeTag(b []byte, tag byte) []byte {
	n := len(b) - 1
	b[n] = tag
	return b[:n]
}

// sizeInt is the size of an integer, which is left out when it is zero.
func sizeInt[T ~int64 | ~uint64 | ~int32](v T) int {
	if v == 0 {
		return 0
	}
	return 1 + sizeVarint(uint64(v))
}

func writeInt[T ~int64 | ~uint64 | ~int32](b []byte, tag byte, v T) []byte {
	if v == 0 {
		return b
	}
	return writeTag(writeVarint(b, uint64(v)), tag)
}

func sizeBool(v bool) int {
	if v {
		return 2
	}
	return 0
}

func writeBool(b []byte, tag byte, v bool) []byte {
	if !v {
		return b
	}
	return writeTag(writeTag(b, 1), tag)
}

// sizeLength is the size of a field of n bytes.
func sizeLength(n int) int { return 1 + sizeVarint(uint64(n)) + n }

// sizeBytes is the size of a string of bytes, which is left out when it is empty.
func sizeBytes[T []byte | string](v T) int {
	if len(v) == 0 {
		return 0
	}
	return sizeLength(len(v))
}

func writeBytes[T []byte | string](b []byte, tag byte, v T) []byte {
	if len(v) == 0 {
		return b
	}
	return writeAll(b, tag, v)
}

// writeAll is writeBytes for a field that is written even when it is empty.
func writeAll[T []byte | string](b []byte, tag byte, v T) []byte {
	n := len(b) - len(v)
	copy(b[n:], v)
	return writeTag(writeVarint(b[:n], uint64(len(v))), tag)
}

// sizeMessage is the size of a nested message, which is left out when it is nil.
func sizeMessage[T any](m *T, size func(*T) int) int {
	if m == nil {
		return 0
	}
	return sizeLength(size(m))
}

func writeMessage[T any](b []byte, tag byte, m *T, write func([]byte, *T) []byte) []byte {
	if m == nil {
		return b
	}
	return writeNested(b, tag, m, write)
}

// writeNested is writeMessage for a message that is written even when it is nil, which is an empty one.
func writeNested[T any](b []byte, tag byte, m *T, write func([]byte, *T) []byte) []byte {
	end := len(b)
	b = write(b, m)
	return writeTag(writeVarint(b, uint64(end-len(b))), tag)
}

func sizeMessages[T any](list []*T, size func(*T) int) int {
	n := 0
	for _, m := range list {
		n += sizeLength(size(m))
	}
	return n
}

func writeMessages[T any](b []byte, tag byte, list []*T, write func([]byte, *T) []byte) []byte {
	for i := len(list) - 1; i >= 0; i-- {
		b = writeNested(b, tag, list[i], write)
	}
	return b
}

// sizeUnknown and writeUnknown are for the fields that a message has brought from a later version of the API. They stand
// behind all others.
func sizeUnknown(m protoreflect.Message) int { return len(m.GetUnknown()) }

func writeUnknown(b []byte, m protoreflect.Message) []byte {
	u := m.GetUnknown()
	n := len(b) - len(u)
	copy(b[n:], u)
	return b[:n]
}
