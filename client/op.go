package client

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Op is one operation of a transaction. Made by [OpGet], [OpPut], [OpDelete] and [OpTxn].
type Op struct {
	get    *getRequest
	put    *pb.PutRequest // the key without the namespace
	delete *deleteRequest
	txn    *Txn
}

// OpGet reads a key or a range inside a transaction, after the operations before it.
func OpGet(key string, opts ...GetOption) Op {
	r := &getRequest{pb: &pb.RangeRequest{}, keys: keyRange{key: key}}
	for _, o := range opts {
		o.applyGet(r)
	}
	return Op{get: r}
}

// OpPut writes a key inside a transaction. A transaction may write a key once only: [ErrDuplicateKey].
func OpPut(key string, value []byte, opts ...PutOption) Op {
	r := &pb.PutRequest{Key: []byte(key), Value: value}
	for _, o := range opts {
		o.applyPut(r)
	}
	return Op{put: r}
}

// OpDelete deletes a key or a range inside a transaction. A transaction may not write what it deletes.
func OpDelete(key string, opts ...DeleteOption) Op {
	r := &deleteRequest{pb: &pb.DeleteRangeRequest{}, keys: keyRange{key: key}}
	for _, o := range opts {
		o.applyDelete(r)
	}
	return Op{delete: r}
}

// OpTxn is a transaction inside a transaction. All conditions, of the outer and the inner ones, are judged on the
// state before the whole transaction; a condition of the inner one that does not hold selects its Else operations and
// does not undo the rest.
func OpTxn(compares []Compare, thenOps, elseOps []Op) Op {
	return Op{txn: &Txn{compares: compares, thenOps: thenOps, elseOps: elseOps}}
}
