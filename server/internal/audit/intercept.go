package audit

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Identify returns the name of the user who makes a call.
type Identify func(ctx context.Context) string

// Unary is the interceptor of unary methods. It belongs around the one that decides about rights.
func (l *Log) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	m, ok := req.(proto.Message)
	if !ok {
		return handler(ctx, req)
	}
	before := l.begin(ctx, info.FullMethod, m) // a token may end with the call, and the handler may change the request
	response, err := handler(ctx, req)
	if r, ok := response.(interface{ GetHeader() *pb.ResponseHeader }); ok && err == nil {
		before.Revision = r.GetHeader().GetRevision()
	}
	l.end(before, reads(info.FullMethod, m), err)
	return response, err
}

// Stream is the interceptor of streams. It belongs inside of the one that decides about rights, and writes what came of
// each request. Watches are written by Watch instead.
func (l *Log) Stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if info.FullMethod == pb.Watch_Watch_FullMethodName {
		return handler(srv, s)
	}
	return handler(srv, &stream{s, l, info.FullMethod})
}

// Watch is to be called when it was decided about a watch: err is why it was refused.
func (l *Log) Watch(ctx context.Context, r *pb.WatchCreateRequest, err error) {
	m := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
	l.end(l.begin(ctx, pb.Watch_Watch_FullMethodName, m), true, err)
}

type stream struct {
	grpc.ServerStream
	log    *Log
	method string
}

// RecvMsg receives what the caller may ask for, or fails and has received what he may not.
func (s *stream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	request, ok := m.(proto.Message)
	if !ok || err != nil && !refused(err) {
		return err
	}
	s.log.end(s.log.begin(s.Context(), s.method, request), reads(s.method, request), err)
	return err
}

func (l *Log) begin(ctx context.Context, method string, m proto.Message) entry {
	e := entry{Time: time.Now(), Method: method, User: text(l.who(ctx))}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		e.From = p.Addr.String()
	}
	e.describe(method, m)
	return e
}

// end writes a line about what deserves one.
func (l *Log) end(e entry, reads bool, err error) {
	if reads && !l.reads && !refused(err) {
		return
	}
	s := status.Convert(err)
	e.Outcome, e.Error = s.Code().String(), s.Message()
	l.write(e)
}

// refused reports whether a request failed for want of rights.
func refused(err error) bool {
	switch s := status.Convert(err); s.Code() {
	case codes.PermissionDenied, codes.Unauthenticated:
		return true
	default:
		return err != nil && s.Message() == rpctypes.ErrorDesc(rpctypes.ErrGRPCUserEmpty)
	}
}
