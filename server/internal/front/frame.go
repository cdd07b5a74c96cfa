package front

import (
	"encoding/binary"
	"fmt"
)

// Frame types, flags, settings and error codes of RFC 9113.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameReset        = 0x3
	frameSettings     = 0x4
	framePush         = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	settingHeaderTable   = 0x1
	settingPush          = 0x2
	settingMaxStreams    = 0x3
	settingInitialWindow = 0x4
	settingMaxFrame      = 0x5
	settingHeaderList    = 0x6

	frameHeaderBytes   = 9
	maxFrameBytes      = 16 << 10 // what we accept, and what every client accepts
	defaultWindowBytes = 65535
	maxWindow          = 1<<31 - 1
	maxStreamID        = 1<<31 - 1
)

type errorCode uint32

const (
	codeNone         errorCode = 0x0
	codeProtocol     errorCode = 0x1
	codeInternal     errorCode = 0x2
	codeFlowControl  errorCode = 0x3
	codeStreamClosed errorCode = 0x5
	codeFrameSize    errorCode = 0x6
	codeRefused      errorCode = 0x7
	codeCancel       errorCode = 0x8
	codeCompression  errorCode = 0x9
	codeCalm         errorCode = 0xb
)

// connError ends a connection: the client gets a GOAWAY with the code.
type connError struct {
	code   errorCode
	reason string
}

func (e *connError) Error() string {
	return fmt.Sprintf("HTTP/2 error %#x: %s", uint32(e.code), e.reason)
}

func protocolError(reason string) error { return &connError{codeProtocol, reason} }

// preface is what a client says first.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

type frameHeader struct {
	length int
	kind   byte
	flags  byte
	stream uint32
}

// parseFrameHeader needs frameHeaderBytes.
func parseFrameHeader(b []byte) frameHeader {
	return frameHeader{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   b[3], flags: b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & maxStreamID,
	}
}

func appendFrameHeader(b []byte, length int, kind, flags byte, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendWindowUpdate(b []byte, stream uint32, n int64) []byte {
	b = appendFrameHeader(b, 4, frameWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func appendReset(b []byte, stream uint32, code errorCode) []byte {
	b = appendFrameHeader(b, 4, frameReset, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendGoAway(b []byte, last uint32, code errorCode, reason string) []byte {
	b = appendFrameHeader(b, 8+len(reason), frameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, reason...)
}

func appendPing(b []byte, flags byte, data []byte) []byte {
	return append(appendFrameHeader(b, len(data), framePing, flags, 0), data...)
}

func appendSetting(b []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), value)
}

// unpad removes the padding of a DATA or HEADERS frame.
func unpad(flags byte, b []byte) ([]byte, error) {
	if flags&flagPadded == 0 {
		return b, nil
	}
	if len(b) == 0 || int(b[0]) >= len(b) {
		return nil, protocolError("padding is longer than the frame")
	}
	return b[1 : len(b)-int(b[0])], nil
}
