package client

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// judgeCases are the errors that servers and gRPC really give.
var judgeCases = []struct {
	err       error
	kind      error
	uncertain bool // of a write that was sent
	again     bool // the same write
	readAgain bool
}{
	// Refused: certain, and no use to try again.
	{rpctypes.ErrGRPCEmptyKey, ErrEmptyKey, false, false, false},
	{rpctypes.ErrGRPCKeyNotFound, ErrKeyNotFound, false, false, false},
	{rpctypes.ErrGRPCValueProvided, ErrInvalid, false, false, false},
	{rpctypes.ErrGRPCTooManyOps, ErrTooManyOps, false, false, false},
	{rpctypes.ErrGRPCDuplicateKey, ErrDuplicateKey, false, false, false},
	{rpctypes.ErrGRPCInvalidSortOption, ErrInvalid, false, false, false},
	{rpctypes.ErrGRPCCompacted, ErrCompacted, false, false, false},
	{rpctypes.ErrGRPCFutureRev, ErrFutureRevision, false, false, false},
	{rpctypes.ErrGRPCNoSpace, ErrNoSpace, false, false, false},
	{rpctypes.ErrGRPCLeaseNotFound, ErrLeaseNotFound, false, false, false},
	{rpctypes.ErrGRPCLeaseExist, ErrLeaseExists, false, false, false},
	{rpctypes.ErrGRPCLeaseTTLTooLarge, ErrLeaseTTLTooLarge, false, false, false},
	{rpctypes.ErrGRPCRequestTooLarge, ErrTooLarge, false, false, false},
	{rpctypes.ErrGRPCPermissionDenied, ErrPermissionDenied, false, false, false},
	{rpctypes.ErrGRPCInvalidAuthToken, ErrUnauthenticated, false, false, false},
	{rpctypes.ErrGRPCAuthOldRevision, ErrUnauthenticated, false, false, false},
	{rpctypes.ErrGRPCUserEmpty, ErrUnauthenticated, false, false, false},
	{rpctypes.ErrGRPCAuthFailed, ErrUnauthenticated, false, false, false},
	{rpctypes.ErrGRPCCorrupt, ErrCorrupt, false, false, false},
	{status.Error(codes.Unimplemented, "unknown method"), ErrNotSupported, false, false, false},
	{status.Error(codes.ResourceExhausted, "trying to send message larger than max (5 vs. 4)"), ErrTooLarge, false, false, false},
	{status.Error(codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)"), ErrTooLarge, false, false, false},
	// Misdirected: certain, and another member may do it.
	{rpctypes.ErrGRPCNoLeader, ErrNoLeader, false, true, true},
	{rpctypes.ErrGRPCNotLeader, ErrNoLeader, false, true, true},
	{rpctypes.ErrGRPCNotSupportedForLearner, ErrNotSupported, false, true, true},
	{rpctypes.ErrGRPCRequestTooManyRequests, ErrOverloaded, false, true, true},
	// etcd 3.7 gives it this code.
	{status.Error(codes.Unknown, rpctypes.ErrTooManyRequests.Error()), ErrOverloaded, false, true, true},
	{rpctypes.ErrGRPCNotCapable, ErrNotSupported, false, true, true},
	{status.Error(codes.Unknown, "raft proposal dropped"), ErrNoLeader, false, true, true},
	// Unknown: the write may be executed; a read is repeated.
	{rpctypes.ErrGRPCTimeout, ErrUnavailable, true, false, true},
	{rpctypes.ErrGRPCTimeoutDueToLeaderFail, ErrUnavailable, true, false, true},
	{rpctypes.ErrGRPCTimeoutDueToConnectionLost, ErrUnavailable, true, false, true},
	{rpctypes.ErrGRPCTimeoutWaitAppliedIndex, ErrUnavailable, true, false, true},
	{rpctypes.ErrGRPCLeaderChanged, ErrNoLeader, true, false, true},
	{rpctypes.ErrGRPCStopped, ErrUnavailable, true, false, true},
	{status.Error(codes.Unavailable, "error reading from server: EOF"), ErrUnavailable, true, false, true},
	{status.Error(codes.Canceled, "grpc: the client connection is closing"), ErrUnavailable, true, false, true},
	{status.Error(codes.Internal, "stream terminated by RST_STREAM"), nil, true, false, true},
	{status.Error(codes.DeadlineExceeded, "context deadline exceeded"), nil, true, false, true},
	{status.Error(codes.Unknown, "something else"), nil, true, false, false},
	{status.Error(codes.ResourceExhausted, fmt.Sprintf("grpc: received message larger than max (2147483648 vs. %d)", responseBytesMax)), ErrTooLarge, true, false, true},
}

// TestJudge holds the published table of outcomes against them: what each means for a write that was sent, for one that
// was not, and for a read.
func TestJudge(t *testing.T) {
	for _, c := range judgeCases {
		name := c.err.Error()
		e := judge(methodPut, "m", true, c.err)
		require.Equal(t, c.uncertain, e.Uncertain, name)
		require.Equal(t, c.uncertain, errors.Is(e, ErrUncertain), name)
		require.Equal(t, c.again, e.again, name)
		if c.kind == nil {
			require.NoError(t, e.Kind, name)
		} else {
			require.ErrorIs(t, e, c.kind, name)
		}
		require.False(t, e.Uncertain && e.again, "never repeat what may have been executed: %s", name)

		// What never left is certain, whatever the error says.
		e = judge(methodPut, "m", false, c.err)
		require.False(t, e.Uncertain, name)
		require.Equal(t, c.again || c.uncertain, e.again, name)

		e = judge(methodRange, "m", true, c.err)
		require.False(t, e.Uncertain, "a read is never uncertain: %s", name)
		require.Equal(t, c.readAgain, e.again, name)
	}
}

func TestErrorTellsEverything(t *testing.T) {
	e := judge(methodPut, "10.0.0.1:2379", true, status.Error(codes.Unavailable, "connection reset"))
	require.EqualError(t, e, "put at 10.0.0.1:2379: outcome is uncertain: unavailable: connection reset")
	e = judge(methodPut, "m", true, status.Error(codes.Internal, "odd"))
	require.EqualError(t, e, "put at m: outcome is uncertain: Internal: odd")
	e = judge(methodPut, "", false, rpctypes.ErrGRPCLeaseNotFound)
	require.EqualError(t, e, "put: lease does not exist: etcdserver: requested lease not found")
}

func TestBackoffDelay(t *testing.T) {
	for n := range 100 {
		d := backoffDelay(n, retryDelayMin, retryDelayMax)
		want := retryDelayMax
		if n < 6 {
			want = retryDelayMin << n
		}
		require.GreaterOrEqual(t, d, want/2)
		require.LessOrEqual(t, d, want)
	}
}
