package front

import (
	"bytes"
	"encoding/base64"
	"log"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	maxHeaderBytes   = 64 << 10 // of one request's headers, encoded and decoded
	headerTable      = 4 << 10  // bytes of the decoder's table, HTTP/2's default
	recentHeaders    = 8        // decoded blocks that a connection remembers
	recentBlockBytes = 64       // of the largest block that it remembers
)

// header is one request's, decoded. It is immutable: requests with the same block share it.
type header struct {
	path        string
	httpMethod  string
	scheme      string
	authority   string
	contentType string
	encoding    string
	timeout     time.Duration // if timed
	timed       bool
	length      int64               // of the request's body; -1 if it does not say
	fields      []hpack.HeaderField // all others
	fault       string              // why it breaks HTTP/2; empty if it does not
	missing     bool                // a pseudo header field that a request needs is not there
	pseudo      bool                // there is one, which trailers may not have
	refused     *refused            // what is wrong by gRPC's rules; nil if nothing is
	method      *method             // nil: unknown
	web         bool                // it is none of gRPC, and Config.Web serves it
	status      *status.Status      // the answer to a call that can not be served; nil if it can
}

// refused is the answer to a request that is none of gRPC.
type refused struct {
	http   int
	status *status.Status
}

// get returns the last value of a metadata key, which is in lower case.
func (h *header) get(key string) string {
	for i := len(h.fields) - 1; i >= 0; i-- {
		if h.fields[i].Name == key {
			return h.fields[i].Value
		}
	}
	return ""
}

// metadata returns what a handler sees, as grpc-go shows it.
func (h *header) metadata() metadata.MD {
	md := metadata.MD{"content-type": {h.contentType}, ":authority": {h.authority}}
	for _, f := range h.fields {
		v := f.Value
		if strings.HasSuffix(f.Name, binarySuffix) {
			v, _ = decodeBinary(v) // finish has seen to it that it can be
		}
		md[f.Name] = append(md[f.Name], v)
	}
	return md
}

const binarySuffix = "-bin"

// decodeBinary decodes the base64 of a metadata value, padded or not.
func decodeBinary(v string) (string, error) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "="))
	return string(b), err
}

// headers decodes the header blocks of one connection, in their order.
type headers struct {
	decoder *hpack.Decoder
	server  *Server
	into    *header
	size    int  // decoded bytes of the block so far
	regular bool // a regular field was seen
	recent  []recentHeader
	next    int // the oldest of recent
}

// recentHeader remembers a block of which each byte is the index of a field in the table. Such a block means the same
// until the table changes, and changes nothing itself: clients repeat it with each call of a method.
type recentHeader struct {
	block  []byte
	header *header
}

func newHeaders(s *Server) *headers {
	h := &headers{server: s}
	h.decoder = hpack.NewDecoder(headerTable, h.emit)
	h.decoder.SetMaxStringLength(maxHeaderBytes)
	return h
}

// decode decodes one complete block.
func (d *headers) decode(block []byte) (*header, error) {
	plain := indexesOnly(block)
	switch {
	case plain && len(block) <= recentBlockBytes:
		for i := range d.recent {
			if bytes.Equal(d.recent[i].block, block) {
				return d.recent[i].header, nil
			}
		}
	case !plain: // the table may change
		clear(d.recent)
		d.recent, d.next = d.recent[:0], 0
	}
	d.into, d.size, d.regular = &header{length: -1}, 0, false
	if _, err := d.decoder.Write(block); err != nil {
		return nil, &connError{codeCompression, err.Error()}
	}
	if err := d.decoder.Close(); err != nil {
		return nil, &connError{codeCompression, err.Error()}
	}
	h := d.into
	d.into = nil
	d.server.judge(h)
	if plain && len(block) <= recentBlockBytes {
		d.remember(block, h)
	}
	return h, nil
}

func (d *headers) remember(block []byte, h *header) {
	r := recentHeader{slices.Clone(block), h}
	if len(d.recent) < recentHeaders {
		d.recent = append(d.recent, r)
		return
	}
	d.recent[d.next] = r
	d.next = (d.next + 1) % recentHeaders
}

// indexesOnly reports whether each byte is a whole indexed field (RFC 7541, 6.1).
func indexesOnly(block []byte) bool {
	for _, b := range block {
		if b < 0x80 || b == 0xff {
			return false
		}
	}
	return true
}

func (d *headers) emit(f hpack.HeaderField) {
	h := d.into
	d.size += len(f.Name) + len(f.Value) + 32
	if d.size > maxHeaderBytes {
		h.fields, h.fault = nil, "headers are too large"
		return
	}
	if strings.HasPrefix(f.Name, ":") {
		h.pseudo = true
		if d.server.traced {
			log.Printf("http2: decoded hpack field header field %q = %q", f.Name, f.Value)
		}
		d.pseudo(f)
		return
	}
	d.regular = true
	if !validField(f) {
		h.fault = "a header field has characters that it may not have"
	}
	switch f.Name {
	case "content-type":
		h.contentType = f.Value
	case "content-length":
		n, err := strconv.ParseUint(f.Value, 10, 62)
		if h.length = int64(n); err != nil {
			h.fault = "content-length is no number"
		}
	case "grpc-timeout":
		var ok bool
		if h.timeout, ok = parseTimeout(f.Value); !ok {
			h.refuse(http.StatusBadRequest, codes.Internal, "malformed grpc-timeout: %q", f.Value)
		}
		h.timed = true
	case "grpc-encoding":
		h.encoding = f.Value
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		h.fault = "a header field of connections"
	case "te":
		if f.Value != "trailers" {
			h.fault = "te must be trailers"
		}
	case "grpc-message-type", "grpc-message", "grpc-status": // the protocol's
	default:
		if strings.HasSuffix(f.Name, binarySuffix) {
			if _, err := decodeBinary(f.Value); err != nil {
				h.refuse(http.StatusBadRequest, codes.Internal, "malformed binary metadata %q in header %q: %v", f.Value, f.Name, err)
			}
		}
		h.fields = append(h.fields, f)
	}
}

// validField checks a field by RFC 9113, 8.2.1: names are in lower case, and neither can end a line.
func validField(f hpack.HeaderField) bool {
	for i := range len(f.Name) {
		if c := f.Name[i]; c <= ' ' || c >= 0x7f || c == ':' || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return f.Name != "" && validValue(f.Value)
}

func validValue(v string) bool {
	for i := range len(v) {
		if c := v[i]; c == 0 || c == '\r' || c == '\n' {
			return false
		}
	}
	return true
}

func (d *headers) pseudo(f hpack.HeaderField) {
	h := d.into
	var to *string
	switch f.Name {
	case ":path":
		to = &h.path
	case ":method":
		to = &h.httpMethod
	case ":scheme":
		to = &h.scheme
	case ":authority":
		to = &h.authority
	default:
		h.fault = "an unknown pseudo header field"
		return
	}
	switch {
	case d.regular:
		h.fault = "a pseudo header field after others"
	case *to != "":
		h.fault = "a pseudo header field twice"
	case !validValue(f.Value):
		h.fault = "a pseudo header field has characters that it may not have"
	}
	*to = f.Value
}

// refuse keeps the first reason.
func (h *header) refuse(httpStatus int, code codes.Code, format string, args ...any) {
	if h.refused == nil {
		h.refused = &refused{httpStatus, status.Newf(code, format, args...)}
	}
}

// judge decides what is to be done with a request, as grpc-go's server does.
func (s *Server) judge(h *header) {
	h.missing = h.path == "" || h.httpMethod == "" || h.scheme == ""
	if h.authority == "" {
		h.authority = h.get("host")
	}
	h.fields = slices.DeleteFunc(h.fields, func(f hpack.HeaderField) bool { return f.Name == "host" })
	malformed := h.refused
	h.refused = nil
	if s.cfg.Web != nil && !h.isGRPC() {
		h.web = true
		return
	}
	switch {
	case !h.isGRPC():
		h.refuse(http.StatusUnsupportedMediaType, codes.InvalidArgument, "invalid gRPC request content-type %q", h.contentType)
	case malformed != nil:
		h.refused = malformed
	case h.authority == "":
		h.refuse(http.StatusBadRequest, codes.Internal, "no host or :authority header present")
	case h.httpMethod != http.MethodPost:
		h.refuse(http.StatusMethodNotAllowed, codes.Internal, "Received a HEADERS frame with :method %q which should be POST", h.httpMethod)
	}
	h.method = s.methods[h.path]
	switch known := h.encoding == "" || h.encoding == encoding.Identity || encoding.GetCompressor(h.encoding) != nil; {
	case h.method == nil:
		h.status = s.unknown(h.path)
	case !known:
		h.status = status.Newf(codes.Unimplemented, "grpc: Decompressor is not installed for grpc-encoding %q", h.encoding)
	}
}

func (s *Server) unknown(path string) *status.Status {
	service, name, ok := splitPath(path)
	switch {
	case !ok:
		return status.Newf(codes.Unimplemented, "malformed method name: %q", path)
	case !s.services[service]:
		return status.Newf(codes.Unimplemented, "unknown service %v", service)
	}
	return status.Newf(codes.Unimplemented, "unknown method %v for service %v", name, service)
}

// splitPath divides "/service/method".
func splitPath(path string) (service, name string, ok bool) {
	path, ok = strings.CutPrefix(path, "/")
	i := strings.LastIndexByte(path, '/')
	if !ok || i < 0 {
		return "", "", false
	}
	return path[:i], path[i+1:], true
}

// isGRPC tells by the content type, as grpc-go does.
func (h *header) isGRPC() bool {
	rest, ok := strings.CutPrefix(h.contentType, contentTypeValue)
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// parseTimeout parses grpc-timeout: up to eight digits and a unit.
func parseTimeout(v string) (d time.Duration, ok bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	if n > uint64(math.MaxInt64/unit) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, true
}
