package client

import (
	"context"
	"errors"
	"fmt"
)

// errNotBegun: Commit belongs to the transactions of Begin only.
var errNotBegun = errors.New("transaction is committed by who runs it")

// Begin starts an optimistic transaction that its holder commits with [Tx.Commit]: for handles that let a user stage what
// shall happen together with something of their own. Most programs want [Client.Update]. ctx bounds the reads.
func (c *Client) Begin(ctx context.Context) *Tx {
	tx := newTx(ctx, c)
	tx.run.begun = true
	return tx
}

// Commit executes a transaction of [Client.Begin] and returns its revision.
//
// Errors: [ErrConflict] when something that was read has changed, or a condition of If does not hold; the error of a
// guard, see [Tx.Require]; those of BeforeCommit hooks and of failed reads; [ErrUncertain]. After any but the last,
// nothing was executed, and the transaction has ended. After ErrUncertain, Commit may be called again, and sends the very
// same request once more: that is safe only if a guard can not hold after the first one was executed.
func (tx *Tx) Commit(ctx context.Context) (Revision, error) {
	r := tx.run
	switch {
	case !r.begun:
		return 0, fmt.Errorf("commit: %w", errNotBegun)
	case r.ended:
		return 0, errors.New("commit: transaction has ended")
	}
	before := r.before
	r.before = nil // they have run when the commit is repeated
	for i := 0; r.err == nil && i < len(before); i++ {
		if err := before[i](); err != nil {
			r.fail(err)
		}
	}
	rev, err := r.commitBegun(ctx)
	if errors.Is(err, ErrUncertain) {
		return 0, err
	}
	r.ended = true
	if err != nil {
		return 0, err
	}
	for _, f := range r.after {
		f(rev)
	}
	return rev, nil
}

func (r *txRun) commitBegun(ctx context.Context) (Revision, error) {
	switch {
	case r.stale:
		return 0, fmt.Errorf("commit: %w", ErrConflict)
	case r.err != nil:
		return 0, r.err
	case r.pure():
		return r.rev, nil
	}
	resp, err := r.send(ctx, r.client.core, nil)
	if err != nil {
		return 0, err
	}
	rev, err := r.settle(resp)
	if err == nil && rev == 0 {
		err = fmt.Errorf("commit: %w", ErrConflict)
	}
	return rev, err
}

// Len returns how many operations the commit will execute so far, of which servers allow a bounded number (128 by
// default). What BeforeCommit hooks stage is not counted.
func (tx *Tx) Len() int { return len(tx.run.order) + len(tx.run.staged) }
