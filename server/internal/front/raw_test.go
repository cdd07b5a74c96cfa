package front

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
)

// raw is a client that says whatever a test wants.
type raw struct {
	t testing.TB
	net.Conn
	*http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	replies map[uint32]*reply // by stream, of those that nobody asked for yet
}

// dialRaw connects and greets.
func dialRaw(t testing.TB, addr string, settings ...http2.Setting) *raw {
	c := connectRaw(t, addr)
	_, err := io.WriteString(c.Conn, preface)
	require.NoError(t, err)
	require.NoError(t, c.WriteSettings(settings...))
	return c
}

func connectRaw(t testing.TB, addr string) *raw {
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	if overTLS(t) {
		nc = tls.Client(nc, clientTLS())
	}
	return overConn(t, nc)
}

func overConn(t testing.TB, nc net.Conn) *raw {
	t.Cleanup(func() { _ = nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(testTimeout)))
	c := &raw{t: t, Conn: nc, Framer: http2.NewFramer(nc, nc)}
	c.AllowIllegalWrites, c.AllowIllegalReads = true, true
	c.encoder = hpack.NewEncoder(&c.block)
	c.decoder = hpack.NewDecoder(4096, nil)
	return c
}

var unaryFields = []string{":method", "POST", ":scheme", "http", ":path", pb.TestService_UnaryCall_FullMethodName, ":authority", "x", "content-type", contentTypeValue, "te", "trailers"}

const duplexPath = pb.TestService_FullDuplexCall_FullMethodName

func (c *raw) encode(fields ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		require.NoError(c.t, c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(c.block.Bytes())
}

func (c *raw) headers(stream uint32, end bool, fields ...string) {
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.encode(fields...), EndStream: end, EndHeaders: true}))
}

// request begins a call of the unary method, with more fields, or ends it too.
func (c *raw) request(stream uint32, whole bool, more ...string) {
	c.headers(stream, false, append(unaryFields[:len(unaryFields):len(unaryFields)], more...)...)
	if whole {
		c.must(c.WriteData(stream, true, message(&pb.SimpleRequest{})))
	}
}

func (c *raw) duplex(stream uint32) {
	f := append([]string(nil), unaryFields...)
	f[5] = duplexPath
	c.headers(stream, false, f...)
}

// must does not fail the test: a server may have hung up while a test still writes, which its end shows.
func (c *raw) must(err error) {
	var op *net.OpError
	if err != nil && !errors.As(err, &op) {
		require.NoError(c.t, err)
	}
}

func message(m proto.Message) []byte {
	b, err := appendMessage(nil, protobufEncoder{}, m, proto.Size(m))
	if err != nil {
		panic(err)
	}
	return b
}

// reply is what came on a stream.
type reply struct {
	fields map[string]string
	size   int
	ended  bool
}

// answer reads until a stream has ended, and returns its fields; "reset" is one for RST_STREAM, "bytes" counts DATA. What
// comes on other streams meanwhile is kept for them: calls need not be answered in their order.
func (c *raw) answer(stream uint32) map[string]string {
	for {
		if r := c.replyOn(stream); r.ended {
			delete(c.replies, stream)
			r.fields["bytes"] = fmt.Sprint(r.size)
			return r.fields
		}
		f, err := c.ReadFrame()
		require.NoError(c.t, err)
		switch f := f.(type) {
		case *http2.HeadersFrame:
			require.True(c.t, f.HeadersEnded())
			fields, err := c.decoder.DecodeFull(f.HeaderBlockFragment())
			require.NoError(c.t, err)
			r := c.replyOn(f.StreamID)
			for _, hf := range fields {
				r.fields[hf.Name] = hf.Value
			}
			r.ended = f.StreamEnded()
		case *http2.DataFrame:
			c.replyOn(f.StreamID).size += len(f.Data())
		case *http2.RSTStreamFrame:
			r := c.replyOn(f.StreamID)
			r.fields["reset"], r.ended = f.ErrCode.String(), true
		case *http2.GoAwayFrame:
			require.Fail(c.t, "the connection ends", "%v %s", f.ErrCode, f.DebugData())
		}
	}
}

func (c *raw) replyOn(stream uint32) *reply {
	r := c.replies[stream]
	if r == nil {
		r = &reply{fields: make(map[string]string)}
		if c.replies == nil {
			c.replies = make(map[uint32]*reply)
		}
		c.replies[stream] = r
	}
	return r
}

// goaway reads until the connection is over, and returns the code that the server gave for it.
func (c *raw) goaway() string {
	code := "none"
	for {
		f, err := c.ReadFrame()
		if err != nil {
			var timeout net.Error
			require.False(c.t, errors.As(err, &timeout) && timeout.Timeout(), "the connection goes on")
			return code
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			code = g.ErrCode.String()
		}
	}
}

// served shows that the connection is well.
func (c *raw) served(stream uint32) {
	c.request(stream, true)
	require.Equal(c.t, "0", c.answer(stream)["grpc-status"])
}

// TestConnectionErrors: each ends its connection with the code that RFC 9113 names, and no other connection.
func TestConnectionErrors(t *testing.T) {
	cases := map[string]struct {
		code string
		do   func(c *raw)
	}{
		"frame too large":           {"FRAME_SIZE_ERROR", func(c *raw) { c.must(c.WriteRawFrame(0xee, 0, 0, make([]byte, maxFrameBytes+1))) }},
		"SETTINGS on a stream":      {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteRawFrame(frameSettings, 0, 1, nil)) }},
		"SETTINGS of five bytes":    {"FRAME_SIZE_ERROR", func(c *raw) { c.must(c.WriteRawFrame(frameSettings, 0, 0, make([]byte, 5))) }},
		"SETTINGS ACK with content": {"FRAME_SIZE_ERROR", func(c *raw) { c.must(c.WriteRawFrame(frameSettings, flagAck, 0, make([]byte, 6))) }},
		"ENABLE_PUSH 2":             {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteSettings(http2.Setting{ID: settingPush, Val: 2})) }},
		"MAX_FRAME_SIZE small":      {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteSettings(http2.Setting{ID: settingMaxFrame, Val: 100})) }},
		"MAX_FRAME_SIZE large":      {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteSettings(http2.Setting{ID: settingMaxFrame, Val: 1 << 24})) }},
		"INITIAL_WINDOW_SIZE large": {"FLOW_CONTROL_ERROR", func(c *raw) { c.must(c.WriteSettings(http2.Setting{ID: settingInitialWindow, Val: 1 << 31})) }},
		"window overflow by SETTINGS": {"FLOW_CONTROL_ERROR", func(c *raw) {
			c.request(1, false)
			c.must(c.WriteWindowUpdate(1, 1<<30))
			c.must(c.WriteSettings(http2.Setting{ID: settingInitialWindow, Val: maxWindow}))
		}},
		"window of the connection":     {"FLOW_CONTROL_ERROR", func(c *raw) { c.must(c.WriteWindowUpdate(0, maxWindow)) }},
		"WINDOW_UPDATE by 0":           {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteWindowUpdate(0, 0)) }},
		"WINDOW_UPDATE of three bytes": {"FRAME_SIZE_ERROR", func(c *raw) { c.must(c.WriteRawFrame(frameWindowUpdate, 0, 0, make([]byte, 3))) }},
		"WINDOW_UPDATE, idle":          {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteWindowUpdate(1, 1)) }},
		"PING on a stream":             {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteRawFrame(framePing, 0, 1, make([]byte, 8))) }},
		"PING of seven bytes":          {"FRAME_SIZE_ERROR", func(c *raw) { c.must(c.WriteRawFrame(framePing, 0, 0, make([]byte, 7))) }},
		"PING flood":                   {"ENHANCE_YOUR_CALM", func(c *raw) { pingTimes(c, 10) }},
		"PUSH_PROMISE":                 {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteRawFrame(framePush, flagEndHeaders, 1, make([]byte, 4))) }},
		"GOAWAY on a stream":           {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteRawFrame(frameGoAway, 0, 1, make([]byte, 8))) }},
		"GOAWAY of four bytes":         {"FRAME_SIZE_ERROR", func(c *raw) { c.must(c.WriteRawFrame(frameGoAway, 0, 0, make([]byte, 4))) }},
		"RST_STREAM, idle":             {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteRSTStream(1, 0)) }},
		"RST_STREAM, even":             {"PROTOCOL_ERROR", func(c *raw) { c.request(3, false); c.must(c.WriteRSTStream(2, 0)) }},
		"RST_STREAM on none":           {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteRSTStream(0, 0)) }},
		"RST_STREAM of three bytes":    {"FRAME_SIZE_ERROR", func(c *raw) { c.request(1, false); c.must(c.WriteRawFrame(frameReset, 0, 1, make([]byte, 3))) }},
		"PRIORITY on none":             {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteRawFrame(framePriority, 0, 0, make([]byte, 5))) }},
		"PRIORITY of four bytes, idle": {"FRAME_SIZE_ERROR", func(c *raw) { c.must(c.WriteRawFrame(framePriority, 0, 1, make([]byte, 4))) }},
		"DATA on none":                 {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteData(0, false, []byte("x"))) }},
		"DATA, idle":                   {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteData(1, false, []byte("x"))) }},
		"DATA padding":                 {"PROTOCOL_ERROR", func(c *raw) { c.request(1, false); c.must(c.WriteRawFrame(frameData, flagPadded, 1, []byte{5, 0, 0})) }},
		"DATA without its padding":     {"PROTOCOL_ERROR", func(c *raw) { c.request(1, false); c.must(c.WriteRawFrame(frameData, flagPadded, 1, nil)) }},
		"HEADERS on none":              {"PROTOCOL_ERROR", func(c *raw) { c.request(0, false) }},
		"HEADERS, even":                {"PROTOCOL_ERROR", func(c *raw) { c.request(2, false) }},
		"HEADERS, old":                 {"STREAM_CLOSED", func(c *raw) { c.request(3, false); c.request(1, false) }},
		"HEADERS padding":              {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteRawFrame(frameHeaders, flagPadded|flagEndHeaders, 1, []byte{9, 0})) }},
		"HEADERS, half a priority":     {"FRAME_SIZE_ERROR", func(c *raw) { c.must(c.WriteRawFrame(frameHeaders, flagPriority|flagEndHeaders, 1, make([]byte, 4))) }},
		"HEADERS on itself": {"PROTOCOL_ERROR", func(c *raw) {
			c.must(c.WriteRawFrame(frameHeaders, flagPriority|flagEndHeaders, 1, []byte{0, 0, 0, 1, 0}))
		}},
		"HPACK":                     {"COMPRESSION_ERROR", func(c *raw) { c.must(c.WriteRawFrame(frameHeaders, flagEndHeaders, 1, []byte{0xff, 0xff, 0xff, 0x7f})) }},
		"HPACK, cut":                {"COMPRESSION_ERROR", func(c *raw) { c.must(c.WriteRawFrame(frameHeaders, flagEndHeaders, 1, []byte{0x40, 10, 'a'})) }},
		"CONTINUATION alone":        {"PROTOCOL_ERROR", func(c *raw) { c.must(c.WriteContinuation(1, true, nil)) }},
		"CONTINUATION of another":   {"PROTOCOL_ERROR", func(c *raw) { c.part(1); c.must(c.WriteContinuation(3, true, nil)) }},
		"PING in a header block":    {"PROTOCOL_ERROR", func(c *raw) { c.part(1); c.must(c.WritePing(false, [8]byte{})) }},
		"unknown in a header block": {"PROTOCOL_ERROR", func(c *raw) { c.part(1); c.must(c.WriteRawFrame(0xee, 0, 1, nil)) }},
		"CONTINUATION flood": {"ENHANCE_YOUR_CALM", func(c *raw) {
			c.part(1)
			repeat(1000, func(int) { c.must(c.WriteContinuation(1, false, make([]byte, 1000))) })
		}},
		"CONTINUATION flood of none": {"ENHANCE_YOUR_CALM", func(c *raw) { c.part(1); repeat(1000, func(int) { c.must(c.WriteContinuation(1, false, nil)) }) }},
		"window changes": {"ENHANCE_YOUR_CALM", func(c *raw) {
			repeat(2*windowChangesMax, func(i int) { c.must(c.WriteSettings(http2.Setting{ID: settingInitialWindow, Val: uint32(i + 1)})) })
		}},
	}
	r := newRig(t, func(c *Config) { c.MinPingInterval = time.Hour })
	other := dialRaw(t, r.addr)
	stream := uint32(1)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			raw := dialRaw(t, r.addr)
			c.do(raw)
			require.Equal(t, c.code, raw.goaway())
			other.t = t
			other.served(stream)
			stream += 2
		})
	}
}

func repeat(n int, do func(i int)) {
	for i := range n {
		do(i)
	}
}

func pingTimes(c *raw, n int) {
	repeat(n, func(int) { c.must(c.WritePing(false, [8]byte{})) })
}

// part opens a header block.
func (c *raw) part(stream uint32) {
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.encode(unaryFields...)}))
}

func TestNoPreface(t *testing.T) {
	r := newRig(t)
	for name, text := range map[string]string{
		"HTTP/1": "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "a byte": "X", "almost": preface[:18] + "XX\r\n\r\n", "TLS": "\x16\x03\x01\x02\x00",
		"not SETTINGS": preface + "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", "SETTINGS ACK": preface + "\x00\x00\x00\x04\x01\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			c := connectRaw(t, r.addr)
			_, err := io.WriteString(c.Conn, text)
			require.NoError(t, err)
			require.Equal(t, "PROTOCOL_ERROR", c.goaway())
		})
	}
}

// TestStreamErrors: each ends its stream, and the connection goes on.
func TestStreamErrors(t *testing.T) {
	with := func(more ...string) func(c *raw) { return func(c *raw) { c.request(1, true, more...) } }
	without := func(name string) func(c *raw) {
		return func(c *raw) {
			var f []string
			for i := 0; i < len(unaryFields); i += 2 {
				if unaryFields[i] != name {
					f = append(f, unaryFields[i:i+2]...)
				}
			}
			c.headers(1, true, f...)
		}
	}
	cases := map[string]struct {
		reset string // or the HTTP status, if that is the answer
		do    func(c *raw)
	}{
		"no :path":                  {"PROTOCOL_ERROR", without(":path")},
		"no :method":                {"PROTOCOL_ERROR", without(":method")},
		"no :scheme":                {"PROTOCOL_ERROR", without(":scheme")},
		"no :authority":             {"400", without(":authority")},
		"no content-type":           {"415", without("content-type")},
		"GET":                       {"405", func(c *raw) { f := append([]string(nil), unaryFields...); f[1] = "GET"; c.headers(1, true, f...) }},
		"malformed timeout":         {"400", with("grpc-timeout", "1x")},
		"malformed -bin":            {"400", with("a-bin", "*")},
		":path twice":               {"PROTOCOL_ERROR", func(c *raw) { c.headers(1, true, append([]string{":path", "/a/b"}, unaryFields...)...) }},
		"unknown pseudo":            {"PROTOCOL_ERROR", func(c *raw) { c.headers(1, true, append([]string{":what", "x"}, unaryFields...)...) }},
		"pseudo late":               {"PROTOCOL_ERROR", with(":authority", "x")},
		"upper case":                {"PROTOCOL_ERROR", with("Upper", "x")},
		"a name that ends a line":   {"PROTOCOL_ERROR", with("a\nb", "x")},
		"a value that ends a line":  {"PROTOCOL_ERROR", with("a", "x\r\nb: c")},
		"connection":                {"PROTOCOL_ERROR", with("connection", "close")},
		"te":                        {"PROTOCOL_ERROR", with("te", "gzip")},
		"content-length":            {"PROTOCOL_ERROR", with("content-length", "1")},
		"content-length, no number": {"PROTOCOL_ERROR", with("content-length", "-1")},
		"headers too large":         {"PROTOCOL_ERROR", func(c *raw) { c.large() }},
		"trailers with pseudo":      {"PROTOCOL_ERROR", func(c *raw) { c.request(1, false); c.headers(1, true, ":path", "/a/b") }},
		"trailers that go on":       {"PROTOCOL_ERROR", func(c *raw) { c.request(1, false); c.headers(1, false, "a", "b") }},
		"DATA after the end":        {"STREAM_CLOSED", func(c *raw) { c.duplex(1); c.wait(1, true); c.must(c.WriteData(1, false, []byte("x"))) }},
		"DATA beyond the window":    {"FLOW_CONTROL_ERROR", func(c *raw) { c.overrun() }},
		"WINDOW_UPDATE by 0":        {"PROTOCOL_ERROR", func(c *raw) { c.request(1, false); c.must(c.WriteWindowUpdate(1, 0)) }},
		"WINDOW_UPDATE too large":   {"FLOW_CONTROL_ERROR", func(c *raw) { c.request(1, false); c.must(c.WriteWindowUpdate(1, maxWindow)) }},
		"PRIORITY of four bytes":    {"FRAME_SIZE_ERROR", func(c *raw) { c.request(1, false); c.must(c.WriteRawFrame(framePriority, 0, 1, make([]byte, 4))) }},
		"PRIORITY on itself":        {"PROTOCOL_ERROR", func(c *raw) { c.request(1, false); c.must(c.WriteRawFrame(framePriority, 0, 1, []byte{0, 0, 0, 1, 0})) }},
	}
	r := newRig(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			raw := dialRaw(t, r.addr)
			c.do(raw)
			got := raw.answer(1)
			if got["reset"] == "" {
				got["reset"] = got[":status"]
			}
			require.Equal(t, c.reset, got["reset"], "%v", got)
			raw.served(3)
		})
	}
}

// wait begins a call that waits, on a stream that is open.
func (c *raw) wait(stream uint32, end bool) {
	c.must(c.WriteData(stream, end, message(&pb.StreamingOutputCallRequest{ResponseStatus: &pb.EchoStatus{}})))
}

// large sends few bytes that expand to more than a request's headers may have: an entry of the table, many times.
func (c *raw) large() {
	c.encoder.SetMaxDynamicTableSize(4096)
	f := append([]string(nil), unaryFields...)
	for range 40 {
		f = append(f, "a", strings.Repeat("v", 2000))
	}
	c.headers(1, true, f...)
}

// overrun uses up the window of a stream whose handler does not read, and not that of the connection.
func (c *raw) overrun() {
	c.duplex(1)
	c.wait(1, false)
	for range streamWindowBytes/maxFrameBytes + 1 {
		c.must(c.WriteRawFrame(frameData, 0, 1, make([]byte, maxFrameBytes)))
	}
}

func TestWhatIsAllowed(t *testing.T) {
	r := newRig(t)
	cases := map[string]func(c *raw){
		"unknown frames":        func(c *raw) { c.must(c.WriteRawFrame(0xee, 0xff, 7, make([]byte, 100))) },
		"unknown settings":      func(c *raw) { c.must(c.WriteSettings(http2.Setting{ID: 0xff, Val: 1})) },
		"GOAWAY":                func(c *raw) { c.must(c.WriteGoAway(0, http2.ErrCodeNo, []byte("bye"))) },
		"PRIORITY, idle":        func(c *raw) { c.must(c.WritePriority(9, http2.PriorityParam{StreamDep: 3})) },
		"RST_STREAM, closed":    func(c *raw) { c.served(1); c.must(c.WriteRSTStream(1, 8)) },
		"WINDOW_UPDATE, closed": func(c *raw) { c.served(1); c.must(c.WriteWindowUpdate(1, 8)) },
		"padding": func(c *raw) {
			c.request(1, false)
			c.must(c.WriteDataPadded(1, true, message(&pb.SimpleRequest{}), make([]byte, 200)))
			require.Equal(c.t, "0", c.answer(1)["grpc-status"])
		},
		"trailers": func(c *raw) {
			c.request(1, false)
			c.must(c.WriteData(1, false, message(&pb.SimpleRequest{})))
			c.headers(1, true, "a", "b")
			require.Equal(c.t, "0", c.answer(1)["grpc-status"])
		},
		"a byte a frame": func(c *raw) {
			c.request(1, false)
			for _, b := range message(simple(20, 0)) {
				c.must(c.WriteData(1, false, []byte{b}))
			}
			c.must(c.WriteData(1, true, nil))
			require.Equal(c.t, "0", c.answer(1)["grpc-status"])
		},
		"no message": func(c *raw) {
			c.request(1, false)
			c.must(c.WriteData(1, true, nil))
			require.Equal(c.t, noMessage, c.answer(1)["grpc-message"])
		},
		"two messages": func(c *raw) {
			c.request(1, false)
			c.must(c.WriteData(1, true, append(message(simple(1, 1)), message(simple(1, 1))...)))
			require.Equal(c.t, manyMessages, c.answer(1)["grpc-message"])
		},
		"half a message": func(c *raw) {
			c.request(1, false)
			c.must(c.WriteData(1, true, message(simple(20, 1))[:9]))
			require.Equal(c.t, "unexpected EOF", c.answer(1)["grpc-message"])
		},
		"format 2": func(c *raw) {
			c.request(1, false)
			b := message(simple(1, 1))
			b[0] = 2
			c.must(c.WriteData(1, true, b))
			require.Equal(c.t, "grpc: received unexpected payload format 2", c.answer(1)["grpc-message"])
		},
	}
	reference := newReference(t)
	grpcToo := map[string]bool{"no message": true, "two messages": true, "half a message": true, "format 2": true, "a byte a frame": true}
	for name, do := range cases {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, r.addr)
			do(c)
			c.served(11)
			if grpcToo[name] {
				do(dialRaw(t, reference))
			}
		})
	}
}
