package client

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// transport carries requests to one endpoint, one attempt each. Everything that the client asks of a server passes
// through it, so a faster way to carry requests replaces it in one place.
type transport interface {
	// unary sends req and fills in resp. sent is false only when no server can have got the request, nor ever will.
	unary(ctx context.Context, ep *endpoint, method string, req, resp proto.Message) (sent bool, err error)
	// stream opens a stream, which ends when ctx is done.
	stream(ctx context.Context, ep *endpoint, desc *grpc.StreamDesc, method string) (grpc.ClientStream, error)
}

// grpcTransport sends each request as the unary RPC that it is in etcd's API.
type grpcTransport struct{}

func (grpcTransport) unary(ctx context.Context, ep *endpoint, method string, req, resp proto.Message) (bool, error) {
	// gRPC fills in the peer exactly when the request was given to a connection that stood. A request that was refused
	// for want of a connection, or that a server declared unprocessed, leaves it empty.
	var to peer.Peer
	err := ep.conn.Load().Invoke(withMetadata(ctx), method, req, resp, grpc.Peer(&to))
	return to.Addr != nil, err
}

func (grpcTransport) stream(ctx context.Context, ep *endpoint, desc *grpc.StreamDesc, method string) (grpc.ClientStream, error) {
	return ep.conn.Load().NewStream(withMetadata(ctx), desc, method)
}

// hasLeader is the metadata with which a member without a leader refuses a request instead of letting it wait: a write
// then has a certain outcome, and the client another member to ask.
const (
	hasLeaderKey   = "hasleader"
	hasLeaderValue = "true"
)

// tokenKey is the metadata that carries a user's token.
const tokenKey = "token"

// marks are what a request says besides its message. They travel in its context to the transport.
type marks struct {
	token  string // of the user; "" for none
	leader bool   // a member without a leader is to refuse it
}

type marksKey struct{}

func marksOf(ctx context.Context) marks {
	m, _ := ctx.Value(marksKey{}).(marks)
	return m
}

func requireLeader(ctx context.Context) context.Context {
	m := marksOf(ctx)
	m.leader = true
	return context.WithValue(ctx, marksKey{}, m)
}

func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	m := marksOf(ctx)
	m.token = token
	return context.WithValue(ctx, marksKey{}, m)
}

// withMetadata turns the marks of a request into the metadata of an RPC.
func withMetadata(ctx context.Context) context.Context {
	m := marksOf(ctx)
	if m.leader {
		ctx = metadata.AppendToOutgoingContext(ctx, hasLeaderKey, hasLeaderValue)
	}
	if m.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, tokenKey, m.token)
	}
	return ctx
}

// method is an RPC, and how it may be treated.
type method struct {
	full string // gRPC's name
	name string // ours, for errors
	// read means that the request changes nothing, so that it may be sent as often as needed.
	read bool
	// local means that a member may answer from its own state, without a leader.
	local bool
}

// The RPCs of the client.
var (
	methodRange      = method{full: pb.KV_Range_FullMethodName, name: "get", read: true}
	methodRangeLocal = method{full: pb.KV_Range_FullMethodName, name: "get", read: true, local: true}
	methodPut        = method{full: pb.KV_Put_FullMethodName, name: "put"}
	methodDelete     = method{full: pb.KV_DeleteRange_FullMethodName, name: "delete"}
	methodTxn        = method{full: pb.KV_Txn_FullMethodName, name: "txn"}
	methodTxnRead    = method{full: pb.KV_Txn_FullMethodName, name: "txn", read: true}
	methodCompact    = method{full: pb.KV_Compact_FullMethodName, name: "compact"}
	methodGrant      = method{full: pb.Lease_LeaseGrant_FullMethodName, name: "grant lease"}
	methodRevoke     = method{full: pb.Lease_LeaseRevoke_FullMethodName, name: "revoke lease"}
	methodTimeToLive = method{full: pb.Lease_LeaseTimeToLive_FullMethodName, name: "lease time to live", read: true}
	methodLeases     = method{full: pb.Lease_LeaseLeases_FullMethodName, name: "list leases", read: true}
	methodKeepAlive  = method{full: pb.Lease_LeaseKeepAlive_FullMethodName, name: "keep lease alive", read: true}
	methodMembers    = method{full: pb.Cluster_MemberList_FullMethodName, name: "list members", read: true}
	methodAddMember  = method{full: pb.Cluster_MemberAdd_FullMethodName, name: "add member"}
	methodRemove     = method{full: pb.Cluster_MemberRemove_FullMethodName, name: "remove member"}
	methodUpdate     = method{full: pb.Cluster_MemberUpdate_FullMethodName, name: "update member"}
	methodPromote    = method{full: pb.Cluster_MemberPromote_FullMethodName, name: "promote member"}
	methodMoveLeader = method{full: pb.Maintenance_MoveLeader_FullMethodName, name: "move leader"}
	methodStatus     = method{full: pb.Maintenance_Status_FullMethodName, name: "status", read: true, local: true}
	methodWatch      = method{full: pb.Watch_Watch_FullMethodName, name: "watch", read: true}
	streamKeepAlive  = &pb.Lease_ServiceDesc.Streams[0]
	streamWatch      = &pb.Watch_ServiceDesc.Streams[0]
)

// streamError returns why a stream could not be sent on: gRPC says it to the receiver only, and io.EOF to the sender.
func streamError(stream grpc.ClientStream, err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	var nothing emptypb.Empty
	if err := stream.RecvMsg(&nothing); err != nil {
		return err
	}
	return err
}
