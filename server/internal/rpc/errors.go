package rpc

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// Errors of the member itself. All but ErrTimeout are definite: the request
// had no effect.
var (
	// ErrTimeout: no answer within the request timeout. The fate of a write is
	// unknown.
	ErrTimeout = errors.New("request timed out")
	// ErrTimeoutLeaderFailed is ErrTimeout while the cluster had no leader.
	ErrTimeoutLeaderFailed = errors.New("request timed out, possibly due to previous leader failure")
	// ErrStopped: the member is stopping.
	ErrStopped = errors.New("server stopped")
	// ErrTooManyRequests: the member's queue is full.
	ErrTooManyRequests = errors.New("too many requests")
	// ErrTooManyLeases: there are as many leases as the member lets there be. etcd
	// has no such bound, and so no text for it.
	ErrTooManyLeases = status.Error(codes.ResourceExhausted, "latchkey: too many leases: revoke some, or raise --max-leases")
	// ErrNoSpace: the live data is over the quota.
	ErrNoSpace = errors.New("database space exceeded")
	// ErrRequestTooLarge: the encoded request is over the limit.
	ErrRequestTooLarge = errors.New("request is too large")
	// ErrNoLeader: the member knows no leader and the caller requires one.
	ErrNoLeader = errors.New("no leader")
)

// wire maps what the member answers to what etcd's clients know. The texts are
// part of the API: clients compare them.
var wire = []struct{ from, to error }{
	{state.ErrCompacted, rpctypes.ErrGRPCCompacted},
	{state.ErrFutureRevision, rpctypes.ErrGRPCFutureRev},
	{state.ErrKeyNotFound, rpctypes.ErrGRPCKeyNotFound},
	{state.ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound},
	{state.ErrLeaseExists, rpctypes.ErrGRPCLeaseExist},
	{state.ErrLeaseTTLTooLarge, rpctypes.ErrGRPCLeaseTTLTooLarge},
	{state.ErrNoSpace, rpctypes.ErrGRPCNoSpace},
	{state.ErrCorrupt, rpctypes.ErrGRPCCorrupt},
	{state.ErrDowngrading, rpctypes.ErrGRPCDowngradeInProcess},
	{ErrTimeout, rpctypes.ErrGRPCTimeout},
	{ErrTimeoutLeaderFailed, rpctypes.ErrGRPCTimeoutDueToLeaderFail},
	{ErrStopped, rpctypes.ErrGRPCStopped},
	{ErrTooManyRequests, rpctypes.ErrGRPCRequestTooManyRequests},
	{ErrNoSpace, rpctypes.ErrGRPCNoSpace},
	{ErrRequestTooLarge, rpctypes.ErrGRPCRequestTooLarge},
	{ErrNoLeader, rpctypes.ErrGRPCNoLeader},
	{state.ErrMemberNotFound, rpctypes.ErrGRPCMemberNotFound},
	{state.ErrMemberRemoved, rpctypes.ErrGRPCMemberNotFound},
	{state.ErrMemberExists, rpctypes.ErrGRPCMemberExist},
	{state.ErrPeerURLExists, rpctypes.ErrGRPCPeerURLExist},
	{state.ErrMemberNotLearner, rpctypes.ErrGRPCMemberNotLearner},
	{state.ErrTooManyLearners, rpctypes.ErrGRPCTooManyLearners},
	{state.ErrLastVoter, rpctypes.ErrMemberNotEnoughStarted},
	{ErrNotEnoughStarted, rpctypes.ErrMemberNotEnoughStarted}, // etcd's client error, so that its code is Unknown
	{ErrMemberBadURLs, rpctypes.ErrGRPCMemberBadURLs},
	{ErrUnhealthy, rpctypes.ErrGRPCUnhealthy},
	{ErrLearnerNotReady, rpctypes.ErrGRPCLearnerNotReady},
	{ErrNotForLearner, rpctypes.ErrGRPCNotSupportedForLearner},
	{ErrNotLeader, rpctypes.ErrGRPCNotLeader},
	{ErrBadLeaderTransferee, rpctypes.ErrGRPCBadLeaderTransferee},
	{context.Canceled, rpctypes.ErrGRPCCanceled},
	{context.DeadlineExceeded, rpctypes.ErrGRPCDeadlineExceeded},
}

// wireError translates err; nil stays nil and a status error stays itself.
func wireError(err error) error {
	if err == nil {
		return nil
	}
	for _, table := range [...][]struct{ from, to error }{wire, authWire} {
		for _, w := range table {
			if errors.Is(err, w.from) {
				return w.to
			}
		}
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unknown, err.Error())
}
