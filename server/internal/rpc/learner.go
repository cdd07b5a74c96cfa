package rpc

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// servedByLearner tells what a learner answers besides streams: it may be far
// behind, and must not pretend otherwise.
func servedByLearner(request any) bool {
	switch r := request.(type) {
	case *pb.StatusRequest:
		return true
	case *pb.RangeRequest:
		return r.Serializable
	default:
		return false
	}
}

// LearnerStreams returns the interceptor that refuses the streams which a learner
// does not serve, all but snapshots, and those whose caller requires a leader
// while this member knows none, and else goes on to next.
func LearnerStreams(node Node, next grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if info.FullMethod != pb.Maintenance_Snapshot_FullMethodName && node.Learner() {
			return wireError(ErrNotForLearner)
		}
		if requiresLeader(stream.Context()) && !node.HasLeader() {
			return wireError(ErrNoLeader)
		}
		return next(srv, stream, info, handler)
	}
}
