package rpc

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Errors of Mover.
var (
	// ErrNotLeader: another member leads.
	ErrNotLeader = errors.New("not leader")
	// ErrBadLeaderTransferee: the target is no voting member.
	ErrBadLeaderTransferee = errors.New("bad leader transferee")
	// ErrTimeoutLeaderTransfer: the target does not lead in time. It may later.
	ErrTimeoutLeaderTransfer = errors.New("etcdserver: request timed out, leader transfer took too long")
)

// Mover hands leadership over.
type Mover interface {
	// MoveLeader returns once member to leads. Only the leader can do it.
	MoveLeader(ctx context.Context, to uint64) error
}

// MoveLeader hands leadership to another member. Its response has no header, as
// etcd's.
func (s *Maintenance) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	if err := s.mover.MoveLeader(ctx, r.TargetID); err != nil {
		return nil, wireError(err)
	}
	return &pb.MoveLeaderResponse{}, nil
}
