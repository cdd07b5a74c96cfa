package rpc

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// requiresLeader reports whether the caller asked to be refused rather than
// served by a member that is cut off from the leader.
func requiresLeader(ctx context.Context) bool {
	v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey)
	return len(v) > 0 && v[0] == rpctypes.MetadataHasLeader
}

// RequireLeader returns the interceptor that refuses a unary call at once when
// its caller requires a leader and this member knows none.
func RequireLeader(node Node) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if node.Learner() && !servedByLearner(req) {
			return nil, wireError(ErrNotForLearner)
		}
		if requiresLeader(ctx) && !node.HasLeader() {
			return nil, wireError(ErrNoLeader)
		}
		return handler(ctx, req)
	}
}
