package front

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// taking is a service whose streams take their messages.
type taking struct{ *service }

func (s taking) FullDuplexCall(st pb.TestService_FullDuplexCallServer) error {
	defer func() { // whichever way it learns of its end
		if cause := context.Cause(st.Context()); errors.Is(cause, errReset) {
			s.ended <- cause
		}
	}()
	typed := st.(*grpc.GenericServerStream[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse])
	taker := typed.ServerStream.(Taker)
	for {
		var r pb.StreamingOutputCallRequest
		ok, err := taker.TryRecvMsg(&r)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ok:
			if err := st.Send(&pb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
				return err
			}
			continue
		}
		select {
		case <-taker.Arrived():
		case <-st.Context().Done():
			return status.FromContextError(st.Context().Err()).Err()
		}
	}
}

// TestTaker: what is taken is what was sent, as with RecvMsg, to the end of the stream, the limit and the cancellation.
func TestTaker(t *testing.T) {
	s := newService()
	r := &rig{
		service: s, served: make(chan error, 1),
		front: New(Config{Codec: encoding.GetCodecV2(grpcproto.Name), MaxRequestBytes: requestMax}),
	}
	pb.RegisterTestServiceServer(r.front, taking{s})
	r.serve(t)
	c, _ := dial(t, r.addr)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	send := func(st pb.TestService_FullDuplexCallClient, size int) {
		require.NoError(t, st.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: make([]byte, size)}}))
	}

	st, err := c.FullDuplexCall(ctx)
	require.NoError(t, err)
	sizes := []int{1, 0, 70_000, 3 << 20}
	for range 5 {
		for _, size := range sizes { // several may have arrived with one signal
			send(st, size)
		}
		for _, size := range sizes {
			got, err := st.Recv()
			require.NoError(t, err)
			require.Len(t, got.GetPayload().GetBody(), size)
		}
	}
	require.NoError(t, st.CloseSend())
	_, err = st.Recv()
	require.ErrorIs(t, err, io.EOF)

	st, err = c.FullDuplexCall(ctx)
	require.NoError(t, err)
	send(st, requestMax+1)
	_, err = st.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)

	st, err = c.FullDuplexCall(ctx)
	require.NoError(t, err)
	send(st, 1)
	_, err = st.Recv()
	require.NoError(t, err)
	cancel()
	require.ErrorIs(t, <-s.ended, errReset)
	_, err = st.Recv()
	require.Equal(t, codes.Canceled, status.Code(err))
}
