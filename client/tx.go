package client

import (
	"context"
)

// Tx is an optimistic transaction, as [Client.Update] runs it. Reads see the store at one revision and the transaction's
// own writes; what was read becomes a condition of the commit; writes are staged and executed together by the commit.
// It belongs to the function that it was given to, and to one goroutine.
type Tx struct{}

// Staged is an operation that a transaction will execute as it is, and afterwards its result.
type Staged struct{}

// Result returns what the operation answered, once the transaction has committed; the zero value before.
func (s *Staged) Result() OpResult { panic("not yet") }

// UpdateOption is an option of Update.
type UpdateOption interface{ applyUpdate(*updateConfig) }

type updateConfig struct{ exactlyOnce bool }

type updateOption func(*updateConfig)

func (o updateOption) applyUpdate(c *updateConfig) { o(c) }

// ExactlyOnce makes Update resolve an uncertain outcome instead of returning [ErrUncertain]: a key of the client's
// session, "latchkey.tx/<lease>/<n>" in the client's namespace, is written in the same transaction and tells afterwards
// whether it was executed. It costs one more write in the transaction.
func ExactlyOnce() UpdateOption { return updateOption(func(c *updateConfig) { c.exactlyOnce = true }) }

// Update runs fn in an optimistic transaction and commits what it staged. When something that fn has read was changed
// before the commit, fn is run again with fresh reads, after a short random pause, up to 64 times; then [ErrConflict] is
// returned. fn must have no effect but through tx and its own variables, which it must set anew in each run.
//
// An error of fn is returned as it is, and nothing is committed. A transaction that wrote nothing is not sent: its reads
// were all of one revision. [ErrUncertain]: see [ExactlyOnce].
func (c *Client) Update(ctx context.Context, fn func(tx *Tx) error, opts ...UpdateOption) error {
	panic("not yet")
}

// Context returns the context of the Update.
func (tx *Tx) Context() context.Context { panic("not yet") }

// Revision returns the revision that all reads of this run see; zero before the first read.
func (tx *Tx) Revision() Revision { panic("not yet") }

// In returns the same transaction for keys of another view of the client, with its namespace: for recipes, whose client
// need not have the namespace of the caller's. A client of another cluster makes the transaction fail.
func (tx *Tx) In(c *Client) *Tx { panic("not yet") }

// Get reads one key, or returns [ErrNotFound]. The commit fails if the key is changed before it. Of a key that the
// transaction has written, the staged value is returned, with the revisions from before it.
func (tx *Tx) Get(key string) (KV, error) { panic("not yet") }

// List reads the keys of a range, in ascending order: all of them, or the first ones with [Limit]. The commit fails if
// one of them is changed or deleted, or if another appears in the range (with Limit: before the last one read).
//
// Each key read becomes a compare, so that a server's limit (128 by default) bounds what a transaction can list.
func (tx *Tx) List(key string, opts ...ListOption) ([]KV, error) { panic("not yet") }

// Put stages a write; the last one of a key counts. It does not read: two transactions that only put do not conflict.
func (tx *Tx) Put(key string, value []byte, opts ...PutOption) { panic("not yet") }

// Delete stages the deletion of a key.
func (tx *Tx) Delete(key string) { panic("not yet") }

// If adds conditions to the commit. One that does not hold is a conflict: the transaction is run again.
func (tx *Tx) If(compares ...Compare) { panic("not yet") }

// Require adds a guard to the commit. If it does not hold, Update ends with an error that wraps lost and
// [ErrGuardFailed], and does not run again.
func (tx *Tx) Require(lost error, guard ...Compare) { panic("not yet") }

// Stage adds an operation that is executed as it is, after the staged writes. Reads of the transaction do not see it;
// it may not touch keys that Put and Delete stage.
func (tx *Tx) Stage(op Op) *Staged { panic("not yet") }

// BeforeCommit runs f after the Update's function has returned without error, in the order of the calls. It may read
// and stage more; an error ends the Update.
func (tx *Tx) BeforeCommit(f func() error) { panic("not yet") }

// AfterCommit runs f once the transaction is known to have been committed, with its revision, in the order of the calls.
// Hooks of a run that was not committed are forgotten.
func (tx *Tx) AfterCommit(f func(rev Revision)) { panic("not yet") }
