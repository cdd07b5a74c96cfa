package server

import (
	"context"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/latchkey-go/latchkey/api/v3electionpb"
	"github.com/latchkey-go/latchkey/api/v3lockpb"
	"github.com/latchkey-go/latchkey/server/internal/contention"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
)

// registerContention registers the lock and the election service. Their calls
// of the other services pass the interceptor that clients' own calls pass.
func registerContention(r grpc.ServiceRegistrar, b backend, kv *rpc.KV, lease *rpc.Lease, intercept grpc.UnaryServerInterceptor) {
	own := asCaller{intercept: intercept, kv: kv, lease: lease}
	c := contention.Config{KV: own, Leases: own, Renewer: b, Member: b, Logger: b.log}
	v3lockpb.RegisterLockServer(r, contention.NewLock(c))
	v3electionpb.RegisterElectionServer(r, contention.NewElection(c))
}

// contentionCodes has a call of these services that next refuses for want of
// rights answered with the code that etcd's services give: they would have
// learned it from the store.
func contentionCodes(next grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	services := []string{"/" + v3lockpb.Lock_ServiceDesc.ServiceName + "/", "/" + v3electionpb.Election_ServiceDesc.ServiceName + "/"}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		resp, err := next(ctx, req, info, handler)
		if err == nil {
			return resp, nil
		}
		for _, service := range services {
			if strings.HasPrefix(info.FullMethod, service) {
				return resp, contention.Refusal(err)
			}
		}
		return resp, err
	}
}

// asCaller calls services of this member on behalf of whoever called another
// one: with the context of that call, and so with its caller's rights.
type asCaller struct {
	intercept grpc.UnaryServerInterceptor
	kv        *rpc.KV
	lease     *rpc.Lease
}

// Range implements contention.KV.
func (c asCaller) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	return intercepted(ctx, c.intercept, c.kv, pb.KV_Range_FullMethodName, r, c.kv.Range)
}

// DeleteRange implements contention.KV.
func (c asCaller) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	return intercepted(ctx, c.intercept, c.kv, pb.KV_DeleteRange_FullMethodName, r, c.kv.DeleteRange)
}

// Txn implements contention.KV.
func (c asCaller) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return intercepted(ctx, c.intercept, c.kv, pb.KV_Txn_FullMethodName, r, c.kv.Txn)
}

// LeaseGrant implements contention.Leases.
func (c asCaller) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	return intercepted(ctx, c.intercept, c.lease, pb.Lease_LeaseGrant_FullMethodName, r, c.lease.LeaseGrant)
}

// LeaseRevoke implements contention.Leases.
func (c asCaller) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	return intercepted(ctx, c.intercept, c.lease, pb.Lease_LeaseRevoke_FullMethodName, r, c.lease.LeaseRevoke)
}

// intercepted calls method as the gRPC server would.
func intercepted[Q, R any](ctx context.Context, intercept grpc.UnaryServerInterceptor, service any, name string,
	request *Q, method func(context.Context, *Q) (*R, error),
) (*R, error) {
	info := &grpc.UnaryServerInfo{Server: service, FullMethod: name}
	response, err := intercept(ctx, request, info, func(ctx context.Context, request any) (any, error) {
		q, _ := request.(*Q) // interceptors do not change its type
		return method(ctx, q)
	})
	if err != nil {
		return nil, err
	}
	r, _ := response.(*R)
	return r, nil
}
