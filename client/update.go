package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// updateRunsMax bounds how often Update runs a function.
	updateRunsMax = 64
	// The pause before another run: random, so that those who were in each other's way are not again.
	updateDelayMin = time.Millisecond
	updateDelayMax = 50 * time.Millisecond
)

// UpdateOption is an option of Update.
type UpdateOption interface{ applyUpdate(*updateConfig) }

type updateConfig struct{ exactlyOnce bool }

type updateOption func(*updateConfig)

func (o updateOption) applyUpdate(c *updateConfig) { o(c) }

// ExactlyOnce makes Update resolve an uncertain outcome instead of returning [ErrUncertain]: a key of the client's
// session, "latchkey.tx/<lease>/<n>" in the client's namespace, is written in the same transaction and tells afterwards
// whether it was executed. It costs one more write in the transaction, and a session. [ErrUncertain] is left for the case
// that the session is lost, or ctx ends, before the answer is known.
func ExactlyOnce() UpdateOption { return updateOption(func(c *updateConfig) { c.exactlyOnce = true }) }

// Update runs fn in an optimistic transaction and commits what it staged. When something that fn has read was changed
// before the commit, fn is run again with fresh reads, after a short random pause, up to 64 times; then [ErrConflict] is
// returned. fn must have no effect but through tx and its own variables, which it must set anew in each run.
//
// An error of fn is returned as it is, and nothing is committed. A transaction that wrote nothing is not sent: its reads
// were all of one revision, not older than the call. A ctx without a deadline is bounded by Config.RequestTimeout.
// [ErrUncertain]: see [ExactlyOnce].
//
// How it is judged that nothing was changed: a key that was read must still have the ModRevision it had, zero for a key
// that did not exist. In a range that was listed, every key must have a ModRevision of at most the revision of the read,
// so that nothing was written or added, and each listed key must still have its own, so that nothing was deleted.
func (c *Client) Update(ctx context.Context, fn func(tx *Tx) error, opts ...UpdateOption) error {
	var conf updateConfig
	for _, o := range opts {
		o.applyUpdate(&conf)
	}
	ctx, cancel := c.core.bounded(ctx)
	defer cancel()
	for n := range updateRunsMax {
		if n > 0 && !c.core.sleep(ctx, backoffDelay(n-1, updateDelayMin, updateDelayMax)) {
			return &Error{Op: "update", Kind: ErrConflict, causes: []error{ctxError(ctx)}}
		}
		done, err := c.updateOnce(ctx, fn, conf)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("update: %w in each of %d runs", ErrConflict, updateRunsMax)
}

// updateOnce runs fn once and commits. done is false when it has to run again.
func (c *Client) updateOnce(ctx context.Context, fn func(tx *Tx) error, conf updateConfig) (done bool, err error) {
	tx := newTx(ctx, c)
	r := tx.run
	defer func() { r.ended = true }()
	err = fn(tx)
	for i := 0; err == nil && i < len(r.before); i++ {
		err = r.before[i]()
	}
	switch {
	case r.stale:
		return false, nil
	case err != nil:
		return false, err
	case r.err != nil: // fn has overlooked it
		return false, r.err
	}
	rev := r.rev
	if !r.pure() {
		if rev, err = c.commit(ctx, tx, conf); err != nil || rev == 0 {
			return false, err
		}
	}
	r.ended = true
	for _, f := range r.after {
		f(rev)
	}
	return true, nil
}

// pure says that there is nothing to commit or to check: the reads alone were consistent when they were made.
func (r *txRun) pure() bool {
	return len(r.order) == 0 && len(r.staged) == 0 && len(r.ifs) == 0 && len(r.guards) == 0
}

// commit sends the transaction and returns its revision; zero when it has to run again.
func (c *Client) commit(ctx context.Context, tx *Tx, conf updateConfig) (Revision, error) {
	if !conf.exactlyOnce {
		resp, err := tx.run.send(ctx, c.core, nil)
		if err != nil {
			return 0, err
		}
		return tx.run.settle(resp)
	}
	m, err := c.core.markers.take(ctx, c)
	if err != nil {
		return 0, err
	}
	resp, err := tx.run.send(ctx, c.core, m)
	if errors.Is(err, ErrUncertain) {
		return c.core.markers.resolve(ctx, c.core, m, err)
	}
	defer c.core.markers.put(m) // whose revision is known again
	if errors.Is(err, ErrLeaseNotFound) && m.session.State() == Lost {
		return 0, nil // the next run has a marker of a new session
	}
	if err != nil {
		return 0, err
	}
	rev, err := tx.run.settle(resp)
	if rev > 0 {
		m.rev = rev
	}
	return rev, err
}

// send executes the commit.
func (r *txRun) send(ctx context.Context, co *core, m *marker) (*pb.TxnResponse, error) {
	req := &pb.TxnRequest{Compare: r.compares(), Success: r.ops()}
	if m != nil {
		req.Compare = append(req.Compare, m.compare())
		req.Success = append(req.Success, m.write(markerCommit))
	}
	if len(req.Success) == 0 {
		req.Success = append(req.Success, linearize(req.Compare))
	}
	for i := len(r.guards) - 1; i >= 0; i-- {
		inner := &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: req}}
		req = &pb.TxnRequest{Compare: r.guards[i].compares, Success: []*pb.RequestOp{inner}}
	}
	var resp pb.TxnResponse
	method := methodTxn
	if len(r.order) == 0 && len(r.staged) == 0 && m == nil {
		method = methodTxnRead
	}
	if err := co.call(ctx, method, req, &resp); err != nil {
		return nil, err
	}
	return &resp, nil
}

// settle reads the answer of the commit: its revision, zero for a conflict, or that a guard does not hold.
func (r *txRun) settle(resp *pb.TxnResponse) (Revision, error) {
	rev := revisionOf(resp.Header)
	for _, g := range r.guards {
		if !resp.Succeeded {
			return 0, guardFailed(g.lost)
		}
		resp = resp.Responses[0].GetResponseTxn()
	}
	if !resp.Succeeded {
		return 0, nil
	}
	for i, s := range r.staged {
		s.result = opResults(resp.Responses[len(r.order)+i:][:1], s.ns)[0]
	}
	return rev, nil
}

// compares are the conditions that nothing has changed since the reads, and those of If.
func (r *txRun) compares() []*pb.Compare {
	out := make([]*pb.Compare, 0, len(r.ranges)+len(r.readKeys)+len(r.ifs)+1)
	for _, keys := range r.ranges {
		over := spread{func(string) keyRange { return keys }}
		out = append(out, ModRevision(keys.key, over).Less(r.rev+1).wire(""))
	}
	for _, key := range r.readKeys {
		out = append(out, ModRevision(key).Equal(r.read[key].ModRevision).wire(""))
	}
	return append(out, r.ifs...)
}

// ops are the staged writes and operations.
func (r *txRun) ops() []*pb.RequestOp {
	out := make([]*pb.RequestOp, 0, len(r.order)+len(r.staged)+1)
	for _, key := range r.order {
		if put := r.written[key]; put != nil {
			out = append(out, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
			continue
		}
		del := &pb.DeleteRangeRequest{Key: []byte(key)}
		out = append(out, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: del}})
	}
	for _, s := range r.staged {
		out = append(out, s.op)
	}
	return out
}
