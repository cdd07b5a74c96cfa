package rpc

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
	"github.com/latchkey-go/latchkey/server/internal/front"
)

// pipeMethods are the methods whose requests travel on pipes, too.
var pipeMethods = map[int32]string{
	int32(latchkeyv1.Method_METHOD_RANGE):              pb.KV_Range_FullMethodName,
	int32(latchkeyv1.Method_METHOD_PUT):                pb.KV_Put_FullMethodName,
	int32(latchkeyv1.Method_METHOD_DELETE_RANGE):       pb.KV_DeleteRange_FullMethodName,
	int32(latchkeyv1.Method_METHOD_TXN):                pb.KV_Txn_FullMethodName,
	int32(latchkeyv1.Method_METHOD_COMPACT):            pb.KV_Compact_FullMethodName,
	int32(latchkeyv1.Method_METHOD_LEASE_GRANT):        pb.Lease_LeaseGrant_FullMethodName,
	int32(latchkeyv1.Method_METHOD_LEASE_REVOKE):       pb.Lease_LeaseRevoke_FullMethodName,
	int32(latchkeyv1.Method_METHOD_LEASE_TIME_TO_LIVE): pb.Lease_LeaseTimeToLive_FullMethodName,
}

// ServePipes has s carry the requests of methods that are registered with it on streams of latchkey.v1.Pipe. The front
// serves them itself, so the service has no code here.
func ServePipes(s *front.Server) {
	latchkeyv1.RegisterPipeServer(s, latchkeyv1.UnimplementedPipeServer{})
	s.ServePipe(latchkeyv1.Pipe_Carry_FullMethodName, pipeMethods)
}
