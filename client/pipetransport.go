package client

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
)

// pipeRetry is the pause before a pipe is opened anew that has ended while its connection stands.
const pipeRetry = time.Second

// pipeMethods are the RPCs that a pipe carries.
var pipeMethods = map[string]latchkeyv1.Method{
	pb.KV_Range_FullMethodName:              latchkeyv1.Method_METHOD_RANGE,
	pb.KV_Put_FullMethodName:                latchkeyv1.Method_METHOD_PUT,
	pb.KV_DeleteRange_FullMethodName:        latchkeyv1.Method_METHOD_DELETE_RANGE,
	pb.KV_Txn_FullMethodName:                latchkeyv1.Method_METHOD_TXN,
	pb.KV_Compact_FullMethodName:            latchkeyv1.Method_METHOD_COMPACT,
	pb.Lease_LeaseGrant_FullMethodName:      latchkeyv1.Method_METHOD_LEASE_GRANT,
	pb.Lease_LeaseRevoke_FullMethodName:     latchkeyv1.Method_METHOD_LEASE_REVOKE,
	pb.Lease_LeaseTimeToLive_FullMethodName: latchkeyv1.Method_METHOD_LEASE_TIME_TO_LIVE,
}

// pipeTransport sends requests on the endpoint's pipe, if there is one: many travel together then. All others, and those
// that a pipe does not take, are unary RPCs.
type pipeTransport struct{ grpcTransport }

func (t pipeTransport) unary(ctx context.Context, ep *endpoint, r request, resp proto.Message) (bool, error) {
	if p, number := ep.pipe.Load(), pipeMethods[r.method]; p != nil && number != 0 {
		// Metadata of the caller's own is for an RPC.
		if _, own := metadata.FromOutgoingContext(ctx); !own {
			if taken, sent, err := p.do(ctx, r, number, resp); taken {
				return sent, err
			}
		}
	}
	return t.grpcTransport.unary(ctx, ep, r, resp)
}

// keepPipe keeps a pipe open at an endpoint whose server has them, until ctx is done.
func (co *core) keepPipe(ctx context.Context, ep *endpoint) {
	for ctx.Err() == nil {
		conn := ep.conn.Load()
		err := co.servePipe(ctx, ep, conn)
		switch {
		case ctx.Err() != nil:
		case status.Code(err) == codes.Unimplemented:
			conn.WaitForStateChange(ctx, connectivity.Ready) // another server may answer next time
		case conn.GetState() == connectivity.Ready:
			co.sleep(ctx, pipeRetry)
		}
	}
}

// servePipe opens a pipe when the endpoint is connected, and serves it until it ends.
func (co *core) servePipe(ctx context.Context, ep *endpoint, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &latchkeyv1.Pipe_ServiceDesc.Streams[0], latchkeyv1.Pipe_Carry_FullMethodName,
		grpc.WaitForReady(true), grpc.ForceCodecV2(pipeCodec{}))
	if err != nil {
		return err
	}
	p := &pipe{core: co, ep: ep, stream: stream, calls: make(map[uint64]*pipeCall)}
	err = p.receive()
	ep.pipe.CompareAndSwap(p, nil)
	p.fail(err)
	return err
}
