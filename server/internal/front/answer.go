package front

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// table is what we have put into the client's header table: the content type with the first answer, and after it the
// status of success. Nothing else ever goes there, so their indexes are known, and most answers have three bytes of
// headers. Answers are encoded in the order in which they are written.
type table struct {
	disabled      bool // the client wants a smaller one
	sizeUpdate    bool // and has to be told, with the next block, that it is empty
	content, okay bool
}

// Indexes of RFC 7541: the static table, and behind it our two entries, the newest first.
const (
	indexStatus200   = 8
	indexContentType = 31
	indexNewest      = 62

	hpackIndexed     = 0x80
	hpackIncremental = 0x40
	hpackSizeUpdate  = 0x20
	hpackNameBits4   = 0x0f
)

const contentTypeValue = "application/grpc"

// appendHead appends the header block of every answer.
func (t *table) appendHead(b []byte) []byte {
	if t.sizeUpdate {
		b = append(b, hpackSizeUpdate)
		t.sizeUpdate = false
	}
	b = append(b, hpackIndexed|indexStatus200)
	switch {
	case t.disabled:
		b = append(b, hpackNameBits4, indexContentType-hpackNameBits4)
		return appendString(b, contentTypeValue)
	case !t.content:
		t.content = true
		b = append(b, hpackIncremental|indexContentType)
		return appendString(b, contentTypeValue)
	case t.okay:
		return append(b, hpackIndexed|(indexNewest+1))
	default:
		return append(b, hpackIndexed|indexNewest)
	}
}

// appendOK appends the trailer block of a call that succeeded. The answer's head came before it.
func (t *table) appendOK(b []byte) []byte {
	switch {
	case t.disabled:
		return appendField(b, "grpc-status", "0")
	case !t.okay:
		t.okay = true
		b = append(b, hpackIncremental)
		return appendString(appendString(b, "grpc-status"), "0")
	default:
		return append(b, hpackIndexed|indexNewest)
	}
}

func appendString(b []byte, s string) []byte {
	b = appendInt(b, 0, 7, uint64(len(s)))
	return append(b, s...)
}

// appendInt appends n with a prefix of the given bits (RFC 7541, 5.1).
func appendInt(b []byte, first byte, bits int, n uint64) []byte {
	most := uint64(1)<<bits - 1
	if n < most {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// appendField appends a field that goes into no table.
func appendField(b []byte, name, value string) []byte {
	b = append(b, 0)
	return appendString(appendString(b, name), value)
}

func appendMetadata(b []byte, md metadata.MD) []byte {
	for name, values := range md {
		if reserved(name) {
			continue
		}
		for _, v := range values {
			if strings.HasSuffix(name, "-bin") {
				v = base64.RawStdEncoding.EncodeToString([]byte(v))
			}
			b = appendField(b, strings.ToLower(name), v)
		}
	}
	return b
}

// reserved names are the protocol's.
func reserved(name string) bool {
	switch name {
	case "content-type", "user-agent", "grpc-message-type", "grpc-status", "grpc-message", "grpc-status-details-bin",
		"grpc-encoding", "grpc-timeout", "te":
		return true
	}
	return strings.HasPrefix(name, ":")
}

// appendStatus appends the status of a call as trailer fields.
func (t *table) appendStatus(b []byte, st *status.Status) []byte {
	if st == statusOK {
		return t.appendOK(b)
	}
	p := st.Proto() // a copy
	if st.Code() == codes.OK && len(p.GetDetails()) == 0 {
		return t.appendOK(b)
	}
	b = appendField(b, "grpc-status", strconv.Itoa(int(st.Code())))
	if m := st.Message(); m != "" {
		b = appendField(b, "grpc-message", escape(m))
	}
	if len(p.GetDetails()) > 0 {
		if details, err := proto.Marshal(p); err == nil {
			b = appendField(b, "grpc-status-details-bin", base64.RawStdEncoding.EncodeToString(details))
		}
	}
	return b
}

// escape is the percent-encoding of grpc-message.
func escape(m string) string {
	plain := func(c byte) bool { return c >= ' ' && c <= '~' && c != '%' }
	for i := range len(m) {
		if !plain(m[i]) {
			var b strings.Builder
			for k := range len(m) {
				if plain(m[k]) {
					b.WriteByte(m[k])
				} else {
					fmt.Fprintf(&b, "%%%02X", m[k])
				}
			}
			return b.String()
		}
	}
	return m
}

// appendBlock appends a header block as frames: HEADERS, and CONTINUATION for what does not fit.
func appendBlock(b []byte, stream uint32, flags byte, block []byte, maxFrame int) []byte {
	kind := byte(frameHeaders)
	for {
		n := min(len(block), maxFrame)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		b = append(appendFrameHeader(b, n, kind, flags, stream), block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return b
		}
		kind, flags = frameContinuation, 0
	}
}

// appendRefusal answers what is no gRPC request with an HTTP status and a reason.
func (t *table) appendRefusal(b []byte, stream uint32, r *refused) []byte {
	var block []byte
	if t.sizeUpdate {
		block = append(block, hpackSizeUpdate)
		t.sizeUpdate = false
	}
	block = appendField(block, ":status", strconv.Itoa(r.http))
	block = appendField(block, "content-type", contentTypeValue)
	block = t.appendStatus(block, r.status)
	return appendBlock(b, stream, flagEndStream, block, maxFrameBytes)
}
