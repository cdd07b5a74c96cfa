package state

import (
	"bytes"
	"cmp"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// txnResponse is a response and its header in one allocation.
type txnResponse struct {
	response pb.TxnResponse
	header   pb.ResponseHeader
}

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

// txn runs one transaction in three passes over the request, as etcd does. The first evaluates all compares, also the
// nested ones, on the state before the transaction, and so fixes the branches. The second checks the operations on these
// branches, on the same state: from then on nothing can fail but the archive. The third carries them out in order, each
// seeing what those before it wrote.
type txn struct {
	read  reader // the state before the transaction
	m     *Machine
	taken []bool // outcome of the compares of each transaction on the path, in the order of the passes
	next  int    // the transaction that a pass is at
	err   error  // the archive's, in the third pass
}

// txn carries out a transaction. When the archive fails the writes are made all the same, since the other members make
// them; only the answer is missing.
func (m *Machine) txn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	t := txn{read: m.reader(), m: m}
	return t.run(r)
}

func (t *txn) run(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	t.decide(r)
	if err := t.check(r); err != nil {
		return nil, err
	}
	t.next = 0
	response := t.execute(r)
	if t.err != nil {
		return nil, t.err
	}
	response.Header.Revision = t.now()
	return response, nil
}

// decide is the first pass.
func (t *txn) decide(r *pb.TxnRequest) {
	t.taken = append(t.taken, t.read.holdAll(r.GetCompare()))
	for _, op := range branch(r, t.taken[len(t.taken)-1]) {
		if o, ok := op.GetRequest().(*pb.RequestOp_RequestTxn); ok {
			t.decide(o.RequestTxn)
		}
	}
}

func branch(r *pb.TxnRequest, success bool) []*pb.RequestOp {
	if success {
		return r.GetSuccess()
	}
	return r.GetFailure()
}

// check is the second pass.
func (t *txn) check(r *pb.TxnRequest) error {
	ops := branch(r, t.taken[t.next])
	t.next++
	for _, op := range ops {
		var err error
		switch o := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			err = t.read.checkRevision(o.RequestRange.GetRevision())
		case *pb.RequestOp_RequestPut:
			err = t.m.checkPut(o.RequestPut)
		case *pb.RequestOp_RequestTxn:
			err = t.check(o.RequestTxn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkRevision is resolve for a range within a transaction. A quirk of etcd's (#13871): a negative revision is
// compared with the compact revision there, instead of meaning the current one.
func (r *reader) checkRevision(rev int64) error {
	switch {
	case rev == 0:
		return nil
	case rev > r.revision:
		return ErrFutureRevision
	case rev < r.compact:
		return ErrCompacted
	default:
		return nil
	}
}

// execute is the third pass. As in etcd, the header of a nested response is empty.
func (t *txn) execute(r *pb.TxnRequest) *pb.TxnResponse {
	success := t.taken[t.next]
	t.next++
	ops := branch(r, success)
	a := new(txnResponse)
	a.response.Header, a.response.Succeeded = &a.header, success
	slab := make([]pb.ResponseOp, len(ops))
	a.response.Responses = make([]*pb.ResponseOp, len(ops))
	for i, op := range ops {
		a.response.Responses[i] = &slab[i]
		t.executeOp(op, &slab[i])
	}
	return &a.response
}

// executeOp carries out one operation; one with nothing in it has an answer with nothing in it.
func (t *txn) executeOp(op *pb.RequestOp, to *pb.ResponseOp) {
	switch o := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		response, err := t.rangeKeys(o.RequestRange)
		if err != nil && t.err == nil {
			t.err = err
		}
		to.Response = &pb.ResponseOp_ResponseRange{ResponseRange: response}
	case *pb.RequestOp_RequestPut:
		to.Response = &pb.ResponseOp_ResponsePut{ResponsePut: t.m.putChecked(o.RequestPut)}
	case *pb.RequestOp_RequestDeleteRange:
		to.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: t.m.deleteRange(o.RequestDeleteRange)}
	case *pb.RequestOp_RequestTxn:
		to.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: t.execute(o.RequestTxn)}
	}
}

// rangeKeys reads the state as the transaction has made it so far.
func (t *txn) rangeKeys(q *pb.RangeRequest) (*pb.RangeResponse, error) {
	if t.m == nil {
		return t.read.rangeKeys(q)
	}
	r := t.m.reader()
	return r.rangeKeys(q)
}

func (t *txn) now() int64 {
	if t.m == nil {
		return t.read.revision
	}
	return t.m.now()
}

// holdAll reports whether all compares hold; it is true for none.
func (r *reader) holdAll(compares []*pb.Compare) bool {
	for _, c := range compares {
		if !r.holds(c) {
			return false
		}
	}
	return true
}

// holds reports whether all keys in the compare's range satisfy it. A range without keys is compared as one key with
// all fields zero, but its value compares as false whatever is asked: a missing value is not an empty one.
func (r *reader) holds(c *pb.Compare) bool {
	ok, none := true, true
	r.ascend(boundsOf(c.GetKey(), c.GetRangeEnd()), func(v *Version) bool {
		none = false
		ok = satisfies(c, v)
		return ok
	})
	if none {
		return c.GetTarget() != pb.Compare_VALUE && satisfies(c, &Version{})
	}
	return ok
}

// satisfies reports whether one version satisfies the compare. As in etcd, an operand of another type than the target's
// counts as zero, an unknown target compares as equal, and an unknown result is true.
func satisfies(c *pb.Compare, v *Version) bool {
	d := 0
	switch c.GetTarget() {
	case pb.Compare_VALUE:
		d = bytes.Compare(v.Value, c.GetValue())
	case pb.Compare_CREATE:
		d = cmp.Compare(v.Create, c.GetCreateRevision())
	case pb.Compare_MOD:
		d = cmp.Compare(v.Mod, c.GetModRevision())
	case pb.Compare_VERSION:
		d = cmp.Compare(v.Count, c.GetVersion())
	case pb.Compare_LEASE:
		d = cmp.Compare(v.Lease, c.GetLease())
	}
	switch c.GetResult() {
	case pb.Compare_EQUAL:
		return d == 0
	case pb.Compare_NOT_EQUAL:
		return d != 0
	case pb.Compare_GREATER:
		return d > 0
	case pb.Compare_LESS:
		return d < 0
	default:
		return true
	}
}
