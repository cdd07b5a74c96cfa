package peer

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	serviceName    = "latchkey.peer.v1.Peer"
	methodBulk     = "/" + serviceName + "/Bulk"
	methodControl  = "/" + serviceName + "/Control"
	methodSnapshot = "/" + serviceName + "/Snapshot"
	methodCall     = "/" + serviceName + "/Call"

	streamWindowBytes = 4 << 20 // what a member may send before the other one reads it, a stream
	connWindowBytes   = 8 << 20
)

var (
	bulkDesc     = &grpc.StreamDesc{StreamName: "Bulk", ClientStreams: true, ServerStreams: true}
	controlDesc  = &grpc.StreamDesc{StreamName: "Control", ClientStreams: true, ServerStreams: true}
	snapshotDesc = &grpc.StreamDesc{StreamName: "Snapshot", ClientStreams: true, ServerStreams: true}
)

// ServerOptions are what the gRPC server needs that Register is called with: the codec of frames, which serves no other
// service, limits, windows, and pings that find a silent peer within two seconds. Credentials are the caller's to add.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(frameMaxBytes),
		grpc.MaxSendMsgSize(frameMaxBytes),
		grpc.StaticStreamWindowSize(streamWindowBytes),
		grpc.StaticConnWindowSize(connWindowBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Second, Timeout: time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	}
}

// Register adds the peer service to a server made with ServerOptions.
func (t *Transport) Register(s *grpc.Server) {
	stream := func(desc *grpc.StreamDesc, serve func(grpc.ServerStream) error) grpc.StreamDesc {
		d := *desc
		d.Handler = func(_ any, s grpc.ServerStream) error { return serve(s) }
		return d
	}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			return t.serveCall(ctx, decode)
		}}},
		Streams: []grpc.StreamDesc{
			stream(bulkDesc, t.serveMessages),
			stream(controlDesc, t.serveMessages),
			stream(snapshotDesc, t.serveSnapshot),
		},
	}, t)
}

// admit checks the handshake of an incoming stream or call and registers it with Close. The caller ends it with wg.Done
// when err is nil.
func (t *Transport) admit(ctx context.Context) (from uint64, err error) {
	md, _ := metadata.FromIncomingContext(ctx)
	h, err := parseHello(md)
	if err == nil {
		err = h.check(t.cluster, t.id, 0)
	}
	if err != nil {
		t.refuse(err)
		return 0, status.Error(codes.FailedPrecondition, err.Error())
	}
	if !t.known(h.from) {
		// Not logged: a member that was just added comes before the entry that adds it was applied here.
		t.counters.rejected.Add(1)
		return 0, status.Errorf(codes.PermissionDenied, "member %x does not know member %x", t.id, h.from)
	}
	if !t.enter() {
		return 0, status.Error(codes.Unavailable, ErrClosed.Error())
	}
	return h.from, nil
}

// greet answers the handshake.
func (t *Transport) greet(stream grpc.ServerStream, from uint64) error {
	return stream.SendHeader(hello{cluster: t.cluster, from: t.id, to: from}.metadata())
}

// serveMessages serves one incoming bulk or control stream. Messages are received by a goroutine of their own, so that
// pulses go out whatever the handler does and Close can end the stream: gRPC ends a stream, and with it a receive that
// waits, when its method returns.
func (t *Transport) serveMessages(stream grpc.ServerStream) error {
	from, err := t.admit(stream.Context())
	if err != nil {
		return err
	}
	defer t.wg.Done()
	if err := t.greet(stream, from); err != nil {
		return err
	}
	end := make(chan error, 1) // has one sender, which must not wait for us
	t.wg.Go(func() { end <- t.receive(from, stream) })
	pulse := time.NewTicker(t.timing.pulse)
	defer pulse.Stop()
	for {
		select {
		case err := <-end:
			return err
		case <-t.ctx.Done():
			return status.Error(codes.Unavailable, ErrClosed.Error())
		case <-pulse.C:
			if err := stream.SendMsg(sealBytes()); err != nil {
				return err
			}
		}
	}
}

// receive delivers what comes on a stream until it ends, which without an error means that the sender is done.
func (t *Transport) receive(from uint64, stream grpc.ServerStream) error {
	var f frame
	for {
		if err := stream.RecvMsg(&f); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		t.counters.framesReceived.Add(1)
		t.counters.bytesReceived.Add(uint64(f.buf.Len()))
		err := decodeMessages(f.body(), func(m *raftpb.Message) error { return t.deliver(from, m) })
		f.free()
		if err != nil {
			t.log.Warn("ended a peer's stream", "peer", formatID(from), "reason", err.Error())
			return status.Error(codes.InvalidArgument, err.Error())
		}
	}
}

// deliver gives m to the handler, or drops it when it must not reach raft: after a change of members that is normal.
func (t *Transport) deliver(from uint64, m *raftpb.Message) error {
	if t.ctx.Err() != nil {
		return ErrClosed
	}
	if !t.known(from) {
		return errors.New("no longer a member")
	}
	if err := t.checkMessage(from, m); err != nil {
		t.counters.rejected.Add(1)
		t.refuse(err)
		return nil
	}
	t.counters.messagesReceived.Add(1)
	t.handler.Message(m)
	return nil
}

func (t *Transport) serveCall(ctx context.Context, decode func(any) error) (any, error) {
	from, err := t.admit(ctx)
	if err != nil {
		return nil, err
	}
	defer t.wg.Done()
	var question frame
	if err := decode(&question); err != nil {
		return nil, err
	}
	defer question.free()
	body := question.body()
	if len(body) == 0 || len(body) > maxCallBytes {
		return nil, status.Errorf(codes.InvalidArgument, "call of %d bytes", len(body))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.ctx, func() { cancel(ErrClosed) })()
	answer, err := t.handler.Call(ctx, from, body[0], slices.Clone(body[1:]))
	if err != nil {
		return nil, err // gRPC keeps a status error as it is and makes any other one Unknown with its text
	}
	if len(answer) > maxCallBytes {
		return nil, status.Errorf(codes.Internal, "answer of %d bytes", len(answer))
	}
	return sealBytes(answer), nil
}
