package state

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// IsReadOnly reports whether neither branch of the transaction, nor of any nested in it, holds a write. etcd counts
// every nested transaction as a write; the answers are the same.
func IsReadOnly(r *pb.TxnRequest) bool {
	return readOnly(r.GetSuccess()) && readOnly(r.GetFailure())
}

func readOnly(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		switch o := op.GetRequest().(type) {
		case *pb.RequestOp_RequestPut, *pb.RequestOp_RequestDeleteRange:
			return false
		case *pb.RequestOp_RequestTxn:
			if !IsReadOnly(o.RequestTxn) {
				return false
			}
		}
	}
	return true
}

type txn struct {
	read reader
	m    *Machine // nil in a read-only transaction
}

func (m *Machine) txn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	t := txn{read: m.reader(), m: m}
	return t.run(r)
}

func (t *txn) run(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return nil, fmt.Errorf("not yet")
}
