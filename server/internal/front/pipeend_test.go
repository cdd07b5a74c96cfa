package front

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
)

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
