package latchkeyv1

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields calls f with each field of an encoded message: the value of a varint, or the bytes, which are not nil then and
// are a part of b. Others are unknown, and left out. Both ends of a pipe read its messages by it, without making the structs
// that the generated code would.
func Fields(b []byte, f func(number protowire.Number, v uint64, b []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		switch {
		case n < 0:
			return protowire.ParseError(n)
		case number > protowire.MaxValidNumber:
			return errors.New("the number of a field is too large")
		}
		b = b[n:]
		var err error
		switch kind {
		case protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(b); n >= 0 {
				err = f(number, v, nil)
			}
		case protowire.BytesType:
			var field []byte
			if field, n = protowire.ConsumeBytes(b); n >= 0 {
				err = f(number, 0, field[:len(field):len(field)])
			}
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		switch {
		case n < 0:
			return protowire.ParseError(n)
		case err != nil:
			return err
		}
		b = b[n:]
	}
	return nil
}
