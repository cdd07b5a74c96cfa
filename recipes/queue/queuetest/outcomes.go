package queuetest

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// outcomes counts the transactions in an answer, those inside another one
// included, and those of them whose conditions did not hold.
func outcomes(reply any) (txns, failed int64) {
	r, ok := reply.(*pb.TxnResponse)
	if !ok {
		return 0, 0
	}
	txns = 1
	if !r.Succeeded {
		failed = 1
	}
	for _, op := range r.Responses {
		if inner := op.GetResponseTxn(); inner != nil {
			n, bad := outcomes(inner)
			txns, failed = txns+n, failed+bad
		}
	}
	return txns, failed
}
