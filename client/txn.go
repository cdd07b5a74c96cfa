package client

import (
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Txn builds a transaction: if all conditions hold, the operations of Then are executed, else those of Else; in one
// step, at one revision. The builder is used by one goroutine and committed once.
//
//	res, err := c.Txn().
//		If(client.ModRevision("a").Equal(rev)).
//		Then(client.OpPut("a", v), client.OpGet("b")).
//		Else(client.OpGet("a")).
//		Commit(ctx)
type Txn struct {
	client   *Client
	compares []Compare
	thenOps  []Op
	elseOps  []Op
	local    bool // see Serializable
}

// TxnResult is the answer of a transaction.
type TxnResult struct {
	// Succeeded says that the conditions held: Results are those of Then. Otherwise they are those of Else.
	Succeeded bool
	// Revision is the revision of the transaction's writes, or the current one when it wrote nothing.
	Revision Revision
	// Results has one element for each operation that was executed, in order.
	Results []OpResult
}

// OpResult is the answer of one operation of a transaction: exactly one field is set.
type OpResult struct {
	Get    *GetResult
	Put    *PutResult
	Delete *DeleteResult
	Txn    *TxnResult
}

// Txn starts to build a transaction.
func (c *Client) Txn() *Txn { return &Txn{client: c} }

// If adds conditions. Without any, the transaction succeeds.
func (t *Txn) If(compares ...Compare) *Txn {
	t.compares = append(t.compares, compares...)
	return t
}

// Then adds operations for the case that all conditions hold.
func (t *Txn) Then(ops ...Op) *Txn {
	t.thenOps = append(t.thenOps, ops...)
	return t
}

// Else adds operations for the case that a condition does not hold.
func (t *Txn) Else(ops ...Op) *Txn {
	t.elseOps = append(t.elseOps, ops...)
	return t
}

// Serializable lets the member that is asked answer the transaction from its own state, as the option of the same name
// does for a read: the answer may be old. It is for transactions that only read; others have an error at Commit.
func (t *Txn) Serializable() *Txn {
	t.local = true
	return t
}

// Commit executes the transaction. Conditions that do not hold are no error: Succeeded tells.
//
// Errors: [ErrTooManyOps], [ErrDuplicateKey], [ErrUncertain] when it may have written, and those of its operations.
func (t *Txn) Commit(ctx context.Context) (*TxnResult, error) {
	req, err := t.wire(t.client.ns)
	if err != nil {
		return nil, &Error{Op: methodTxn.name, Kind: err}
	}
	m := methodTxn
	if !t.writes() {
		m = methodTxnRead
	}
	if t.local {
		if !m.read {
			return nil, &Error{Op: m.name, Kind: ErrInvalid, Message: "a transaction that writes can not be serializable"}
		}
		localize(req)
	}
	bare := !t.local && len(req.Compare) > 0 && len(req.Success) == 0 && len(req.Failure) == 0
	if bare {
		req.Success = []*pb.RequestOp{linearize(req.Compare)}
	}
	var resp pb.TxnResponse
	if err := t.client.core.call(ctx, m, req, &resp); err != nil {
		return nil, err
	}
	if bare {
		resp.Responses = nil
	}
	return txnResult(&resp, t.client.ns), nil
}

// localize makes every read of a transaction serializable.
func localize(req *pb.TxnRequest) {
	for _, ops := range [...][]*pb.RequestOp{req.Success, req.Failure} {
		for _, op := range ops {
			if r := op.GetRequestRange(); r != nil {
				r.Serializable = true
			} else if nested := op.GetRequestTxn(); nested != nil {
				localize(nested)
			}
		}
	}
}

// linearize returns an operation for a transaction that only compares. etcd answers such a one from the member's own
// state, which may be old; a read that is linearizable, and costs next to nothing, makes the judgement so too.
func linearize(compares []*pb.Compare) *pb.RequestOp {
	key := []byte{0}
	if len(compares) > 0 {
		key = compares[0].Key
	}
	read := &pb.RangeRequest{Key: key, CountOnly: true}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: read}}
}

// writes says whether the transaction may change something, whichever way it goes.
func (t *Txn) writes() bool {
	return slices.ContainsFunc(t.thenOps, Op.writes) || slices.ContainsFunc(t.elseOps, Op.writes)
}

// wire returns the transaction as the server must see it for a client with namespace ns.
func (t *Txn) wire(ns string) (*pb.TxnRequest, error) {
	out := &pb.TxnRequest{}
	var err error
	if out.Compare, err = wireCompares(t.compares, ns); err != nil {
		return nil, err
	}
	if out.Success, err = wireOps(t.thenOps, ns); err != nil {
		return nil, err
	}
	out.Failure, err = wireOps(t.elseOps, ns)
	return out, err
}

func txnResult(r *pb.TxnResponse, ns string) *TxnResult {
	return &TxnResult{Succeeded: r.Succeeded, Revision: revisionOf(r.Header), Results: opResults(r.Responses, ns)}
}

// GuardedTxn builds a transaction that commits only while a guard holds: the proof that the caller still owns
// something, such as a lock. That the guard is gone and that a condition of the caller does not hold are two different
// answers: the first is the error given to [Client.Guarded], the second is a result with Succeeded false.
type GuardedTxn struct {
	inner Txn
	guard []Compare
	lost  error
}

// Guarded starts to build a transaction under a guard. Commit returns an error that wraps both lost and
// [ErrGuardFailed], and nothing is executed, when one of the guard's conditions does not hold.
func (c *Client) Guarded(lost error, guard ...Compare) *GuardedTxn {
	return &GuardedTxn{inner: Txn{client: c}, guard: guard, lost: lost}
}

// If adds conditions of the caller's own.
func (t *GuardedTxn) If(compares ...Compare) *GuardedTxn { t.inner.If(compares...); return t }

// Then adds operations for the case that the guard and all conditions hold.
func (t *GuardedTxn) Then(ops ...Op) *GuardedTxn { t.inner.Then(ops...); return t }

// Else adds operations for the case that the guard holds but a condition does not.
func (t *GuardedTxn) Else(ops ...Op) *GuardedTxn { t.inner.Else(ops...); return t }

// Commit executes the transaction. The result is that of the caller's own If, Then and Else.
func (t *GuardedTxn) Commit(ctx context.Context) (*TxnResult, error) {
	outer := t.inner.client.Txn().If(t.guard...).Then(Op{txn: &t.inner})
	res, err := outer.Commit(ctx)
	if err != nil {
		return nil, err
	}
	if !res.Succeeded {
		return nil, guardFailed(t.lost)
	}
	inner := res.Results[0].Txn
	inner.Revision = res.Revision
	return inner, nil
}

// guardError says that a guard does not hold, in the words of who had set it.
type guardError struct{ lost error }

func guardFailed(lost error) error {
	if lost == nil {
		return ErrGuardFailed
	}
	return &guardError{lost: lost}
}

func (e *guardError) Error() string   { return ErrGuardFailed.Error() + ": " + e.lost.Error() }
func (e *guardError) Unwrap() []error { return []error{ErrGuardFailed, e.lost} }
