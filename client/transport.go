package client

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// transport carries requests to one endpoint, one attempt each. Everything that the client asks of a server passes
// through it, so a faster way to carry requests replaces it in one place.
type transport interface {
	// unary sends a request and fills in resp. sent is false only when no server can have got the request, nor ever will.
	unary(ctx context.Context, ep *endpoint, r request, resp proto.Message) (sent bool, err error)
	// stream opens a stream, which ends when ctx is done.
	stream(ctx context.Context, ep *endpoint, desc *grpc.StreamDesc, method string) (grpc.ClientStream, error)
}

// request is what a transport is to send.
type request struct {
	method string // gRPC's name
	body   proto.Message
	token  string // of the user; "" for none
	leader bool   // a member without a leader is to refuse it
	// limit bounds the attempt; 0 leaves that to the context. It costs less than a context with a deadline.
	limit time.Duration
}

// grpcTransport sends each request as the unary RPC that it is in etcd's API.
type grpcTransport struct{}

func (grpcTransport) unary(ctx context.Context, ep *endpoint, r request, resp proto.Message) (bool, error) {
	if r.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.limit)
		defer cancel()
	}
	if r.leader {
		ctx = requireLeader(ctx)
	}
	// gRPC fills in the peer exactly when the request was given to a connection that stood. A request that was refused
	// for want of a connection, or that a server declared unprocessed, leaves it empty.
	var to peer.Peer
	err := ep.conn.Load().Invoke(withToken(ctx, r.token), r.method, r.body, resp, grpc.Peer(&to))
	return to.Addr != nil, err
}

func (grpcTransport) stream(ctx context.Context, ep *endpoint, desc *grpc.StreamDesc, method string) (grpc.ClientStream, error) {
	return ep.conn.Load().NewStream(ctx, desc, method)
}

// The metadata of RPCs. With hasLeader a member without a leader refuses a request instead of letting it wait: a write
// then has a certain outcome, and the client another member to ask.
const (
	tokenKey       = "token" // of a user
	hasLeaderKey   = "hasleader"
	hasLeaderValue = "true"
)

// requireLeader adds hasLeader to what an RPC carries.
func requireLeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, hasLeaderKey, hasLeaderValue)
}

// withToken adds a token, if there is one, to what an RPC carries.
func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, tokenKey, token)
}

// method is an RPC, and how it may be treated.
type method struct {
	full string // gRPC's name
	name string // ours, for errors
	// read means that the request changes nothing, so that it may be sent as often as needed.
	read bool
	// local means that a member may answer from its own state, without a leader.
	local bool
	// write means that the leader puts the request into the log.
	write bool
}

// The RPCs of the client.
var (
	methodRange      = method{full: pb.KV_Range_FullMethodName, name: "get", read: true}
	methodRangeLocal = method{full: pb.KV_Range_FullMethodName, name: "get", read: true, local: true}
	methodPut        = method{full: pb.KV_Put_FullMethodName, name: "put", write: true}
	methodDelete     = method{full: pb.KV_DeleteRange_FullMethodName, name: "delete", write: true}
	methodTxn        = method{full: pb.KV_Txn_FullMethodName, name: "txn", write: true}
	methodTxnRead    = method{full: pb.KV_Txn_FullMethodName, name: "txn", read: true}
	methodCompact    = method{full: pb.KV_Compact_FullMethodName, name: "compact", write: true}
	methodGrant      = method{full: pb.Lease_LeaseGrant_FullMethodName, name: "grant lease", write: true}
	methodRevoke     = method{full: pb.Lease_LeaseRevoke_FullMethodName, name: "revoke lease", write: true}
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

// lastWordTimeout is how long it is waited to be told why nothing can be sent on a stream.
const lastWordTimeout = time.Second

// errBroken ends a stream on which nothing can be sent, without a word why. gRPC opens a stream anew by itself if its
// connection breaks before the server has seen it, and repeats what was sent. If the next connection breaks while it does,
// then the sender gets io.EOF, and a receiver waits for ever (gRPC 1.85).
var errBroken = status.Error(codes.Unavailable, "nothing can be sent on the stream")

// streamError returns why a stream could not be sent on: gRPC says it to the receiver only, and io.EOF to the sender. The
// stream ends with cancel.
func streamError(stream grpc.ClientStream, cancel context.CancelFunc, err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	giveUp := time.AfterFunc(lastWordTimeout, cancel)
	var nothing emptypb.Empty
	told := stream.RecvMsg(&nothing)
	switch {
	case !giveUp.Stop():
		return errBroken
	case told != nil:
		return told
	}
	return err
}
