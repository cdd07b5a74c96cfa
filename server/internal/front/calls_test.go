package front

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// outcome is everything that a client sees of a call.
type outcome struct {
	Code    codes.Code
	Message string
	Details []string
	Header  metadata.MD
	Trailer metadata.MD
	Body    string
}

func observe(err error, header, trailer metadata.MD, m proto.Message) outcome {
	s := status.Convert(err)
	o := outcome{Code: s.Code(), Message: s.Message(), Header: header, Trailer: trailer}
	for _, d := range s.Details() {
		o.Details = append(o.Details, fmt.Sprint(d))
	}
	delete(header, "content-type") // grpc-go repeats the client's, we have one for all
	delete(trailer, "content-type")
	if err == nil {
		b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		o.Body = string(b)
	}
	return o
}

func simple(size, response int) *pb.SimpleRequest {
	return &pb.SimpleRequest{ResponseSize: int32(response), Payload: &pb.Payload{Body: bytes.Repeat([]byte{'x'}, size)}}
}

// bySide calls a method with one request and tells everything that a client sees.
func bySide(ctx context.Context, cc *grpc.ClientConn, method string, request, response proto.Message, opts ...grpc.CallOption) outcome {
	var header, trailer metadata.MD
	err := cc.Invoke(ctx, method, request, response, append(opts, grpc.Header(&header), grpc.Trailer(&trailer))...)
	return observe(err, header, trailer, response)
}

func TestUnaryIsAsWithGRPC(t *testing.T) {
	failure := func(code codes.Code, message string, details bool) *pb.SimpleRequest {
		return &pb.SimpleRequest{FillUsername: details, ResponseStatus: &pb.EchoStatus{Code: int32(code), Message: message}}
	}
	declined := simple(10, 10)
	declined.FillUsername = true
	unary := pb.TestService_UnaryCall_FullMethodName
	cases := map[string]struct {
		method  string
		request proto.Message
		md      []string
		opts    []grpc.CallOption
		code    codes.Code
	}{
		"nothing":            {unary, &pb.SimpleRequest{}, nil, nil, codes.OK},
		"empty message":      {pb.TestService_EmptyCall_FullMethodName, &pb.Empty{}, nil, nil, codes.OK},
		"small":              {unary, simple(10, 10), nil, nil, codes.OK},
		"declined":           {unary, declined, nil, nil, codes.OK},
		"a frame":            {unary, simple(16<<10, 16<<10), nil, nil, codes.OK},
		"beyond the window":  {unary, simple(100_000, 100_000), nil, nil, codes.OK},
		"several MiB":        {unary, simple(5<<20, 9<<20), nil, nil, codes.OK},
		"too large":          {unary, simple(requestMax+1, 1), nil, nil, codes.ResourceExhausted},
		"compressed":         {unary, simple(100_000, 10), nil, []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, codes.OK},
		"expands to much":    {unary, simple(requestMax+1, 1), nil, []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, codes.ResourceExhausted},
		"status":             {unary, failure(codes.NotFound, "no such key", false), nil, nil, codes.NotFound},
		"status of no name":  {unary, failure(77, "what", false), nil, nil, 77},
		"message to escape":  {unary, failure(codes.Aborted, "100% ünïcode\n\x00~", false), nil, nil, codes.Aborted},
		"details":            {unary, failure(codes.DataLoss, "détails", true), nil, nil, codes.DataLoss},
		"unknown method":     {"/grpc.testing.TestService/Nothing", &pb.Empty{}, nil, nil, codes.Unimplemented},
		"unknown service":    {"/nothing.Service/Nothing", &pb.Empty{}, nil, nil, codes.Unimplemented},
		"no service":         {"/nothing", &pb.Empty{}, nil, nil, codes.Unimplemented},
		"not implemented":    {pb.TestService_CacheableUnaryCall_FullMethodName, simple(1, 1), nil, nil, codes.Unimplemented},
		"not a message":      {unary, &pb.BoolValue{Value: true}, nil, nil, codes.OK},
		"metadata":           {pb.TestService_EmptyCall_FullMethodName, &pb.Empty{}, []string{"header-a", "1", "header-a", "2", "header-b-bin", "\x00\xff\n", "trailer-a", "", "trailer-b-bin", ""}, nil, codes.OK},
		"long metadata":      {pb.TestService_EmptyCall_FullMethodName, &pb.Empty{}, []string{"header-a", string(bytes.Repeat([]byte{'h'}, 20_000)), "trailer-a", string(bytes.Repeat([]byte{'t'}, 20_000))}, nil, codes.OK},
		"unreadable message": {pb.TestService_EmptyCall_FullMethodName, &pb.Empty{}, nil, []grpc.CallOption{grpc.ForceCodecV2(broken{encoding.GetCodecV2("proto")})}, codes.Internal},
	}
	ctx := testContext(t)
	r := newRig(t)
	_, ours := dial(t, r.addr)
	_, theirs := dial(t, newReference(t))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.AppendToOutgoingContext(ctx, c.md...)
			want := bySide(ctx, theirs, c.method, c.request, &pb.SimpleResponse{}, c.opts...)
			got := bySide(ctx, ours, c.method, c.request, &pb.SimpleResponse{}, c.opts...)
			assert.Equal(t, want, got)
			assert.Equal(t, c.code, got.Code, got.Message)
			again := bySide(ctx, ours, c.method, c.request, &pb.SimpleResponse{}, c.opts...)
			assert.Equal(t, want, again, "with the header tables filled")
		})
	}
}

// broken sends what is no message of protobuf.
type broken struct{ encoding.CodecV2 }

func (b broken) Marshal(any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer{0xff}}, nil
}

func TestUnknownCompressor(t *testing.T) {
	r := newRig(t)
	for _, addr := range []string{newReference(t), r.addr} {
		c := dialRaw(t, addr)
		c.request(1, true, "grpc-encoding", "never-registered")
		fields := c.answer(1)
		require.Equal(t, "12", fields["grpc-status"])
		require.Equal(t, `grpc: Decompressor is not installed for grpc-encoding "never-registered"`, fields["grpc-message"])
	}
}

func TestStreamsAreAsWithGRPC(t *testing.T) {
	sizes := []int{0, 1, 70_000, 3 << 20, 16 << 10, 0, 1 << 20, 5}
	ctx := testContext(t)
	r := newRig(t)
	for name, addr := range map[string]string{"front": r.addr, "grpc": newReference(t)} {
		for _, window := range []int32{64 << 10, 1 << 20} {
			t.Run(fmt.Sprint(name, window), func(t *testing.T) {
				client, _ := dial(t, addr, grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window))
				streamOut(ctx, t, client, sizes)
				streamIn(ctx, t, client, sizes)
				streamBoth(ctx, t, client, sizes)
				streamTooLarge(ctx, t, client)
			})
		}
	}
}

func streamOut(ctx context.Context, t *testing.T, client pb.TestServiceClient, sizes []int) {
	q := &pb.StreamingOutputCallRequest{}
	for _, n := range sizes {
		q.ResponseParameters = append(q.ResponseParameters, &pb.ResponseParameters{Size: int32(n)})
	}
	st, err := client.StreamingOutputCall(ctx, q)
	require.NoError(t, err)
	var got []int
	for {
		m, err := st.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		got = append(got, len(m.GetPayload().GetBody()))
	}
	require.Equal(t, sizes, got)
}

func streamIn(ctx context.Context, t *testing.T, client pb.TestServiceClient, sizes []int) {
	st, err := client.StreamingInputCall(ctx)
	require.NoError(t, err)
	total := 0
	for _, n := range sizes {
		require.NoError(t, st.Send(&pb.StreamingInputCallRequest{Payload: simple(n, 0).GetPayload()}))
		total += n
	}
	m, err := st.CloseAndRecv()
	require.NoError(t, err)
	require.EqualValues(t, total, m.GetAggregatedPayloadSize())
}

func streamBoth(ctx context.Context, t *testing.T, client pb.TestServiceClient, sizes []int) {
	st, err := client.FullDuplexCall(ctx)
	require.NoError(t, err)
	for _, n := range sizes {
		p := simple(n, 0).GetPayload()
		require.NoError(t, st.Send(&pb.StreamingOutputCallRequest{Payload: p}))
		m, err := st.Recv()
		require.NoError(t, err)
		require.True(t, bytes.Equal(p.GetBody(), m.GetPayload().GetBody()))
	}
	require.NoError(t, st.CloseSend())
	_, err = st.Recv()
	require.ErrorIs(t, err, io.EOF)
}

func streamTooLarge(ctx context.Context, t *testing.T, client pb.TestServiceClient) {
	st, err := client.StreamingInputCall(ctx)
	require.NoError(t, err)
	require.NoError(t, st.Send(&pb.StreamingInputCallRequest{Payload: simple(10, 0).GetPayload()}))
	if err := st.Send(&pb.StreamingInputCallRequest{Payload: simple(requestMax, 0).GetPayload()}); err != nil {
		require.ErrorIs(t, err, io.EOF)
	}
	_, err = st.CloseAndRecv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.Contains(t, err.Error(), fmt.Sprintf("grpc: received message larger than max (%d vs. %d)", requestMax+10, requestMax))
}

func TestManyCallsOfOneConnection(t *testing.T) {
	ctx := testContext(t)
	r := newRig(t)
	client, _ := dial(t, r.addr)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			for k := range 20 {
				q := simple(i*k, i*100)
				q.FillUsername = k%2 == 0 // so every other is declined
				m, err := client.UnaryCall(ctx, q)
				if assert.NoError(t, err) {
					assert.Len(t, m.GetPayload().GetBody(), i*100)
				}
			}
		})
	}
	wg.Wait()
}

func TestMoreStreamsThanHalfTheBound(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	r := newRig(t)
	client, _ := dial(t, r.addr)
	const n = streamsMax * 6 / 10
	for range n {
		st, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		require.NoError(t, st.Send(&pb.StreamingOutputCallRequest{ResponseStatus: &pb.EchoStatus{}}))
	}
	for range n {
		<-r.began
	}
	cancel()
	for range n {
		require.Error(t, <-r.ended)
	}
}

func TestCancelAndDeadline(t *testing.T) {
	r := newRig(t)
	client, cc := dial(t, r.addr)
	t.Run("a stream's context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(testContext(t))
		st, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		require.NoError(t, st.Send(&pb.StreamingOutputCallRequest{ResponseStatus: &pb.EchoStatus{}}))
		<-r.began
		cancel()
		require.ErrorIs(t, <-r.ended, errReset)
	})
	t.Run("a deadline is the handler's", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(testContext(t), time.Minute)
		st, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		require.NoError(t, st.Send(&pb.StreamingOutputCallRequest{ResponseStatus: &pb.EchoStatus{}}))
		d, ok := (<-r.began).Deadline()
		require.True(t, ok)
		require.WithinDuration(t, time.Now().Add(time.Minute), d, 30*time.Second)
		cancel()
		<-r.ended
	})
	t.Run("a deadline that passes", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
		defer cancel()
		st, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		require.NoError(t, st.Send(&pb.StreamingOutputCallRequest{ResponseStatus: &pb.EchoStatus{}}))
		_, err = st.Recv()
		require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	})
	t.Run("a Direct call is gone", func(t *testing.T) {
		ctx, cancel := context.WithCancel(testContext(t))
		failed := make(chan error, 1)
		go func() {
			_, err := client.UnaryCall(ctx, &pb.SimpleRequest{FillOauthScope: true})
			failed <- err
		}()
		c := <-r.held
		require.False(t, c.Gone())
		cancel()
		require.Equal(t, codes.Canceled, status.Code(<-failed))
		// A call after it on the same connection has come behind the reset.
		_, err := client.UnaryCall(testContext(t), simple(1, 1))
		require.NoError(t, err)
		require.True(t, c.Gone())
		var b Batch
		c.Reply(&pb.SimpleResponse{}, nil, &b)
		b.Flush()
	})
	t.Run("the connection goes", func(t *testing.T) {
		st, err := client.FullDuplexCall(testContext(t))
		require.NoError(t, err)
		require.NoError(t, st.Send(&pb.StreamingOutputCallRequest{ResponseStatus: &pb.EchoStatus{}}))
		ctx := <-r.began
		require.NoError(t, cc.Close())
		<-ctx.Done()
		<-r.ended
	})
}

func TestLeaveAnswersWhatIsUnderWay(t *testing.T) {
	ctx := testContext(t)
	r := newRig(t)
	client, _ := dial(t, r.addr)
	answered := make(chan error, 100)
	for range cap(answered) {
		go func() {
			_, err := client.UnaryCall(ctx, &pb.SimpleRequest{FillOauthScope: true})
			answered <- err
		}()
	}
	var calls []Call
	for range cap(answered) {
		calls = append(calls, <-r.held)
	}
	left := make(chan struct{})
	go func() { r.front.Leave(ctx); close(left) }()
	<-r.served // no connection is accepted any more
	r.served <- ErrStopped
	select {
	case <-left:
		t.Fatal("left before the calls were answered")
	default:
	}
	var b Batch
	for _, c := range calls {
		c.Reply(&pb.SimpleResponse{}, nil, &b)
	}
	b.Flush()
	for range cap(answered) {
		require.NoError(t, <-answered)
	}
	<-left
	require.NoError(t, ctx.Err())
}

// TestLeaveIsNotSeen has two fronts and one client of both, whose calls never fail while one of them leaves.
func TestLeaveIsNotSeen(t *testing.T) {
	ctx := testContext(t)
	first, second := newRig(t), newRig(t)
	client, cc := dialBoth(t, first.addr, second.addr)
	for {
		if _, err := client.UnaryCall(ctx, simple(1, 1)); err == nil && cc.GetState().String() == "READY" {
			break
		}
		require.NoError(t, ctx.Err())
	}
	var wg sync.WaitGroup
	stop, warm := make(chan struct{}), make(chan struct{}, 8)
	for range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := client.UnaryCall(ctx, simple(100, 100)); !assert.NoError(t, err) {
					return
				}
				if n == 10 {
					warm <- struct{}{}
				}
			}
		})
	}
	for range 8 {
		<-warm
	}
	first.front.Leave(ctx)
	require.NoError(t, ctx.Err())
	for range 50 {
		_, err := client.UnaryCall(ctx, simple(1, 1))
		require.NoError(t, err)
	}
	close(stop)
	wg.Wait()
}

func TestStopEndsCalls(t *testing.T) {
	ctx := testContext(t)
	r := newRig(t)
	client, _ := dial(t, r.addr)
	st, err := client.FullDuplexCall(ctx)
	require.NoError(t, err)
	require.NoError(t, st.Send(&pb.StreamingOutputCallRequest{ResponseStatus: &pb.EchoStatus{}}))
	<-r.began
	go func() { _, _ = client.UnaryCall(ctx, &pb.SimpleRequest{FillOauthScope: true}) }()
	c := <-r.held
	r.front.Stop()
	require.ErrorIs(t, <-r.ended, errClientGone)
	require.True(t, c.Gone())
	_, err = st.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
}
