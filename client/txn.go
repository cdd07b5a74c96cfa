package client

import (
	"context"
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

// Commit executes the transaction. Conditions that do not hold are no error: Succeeded tells.
//
// Errors: [ErrTooManyOps], [ErrDuplicateKey], [ErrUncertain] when it may have written, and those of its operations.
func (t *Txn) Commit(ctx context.Context) (*TxnResult, error) { panic("not yet") }

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
func (t *GuardedTxn) Commit(ctx context.Context) (*TxnResult, error) { panic("not yet") }
