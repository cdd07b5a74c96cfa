package clienttest

import (
	"context"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// answerLoss drops answers: the request is executed, and the client told that the connection was lost. Every second
// request that is dropped does not reach the server, which looks the same from outside.
type answerLoss struct {
	method string // suffix of the RPC's name
	every  int64
	count  atomic.Int64
	lost   atomic.Int64
}

func (a *answerLoss) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if !strings.HasSuffix(method, a.method) || a.count.Add(1)%a.every != 0 {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	if n := a.lost.Add(1); n%2 == 0 {
		// A health check takes the place of the request, so that the client believes that it was sent.
		check := healthpb.Health_Check_FullMethodName
		if err := cc.Invoke(ctx, check, &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}, opts...); err != nil {
			return err
		}
	} else if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, "clienttest: the answer was dropped")
}
