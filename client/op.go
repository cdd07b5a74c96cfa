package client

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Op is one operation of a transaction. Made by [OpGet], [OpPut], [OpDelete] and [OpTxn].
type Op struct {
	get    *getRequest
	put    *putRequest
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
	r := &putRequest{pb: &pb.PutRequest{Value: value}, key: key}
	for _, o := range opts {
		o.applyPut(r.pb)
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

// writes says whether the operation may change something.
func (op Op) writes() bool {
	switch {
	case op.get != nil:
		return false
	case op.txn != nil:
		return op.txn.writes()
	}
	return true
}

// wire returns the operation as the server must see it for a client with namespace ns.
func (op Op) wire(ns string) (*pb.RequestOp, error) {
	switch {
	case op.get != nil:
		r, err := op.get.wire(ns)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}, err
	case op.put != nil:
		r, err := op.put.wire(ns)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}, err
	case op.delete != nil:
		r, err := op.delete.wire(ns)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}, err
	case op.txn != nil:
		r, err := op.txn.wire(ns)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}, err
	}
	return nil, ErrInvalid // the zero Op
}

// The wire methods copy the message, as an Op may be used again and by clients with other namespaces. A single key must
// not be empty: the server would say so, but with a namespace it can not know.

func (r *getRequest) wire(ns string) (*pb.RangeRequest, error) {
	if r.keys.single() && r.keys.key == "" {
		return nil, ErrEmptyKey
	}
	keys, o := r.keys.in(ns), r.pb
	out := &pb.RangeRequest{
		Key: []byte(keys.key), Limit: o.Limit, Revision: o.Revision, SortOrder: o.SortOrder, SortTarget: o.SortTarget,
		Serializable: o.Serializable, KeysOnly: o.KeysOnly, CountOnly: o.CountOnly,
		MinModRevision: o.MinModRevision, MaxModRevision: o.MaxModRevision,
		MinCreateRevision: o.MinCreateRevision, MaxCreateRevision: o.MaxCreateRevision,
	}
	if keys.end != "" {
		out.RangeEnd = []byte(keys.end)
	}
	return out, nil
}

func (r *putRequest) wire(ns string) (*pb.PutRequest, error) {
	if r.key == "" {
		return nil, ErrEmptyKey
	}
	// The value is shared, not copied: nothing writes to it.
	return &pb.PutRequest{
		Key: []byte(ns + r.key), Value: r.pb.Value, Lease: r.pb.Lease,
		PrevKv: r.pb.PrevKv, IgnoreValue: r.pb.IgnoreValue, IgnoreLease: r.pb.IgnoreLease,
	}, nil
}

func (r *deleteRequest) wire(ns string) (*pb.DeleteRangeRequest, error) {
	if r.keys.single() && r.keys.key == "" {
		return nil, ErrEmptyKey
	}
	keys := r.keys.in(ns)
	return &pb.DeleteRangeRequest{Key: []byte(keys.key), RangeEnd: []byte(keys.end), PrevKv: r.pb.PrevKv}, nil
}

func wireOps(ops []Op, ns string) ([]*pb.RequestOp, error) {
	out := make([]*pb.RequestOp, len(ops))
	for i, op := range ops {
		var err error
		if out[i], err = op.wire(ns); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func opResults(rs []*pb.ResponseOp, ns string) []OpResult {
	out := make([]OpResult, len(rs))
	for i, r := range rs {
		switch r := r.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			out[i].Get = getResult(r.ResponseRange, ns)
		case *pb.ResponseOp_ResponsePut:
			out[i].Put = putResult(r.ResponsePut, ns)
		case *pb.ResponseOp_ResponseDeleteRange:
			out[i].Delete = deleteResult(r.ResponseDeleteRange, ns)
		case *pb.ResponseOp_ResponseTxn:
			out[i].Txn = txnResult(r.ResponseTxn, ns)
		}
	}
	return out
}
