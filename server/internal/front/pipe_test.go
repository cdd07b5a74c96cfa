package front

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
)

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
