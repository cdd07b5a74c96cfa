package front

import (
	"encoding/binary"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
)

// The numbers of a rig's methods on a pipe.
const (
	pipedUnary   = 1 // direct
	pipedEmpty   = 2
	pipedNothing = 3
)

// rawPipe is a pipe of a raw client.
type rawPipe struct {
	*raw
	stream uint32
	data   []byte            // received, not decoded
	fields map[string]string // of its headers and its end
	ended  bool
	ping   [8]byte // that was not answered
}

// pipe opens a pipe.
func (c *raw) pipe(stream uint32, more ...string) *rawPipe {
	f := append([]string(nil), unaryFields...)
	f[5] = latchkeyv1.Pipe_Carry_FullMethodName
	c.headers(stream, false, append(f, more...)...)
	return &rawPipe{raw: c, stream: stream, fields: make(map[string]string)}
}

// greeted opens a pipe and takes its first message.
func (c *raw) greetedPipe(stream uint32) *rawPipe {
	p := c.pipe(stream)
	require.EqualValues(c.t, streamsMax, p.next().GetRequestsMax())
	return p
}

// write sends bytes of DATA in frames.
func (p *rawPipe) write(b []byte, end bool) {
	for len(b) > maxFrameBytes {
		p.must(p.WriteData(p.stream, false, b[:maxFrameBytes]))
		b = b[maxFrameBytes:]
	}
	p.must(p.WriteData(p.stream, end, b))
}

func (p *rawPipe) send(m *latchkeyv1.Requests) { p.write(message(m), false) }

func (p *rawPipe) requests(rs ...*latchkeyv1.Request) {
	p.send(&latchkeyv1.Requests{Requests: rs})
}

func (p *rawPipe) cancel(ids ...uint64) { p.send(&latchkeyv1.Requests{Cancelled: ids}) }

// next returns the next message, nil at the end of the stream.
func (p *rawPipe) next() *latchkeyv1.Responses {
	for {
		if len(p.data) >= prefixBytes {
			if size := int(binary.BigEndian.Uint32(p.data[1:])); len(p.data) >= prefixBytes+size {
				require.Zero(p.t, p.data[0])
				var m latchkeyv1.Responses
				require.NoError(p.t, proto.Unmarshal(p.data[prefixBytes:prefixBytes+size], &m))
				p.data = p.data[prefixBytes+size:]
				return &m
			}
		}
		if p.ended {
			require.Empty(p.t, p.data)
			return nil
		}
		p.frame()
	}
}

// frame takes one frame.
func (p *rawPipe) frame() {
	f, err := p.ReadFrame()
	require.NoError(p.t, err)
	switch f := f.(type) {
	case *http2.DataFrame:
		if f.StreamID == p.stream {
			p.data = append(p.data, f.Data()...)
			break
		}
		p.replyOn(f.StreamID).size += len(f.Data())
	case *http2.HeadersFrame:
		fields, err := p.decoder.DecodeFull(f.HeaderBlockFragment())
		require.NoError(p.t, err)
		into := p.fields
		if f.StreamID == p.stream {
			p.ended = f.StreamEnded()
		} else {
			r := p.replyOn(f.StreamID)
			into, r.ended = r.fields, f.StreamEnded()
		}
		for _, hf := range fields {
			into[hf.Name] = hf.Value
		}
	case *http2.RSTStreamFrame:
		if f.StreamID == p.stream {
			p.fields["reset"], p.ended = f.ErrCode.String(), true
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			p.ping = f.Data
		}
	}
}

// answers takes n answers.
func (p *rawPipe) answers(n int) map[uint64]*latchkeyv1.Response {
	got := make(map[uint64]*latchkeyv1.Response)
	for len(got) < n {
		m := p.next()
		require.NotNil(p.t, m, "%v", p.fields)
		for _, r := range m.GetResponses() {
			require.Nil(p.t, got[r.GetId()], "answered twice")
			got[r.GetId()] = r
		}
	}
	return got
}

// end takes the end of the stream and returns its code.
func (p *rawPipe) end() string {
	for m := p.next(); m != nil; m = p.next() {
		require.Empty(p.t, m.GetResponses())
	}
	return p.fields["grpc-status"]
}

// ask makes a request.
func ask(id uint64, method latchkeyv1.Method, m proto.Message) *latchkeyv1.Request {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &latchkeyv1.Request{Id: id, Method: method, Body: b}
}

func held(id uint64) *latchkeyv1.Request {
	return ask(id, pipedUnary, &pb.SimpleRequest{FillOauthScope: true})
}

func small(id uint64) *latchkeyv1.Request { return ask(id, pipedUnary, simple(int(id%100), 10)) }
