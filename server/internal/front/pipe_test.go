package front

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
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

// TestPipeIsAsUnary asks the same on a pipe and by a call of its own.
func TestPipeIsAsUnary(t *testing.T) {
	declined := simple(10, 10)
	declined.FillUsername = true
	failure := func(code codes.Code, message string) *pb.SimpleRequest {
		return &pb.SimpleRequest{ResponseStatus: &pb.EchoStatus{Code: int32(code), Message: message}}
	}
	cases := map[string]struct {
		method  latchkeyv1.Method
		request proto.Message
	}{
		"nothing":           {pipedUnary, &pb.SimpleRequest{}},
		"small":             {pipedUnary, simple(10, 10)},
		"declined":          {pipedUnary, declined},
		"beyond the window": {pipedUnary, simple(100_000, 100_000)},
		"several MiB":       {pipedUnary, simple(5<<20, 9<<20)},
		"status":            {pipedUnary, failure(codes.NotFound, "no such key")},
		"status of no name": {pipedUnary, failure(77, "what")},
		"message to escape": {pipedUnary, failure(codes.Aborted, "100% ünïcode\n\x00~")},
		"not a message":     {pipedUnary, &pb.BoolValue{Value: true}},
		"handler":           {pipedEmpty, &pb.Empty{}},
		"not implemented":   {pipedNothing, simple(1, 1)},
	}
	paths := map[latchkeyv1.Method]string{
		pipedUnary: pb.TestService_UnaryCall_FullMethodName, pipedEmpty: pb.TestService_EmptyCall_FullMethodName,
		pipedNothing: pb.TestService_CacheableUnaryCall_FullMethodName,
	}
	ctx := testContext(t)
	r := newRig(t)
	_, cc := dial(t, r.addr)
	st := openPipe(ctx, t, r)
	id := uint64(0)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := bySide(ctx, cc, paths[c.method], c.request, &pb.SimpleResponse{})
			for range 2 {
				id++
				require.NoError(t, st.Send(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{ask(id, c.method, c.request)}}))
				m, err := st.Recv()
				require.NoError(t, err)
				require.Len(t, m.GetResponses(), 1)
				got := m.GetResponses()[0]
				assert.Equal(t, id, got.GetId())
				assert.EqualValues(t, want.Code, got.GetCode())
				assert.Equal(t, want.Message, got.GetMessage())
				assert.False(t, got.GetUnserved())
				if want.Code == codes.OK {
					var body pb.SimpleResponse
					require.NoError(t, proto.Unmarshal(got.GetBody(), &body))
					assert.Equal(t, want.Body, observe(nil, nil, nil, &body).Body)
				}
			}
		})
	}
	require.NoError(t, st.CloseSend())
	_, err := st.Recv()
	require.ErrorIs(t, err, io.EOF)
}

// openPipe opens one with gRPC's own client and takes the first message.
func openPipe(ctx context.Context, t testing.TB, r *rig) latchkeyv1.Pipe_CarryClient {
	_, cc := dial(t, r.addr)
	st, err := latchkeyv1.NewPipeClient(cc).Carry(ctx)
	require.NoError(t, err)
	m, err := st.Recv()
	require.NoError(t, err)
	require.EqualValues(t, streamsMax, m.GetRequestsMax())
	require.Empty(t, m.GetResponses())
	return st
}

func TestPipeMessages(t *testing.T) {
	r := newRig(t)
	t.Run("several requests in a message, answered together", func(t *testing.T) {
		p := dialRaw(t, r.addr).greetedPipe(1)
		var rs []*latchkeyv1.Request
		for id := range uint64(100) {
			rs = append(rs, small(id))
		}
		p.requests(rs...)
		m := p.next()
		require.Len(t, m.GetResponses(), 100)
		for _, a := range m.GetResponses() {
			var body pb.SimpleResponse
			require.NoError(t, proto.Unmarshal(a.GetBody(), &body))
			require.Equal(t, simple(int(a.GetId()), 0).GetPayload().String(), body.GetUsername())
		}
	})
	t.Run("in any order", func(t *testing.T) {
		p := dialRaw(t, r.addr).greetedPipe(1)
		p.requests(held(1))
		first := <-r.held
		p.requests(held(2), small(3))
		second := <-r.held
		require.Contains(t, p.answers(1), uint64(3))
		for id, c := range map[uint64]Call{2: second, 1: first} {
			var b Batch
			c.Reply(&pb.SimpleResponse{}, nil, &b)
			b.Flush()
			require.Contains(t, p.answers(1), id)
		}
	})
	t.Run("split at every byte", func(t *testing.T) {
		p := dialRaw(t, r.addr).greetedPipe(1)
		id := uint64(0)
		pair := func() []byte {
			id += 4
			m := &latchkeyv1.Requests{Requests: []*latchkeyv1.Request{small(id), ask(id+1, pipedNothing, simple(9, 9))}}
			return append(message(m), message(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{small(id + 2)}})...)
		}
		for at := range pair() {
			b := pair()
			p.write(b[:at], false)
			p.write(b[at:], false)
			got := p.answers(3)
			require.EqualValues(t, codes.Unimplemented, got[id+1].GetCode())
			require.Contains(t, got, id+2)
		}
		for _, b := range pair() {
			p.write([]byte{b}, false)
		}
		require.Len(t, p.answers(3), 3)
	})
	t.Run("padded", func(t *testing.T) {
		p := dialRaw(t, r.addr, http2.Setting{ID: settingInitialWindow, Val: maxWindow}).greetedPipe(1)
		p.must(p.WriteWindowUpdate(0, maxWindow/2))
		for id := range uint64(2 * streamWindowBytes / 256) { // so that the padding is given back
			p.must(p.WriteDataPadded(1, false, message(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{small(id)}}), make([]byte, 255)))
			p.answers(1)
		}
	})
}

func TestPipeRequests(t *testing.T) {
	r := newRig(t)
	t.Run("empty messages", func(t *testing.T) {
		p := dialRaw(t, r.addr).greetedPipe(1)
		p.send(&latchkeyv1.Requests{})
		p.requests()
		p.requests(small(7))
		require.Len(t, p.answers(1), 1)
	})
	t.Run("a method that is not served", func(t *testing.T) {
		p := dialRaw(t, r.addr).greetedPipe(1)
		p.requests(ask(1, 99, &pb.Empty{}), ask(2, 0, &pb.Empty{}), ask(3, -1, &pb.Empty{}), small(4))
		got := p.answers(4)
		for id := uint64(1); id < 4; id++ {
			require.EqualValues(t, codes.Unimplemented, got[id].GetCode())
			require.True(t, got[id].GetUnserved())
		}
		require.Zero(t, got[4].GetCode())
	})
	t.Run("a malformed body is its call's error", func(t *testing.T) {
		p := dialRaw(t, r.addr).greetedPipe(1)
		p.requests(&latchkeyv1.Request{Id: 1, Method: pipedUnary, Body: []byte{0xff}}, &latchkeyv1.Request{Id: 2, Method: pipedNothing, Body: []byte{0xff}}, small(3))
		got := p.answers(3)
		require.EqualValues(t, codes.Internal, got[1].GetCode())
		require.EqualValues(t, codes.Internal, got[2].GetCode())
		require.Zero(t, got[3].GetCode())
	})
	t.Run("two pipes", func(t *testing.T) {
		c := dialRaw(t, r.addr)
		p := c.greetedPipe(1)
		p.cancel(9)
		q := c.greetedPipe(3)
		q.requests(small(1))
		require.Len(t, q.answers(1), 1)
		p.requests(small(1))
		require.Len(t, p.answers(1), 1)
	})
}

// TestPipeErrors: what can not be understood ends the pipe, and nothing else.
func TestPipeErrors(t *testing.T) {
	field := func(number protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), b)
	}
	framed := func(b []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
	}
	compressed := message(&latchkeyv1.Requests{})
	compressed[0] = 1
	cases := map[string]struct {
		code codes.Code
		say  []byte
	}{
		"no envelope":         {codes.Internal, framed([]byte{0xff})},
		"no request":          {codes.Internal, framed(field(1, []byte{0x08}))},
		"cut":                 {codes.Internal, framed(field(1, []byte{1, 2, 3})[:3])},
		"packed, cut":         {codes.Internal, framed(field(2, []byte{0x80}))},
		"end of no group":     {codes.Internal, framed([]byte{0x0c})},
		"field 0":             {codes.Internal, framed([]byte{0x00, 0x00})},
		"field too large":     {codes.Internal, framed([]byte{0x80, 0x80, 0x80, 0x80, 0x20, 0x00})},
		"a token of no text":  {codes.Internal, framed(field(1, field(4, []byte{0xff})))},
		"an id under way":     {codes.Internal, message(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{small(5), held(9), small(9)}})},
		"compressed":          {codes.Unimplemented, compressed},
		"announced too large": {codes.ResourceExhausted, binary.BigEndian.AppendUint32([]byte{0}, requestMax+1)},
	}
	r := newRig(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			raw := dialRaw(t, r.addr)
			p := raw.greetedPipe(1)
			p.requests(held(9))
			call := <-r.held
			p.write(c.say, false)
			require.Equal(t, fmt.Sprint(int(c.code)), p.end(), "%v", p.fields)
			raw.served(3) // and behind it the pipe is over
			require.True(t, call.Gone())
			p.write(c.say, false) // whatever comes on its stream now
			raw.served(5)
			var b Batch
			call.Reply(&pb.SimpleResponse{}, nil, &b)
			b.Flush()
			for len(r.held) > 0 {
				<-r.held
			}
		})
	}
	t.Run("ended within a message", func(t *testing.T) {
		p := dialRaw(t, r.addr).greetedPipe(1)
		p.write(message(&latchkeyv1.Requests{Cancelled: []uint64{1, 2, 3}})[:7], true)
		require.Equal(t, "13", p.end())
	})
	t.Run("of another length than announced", func(t *testing.T) {
		p := dialRaw(t, r.addr).pipe(1, "content-length", "100")
		p.next()
		p.write(message(&latchkeyv1.Requests{Cancelled: []uint64{1}}), true)
		p.end()
		require.Equal(t, "PROTOCOL_ERROR", p.fields["reset"])
	})
}

func TestPipeCancel(t *testing.T) {
	r := newRig(t)
	p := dialRaw(t, r.addr).greetedPipe(1)
	reply := func(c Call) {
		var b Batch
		c.Reply(&pb.SimpleResponse{}, nil, &b)
		b.Flush()
	}
	t.Run("before the answer", func(t *testing.T) {
		p.requests(held(1), held(2), held(3))
		calls := []Call{<-r.held, <-r.held, <-r.held}
		p.cancel(1, 3) // packed
		p.requests(small(4))
		p.answers(1)
		require.Equal(t, []bool{true, false, true}, []bool{calls[0].Gone(), calls[1].Gone(), calls[2].Gone()})
		for _, c := range calls {
			reply(c)
		}
		require.Contains(t, p.answers(1), uint64(2))
	})
	t.Run("not packed", func(t *testing.T) {
		p.requests(held(1))
		c := <-r.held
		b := protowire.AppendVarint(protowire.AppendTag(make([]byte, prefixBytes), 2, protowire.VarintType), 1)
		b[4] = byte(len(b) - prefixBytes)
		p.write(b, false)
		p.requests(small(4))
		p.answers(1)
		require.True(t, c.Gone())
		reply(c)
	})
	t.Run("in the message of its request", func(t *testing.T) {
		p.send(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{held(1)}, Cancelled: []uint64{1}})
		c := <-r.held
		require.True(t, c.Gone())
		reply(c)
	})
	t.Run("after the answer, and of nothing", func(t *testing.T) {
		p.requests(small(1))
		p.answers(1)
		p.cancel(1, 77, 1<<63)
		p.requests(small(1)) // whose id is free again
		p.answers(1)
	})
	t.Run("an id is free though its call is busy", func(t *testing.T) {
		p.requests(held(1))
		first := <-r.held
		p.cancel(1)
		p.requests(held(1))
		second := <-r.held
		require.True(t, first.Gone())
		reply(first)
		reply(second)
		p.requests(small(2))
		require.Len(t, p.answers(2), 2)
	})
}

// TestPipeCancelHandler: a handler's context ends with its call.
func TestPipeCancelHandler(t *testing.T) {
	// What is declined is served by UnaryCall, which waits if it is asked to.
	r := newRig(t)
	r.front.methods[pb.TestService_UnaryCall_FullMethodName].direct = nil
	p := dialRaw(t, r.addr).greetedPipe(1)
	p.requests(held(1), held(2))
	one, two := <-r.began, <-r.began
	p.cancel(1)
	require.ErrorIs(t, <-r.ended, errReset)
	p.requests(small(3))
	p.answers(1)
	require.Equal(t, 1, ended(one)+ended(two))
	p.must(p.WriteRSTStream(1, http2.ErrCodeCancel))
	require.ErrorIs(t, <-r.ended, errReset)
}

func ended(ctx context.Context) int {
	if ctx.Err() != nil {
		return 1
	}
	return 0
}

// TestPipeEnds: however a pipe ends, its calls do.
func TestPipeEnds(t *testing.T) {
	open := func(t *testing.T, r *rig) (*rawPipe, []Call) {
		p := dialRaw(t, r.addr).greetedPipe(1)
		p.requests(held(1), held(2))
		return p, []Call{<-r.held, <-r.held}
	}
	gone := func(t *testing.T, calls []Call) {
		for _, c := range calls {
			require.True(t, c.Gone())
			var b Batch
			c.Reply(&pb.SimpleResponse{}, nil, &b)
			b.Flush()
			c.Go(func(*Batch) {})
		}
	}
	t.Run("half closed", func(t *testing.T) {
		p, calls := open(t, newRig(t))
		p.write(message(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{small(3)}}), true)
		require.Contains(t, p.answers(1), uint64(3))
		var b Batch
		calls[1].Reply(&pb.SimpleResponse{}, nil, &b)
		b.Flush()
		require.Contains(t, p.answers(1), uint64(2))
		require.False(t, calls[0].Gone())
		calls[0].Reply(nil, status.Error(codes.Aborted, "no"), &b)
		b.Flush()
		require.EqualValues(t, codes.Aborted, p.answers(1)[1].GetCode())
		require.Equal(t, "0", p.end())
		require.Empty(t, p.fields["reset"])
		p.served(3)
	})
	t.Run("half closed at once", func(t *testing.T) {
		p := dialRaw(t, newRig(t).addr).pipe(1)
		p.write(nil, true)
		require.Equal(t, "0", p.end())
	})
	t.Run("half closed by trailers", func(t *testing.T) {
		p := dialRaw(t, newRig(t).addr).greetedPipe(1)
		p.requests(small(1))
		p.headers(1, true, "a", "b")
		p.answers(1)
		require.Equal(t, "0", p.end())
	})
	t.Run("reset", func(t *testing.T) {
		p, calls := open(t, newRig(t))
		p.must(p.WriteRSTStream(1, http2.ErrCodeCancel))
		p.served(3)
		gone(t, calls)
		p.served(5)
	})
	t.Run("connection lost", func(t *testing.T) {
		r := newRig(t)
		p, calls := open(t, r)
		require.NoError(t, p.Close())
		<-calls[0].Context().Done()
		require.ErrorIs(t, context.Cause(calls[0].Context()), errClientGone)
		gone(t, calls)
	})
	t.Run("stopped", func(t *testing.T) {
		r := newRig(t)
		p, calls := open(t, r)
		r.front.Stop()
		gone(t, calls)
		p.goaway()
	})
}

// TestPipeLimit: a connection may have so many calls on pipes under way, those among them that were given up.
func TestPipeLimit(t *testing.T) {
	const most = 10
	r := newRig(t, func(c *Config) { c.MaxStreams = most })
	c := dialRaw(t, r.addr)
	p := c.pipe(1)
	require.EqualValues(t, most, p.next().GetRequestsMax())
	refused := func(p *rawPipe, id uint64) {
		p.requests(small(id))
		got := p.answers(1)[id]
		require.EqualValues(t, codes.Unavailable, got.GetCode())
		require.True(t, got.GetUnserved())
	}
	var calls []Call
	hold := func(p *rawPipe, id uint64) {
		p.requests(held(id))
		calls = append(calls, <-r.held)
	}
	for id := range uint64(most) {
		hold(p, id)
	}
	refused(p, 100)
	p.cancel(0, 1, 2)
	refused(p, 101) // somebody is still at them
	var b Batch
	for _, call := range calls[:3] {
		call.Reply(&pb.SimpleResponse{}, nil, &b)
	}
	b.Flush()
	for id := uint64(20); id < 23; id++ {
		hold(p, id)
	}
	refused(p, 102)
	// Another pipe, when this one is gone, is no way round.
	p.must(p.WriteRSTStream(1, http2.ErrCodeCancel))
	q := c.pipe(3)
	q.next()
	refused(q, 1)
	for _, call := range calls[3:] {
		require.True(t, call.Gone())
		call.Reply(&pb.SimpleResponse{}, nil, &b)
	}
	q.requests(small(2))
	require.Zero(t, q.answers(1)[2].GetCode())
}

// windowed is the client of a pipe who keeps to his window.
type windowed struct {
	*rawPipe
	window, sent int
}

// fill sends one message as often as it may.
func (p *windowed) fill(one []byte) {
	for p.window >= len(one) {
		p.must(p.WriteData(1, false, one))
		p.window -= len(one)
		p.sent++
	}
	synctest.Wait()
}

// drain takes what there is to read.
func (p *windowed) drain() {
	p.must(p.WritePing(false, [8]byte{9}))
	for {
		f, err := p.ReadFrame()
		require.NoError(p.t, err)
		switch f := f.(type) {
		case *http2.WindowUpdateFrame:
			if f.StreamID == 1 {
				p.window += int(f.Increment)
			}
		case *http2.DataFrame:
			p.data = append(p.data, f.Data()...)
		case *http2.PingFrame:
			if f.IsAck() {
				return
			}
		}
	}
}

// TestPipeFlowControl: who does not read answers can send no more, and goes on when he does.
func TestPipeFlowControl(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rig, c *conn, client *raw) {
		client.greet()
		p := &windowed{rawPipe: client.pipe(1), window: streamWindowBytes}
		p.next()
		const size = 10_000
		one := message(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{ask(1, pipedUnary, &pb.SimpleRequest{
			ResponseSize: size, Payload: &pb.Payload{Body: make([]byte, 1000)},
		})}})
		for before := -1; before != p.sent; {
			before = p.sent
			p.fill(one)
			p.drain()
		}
		c.mu.Lock()
		require.Less(t, c.unsent, pipeBacklogBytes+2*streamWindowBytes*(size/1000+1))
		require.Greater(t, c.unsent, pipeBacklogBytes)
		require.Less(t, c.held, len(one))
		c.mu.Unlock()
		require.Less(t, p.sent, 3*streamWindowBytes/len(one))
		stuck, answers := p.sent, 0
		p.must(p.WriteWindowUpdate(0, maxWindow/2))
		updated := make(chan struct{})
		go func() {
			defer close(updated)
			p.must(p.WriteWindowUpdate(1, maxWindow/2))
		}()
		for answers < stuck {
			answers += len(p.next().GetResponses())
		}
		<-updated
		p.drain() // all that was sent is answered, and more may be sent
		p.fill(one)
		require.Greater(t, p.sent, stuck)
		for answers < p.sent {
			answers += len(p.next().GetResponses())
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		require.Zero(t, c.unsent)
		require.Zero(t, c.held)
		require.Zero(t, c.carried)
		require.Empty(t, c.pipes)
	})
}

// TestPipeHeld: what a pipe has received of a message counts as that of other calls.
func TestPipeHeld(t *testing.T) {
	r := newRig(t)
	c := dialRaw(t, r.addr)
	cn := theConn(t, r, c)
	cn.mu.Lock()
	cn.held += heldMaxBytes // as if of other calls
	cn.mu.Unlock()
	p := c.greetedPipe(1)
	p.write(message(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{small(50)}})[:40], false)
	require.Equal(t, "8", p.end())
	c.served(3)
	cn.mu.Lock()
	defer cn.mu.Unlock()
	require.Equal(t, heldMaxBytes, cn.held)
}

// TestPipeLargeAnswers: beyond what a connection may have waiting, there is an error instead.
func TestPipeLargeAnswers(t *testing.T) {
	r := newRig(t)
	c := dialRaw(t, r.addr)
	cn := theConn(t, r, c)
	p := c.greetedPipe(1)
	cn.mu.Lock()
	cn.unsent += unsentMaxBytes
	cn.mu.Unlock()
	p.requests(ask(1, pipedUnary, simple(0, 1000)))
	require.EqualValues(t, codes.ResourceExhausted, p.answers(1)[1].GetCode())
	cn.mu.Lock()
	cn.unsent -= unsentMaxBytes
	cn.mu.Unlock()
}

// TestPipeLeave: a pipe is asked to close, what is under way is answered, and then the connection ends.
func TestPipeLeave(t *testing.T) {
	ctx := testContext(t)
	r := newRig(t)
	c := dialRaw(t, r.addr)
	p := c.greetedPipe(1)
	p.requests(held(1))
	call := <-r.held
	left := make(chan struct{})
	go func() { r.front.Leave(ctx); close(left) }()
	for m := p.next(); !m.GetClosing(); m = p.next() {
		require.NotNil(t, m)
	}
	p.requests(small(2)) // sent before it knew
	require.Contains(t, p.answers(1), uint64(2))
	late := c.pipe(3) // which was on its way
	require.True(t, late.next().GetClosing())
	late.write(nil, true)
	require.Equal(t, "0", late.end())
	require.Equal(t, leavePing, string(p.ping[:]))
	c.must(c.WritePing(true, p.ping))
	p.write(nil, true)
	select {
	case <-left:
		t.Fatal("left before the call was answered")
	default:
	}
	var b Batch
	call.Reply(&pb.SimpleResponse{}, nil, &b)
	b.Flush()
	require.Contains(t, p.answers(1), uint64(1))
	require.Equal(t, "0", p.end())
	c.goaway() // waits for the end of the connection
	<-left
	require.NoError(t, ctx.Err())
}

func TestPipeHeaders(t *testing.T) {
	r := newRig(t)
	c := dialRaw(t, r.addr)
	p := c.pipe(1, "token", "of the pipe", "hasleader", "true", "other", "x")
	p.next()
	own := held(2)
	own.Token, own.RequireLeader = "its own", true
	p.requests(held(1), own)
	one, two := <-r.held, <-r.held
	headers := func(c Call) []string {
		return []string{c.Header("token"), c.Header("hasleader"), c.Header("other"), c.Header("none")}
	}
	require.Equal(t, []string{"of the pipe", "", "x", ""}, headers(one))
	require.Equal(t, []string{"its own", "true", "x", ""}, headers(two))
	for i, want := range []string{"", "true"} {
		md := []*pipeCall{one.(*pipeCall), two.(*pipeCall)}[i].metadata()
		require.Equal(t, want, strings.Join(md["hasleader"], ","))
		require.Equal(t, []string{headers(one)[0], "its own"}[i], strings.Join(md["token"], ","))
		require.Equal(t, []string{"x"}, md["other"])
	}
	var b Batch
	for _, call := range []Call{one, two} {
		call.Reply(&pb.SimpleResponse{}, nil, &b)
	}
	b.Flush()
	p.answers(2)
}

func TestPipeStats(t *testing.T) {
	r := newRig(t)
	p := dialRaw(t, r.addr).greetedPipe(1)
	p.requests(small(1), ask(2, pipedNothing, &pb.SimpleRequest{}), held(3), ask(4, 99, &pb.Empty{}))
	p.answers(3)
	p.cancel(3)
	p.write(nil, true)
	require.Equal(t, "0", p.end())
	stats := make(map[string]MethodStats)
	for _, m := range r.front.Stats().Methods {
		stats[m.Method] = m
	}
	unary, nothing, carry := stats["UnaryCall"], stats["CacheableUnaryCall"], stats["Carry"]
	require.EqualValues(t, []uint64{2, 1, 1}, []uint64{unary.Started, unary.Handled[codes.OK], unary.Handled[codes.Canceled]})
	require.EqualValues(t, []uint64{1, 1}, []uint64{nothing.Started, nothing.Handled[codes.Unimplemented]})
	require.EqualValues(t, []uint64{1, 1, 2}, []uint64{carry.Started, carry.Handled[codes.OK], carry.Received})
	require.GreaterOrEqual(t, carry.Sent, uint64(2))
	var b Batch
	(<-r.held).Reply(&pb.SimpleResponse{}, nil, &b)
}

func TestServePipeNeedsItsMethods(t *testing.T) {
	r := newIdleRig(Config{})
	require.Panics(t, func() { r.front.ServePipe("/a/b", nil) })
	require.Panics(t, func() { r.front.ServePipe(pb.TestService_UnaryCall_FullMethodName, nil) })
	require.Panics(t, func() {
		r.front.ServePipe(latchkeyv1.Pipe_Carry_FullMethodName, map[int32]string{1: pb.TestService_FullDuplexCall_FullMethodName})
	})
}

// FuzzPipe: an envelope is understood as the generated code does, and what that refuses ends the pipe.
func FuzzPipe(f *testing.F) {
	seed := func(m *latchkeyv1.Requests) {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(b)
	}
	one := small(1)
	one.Token, one.RequireLeader = "tökén", true
	seed(&latchkeyv1.Requests{})
	seed(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{one, small(2), ask(1<<63, 99, &pb.Empty{})}, Cancelled: []uint64{2, 1 << 40}})
	f.Add([]byte{0x10, 0x05, 0x0a, 0x02, 0x08, 0x05, 0x0a, 0x04, 0x12, 0x00, 0x08, 0x06})
	f.Add([]byte{0x0b, 0x0c, 0x0a, 0x03, 0x22, 0x01, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		var want latchkeyv1.Requests
		wantErr := proto.Unmarshal(data, &want)
		got, err := understood(data)
		if wantErr != nil {
			require.Error(t, err, "%v", wantErr)
			return
		}
		require.NoError(t, err)
		require.Equal(t, len(want.GetRequests()), len(got.tasks))
		for i, w := range want.GetRequests() {
			g := got.tasks[i]
			require.Equal(t, w.GetId(), g.call.id)
			require.Equal(t, w.GetToken(), g.call.token)
			require.Equal(t, w.GetRequireLeader(), g.call.leader)
			require.Equal(t, int32(w.GetMethod()), got.numbers[i])
			require.True(t, bytes.Equal(w.GetBody(), g.body))
		}
		require.Equal(t, want.GetCancelled(), got.cancelled)
	})
}

// envelope is what a pipe understands of a message.
type envelope struct {
	tasks     []pipeTask
	numbers   []int32
	cancelled []uint64
}

func understood(message []byte) (e envelope, err error) {
	err = eachOf(message, func(b []byte) error {
		task := pipeTask{call: new(pipeCall)}
		number, err := task.decode(b)
		e.tasks, e.numbers = append(e.tasks, task), append(e.numbers, number)
		return err
	}, func(id uint64) { e.cancelled = append(e.cancelled, id) })
	return e, err
}
