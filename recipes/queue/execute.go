package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

// conflictsMax bounds how often a handler is run again because of a conflict
// before that counts as a failure.
const conflictsMax = 64

// errGiveBack: the job was not really run.
var errGiveBack = errors.New("job is given back")

// execute runs the handler and ends the job.
func (r *jobRun) execute() {
	defer r.cancel(nil)
	var err error
	for n := 0; ; n++ {
		r.tx, r.result = nil, nil
		err = r.handle()
		if err != nil || r.tx == nil {
			break
		}
		var committed bool
		committed, err = r.commit()
		if committed {
			r.finish(err, nil)
			return
		}
		if r.pulled != nil || !errors.Is(err, client.ErrConflict) || n == conflictsMax || !pause(r.ctx, n) {
			break
		}
	}
	e := r.judge(err)
	if r.pulled != nil && errors.Is(err, client.ErrConflict) {
		e = shard.End{Kind: shard.Return} // who has it is told, and may pull it again
	}
	r.finish(err, &e)
}

// handle calls the handler. A panic is an error with its stack.
func (r *jobRun) handle() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			r.worker.q.opts.log.Error("handler panics", "queue", r.worker.q.name, "job", r.raw.ID, "panic", p)
		}
	}()
	return r.worker.handler(r.ctx, r.raw)
}

// judge decides what becomes of the job.
func (r *jobRun) judge(err error) shard.End {
	if err == nil {
		return shard.End{Kind: shard.Done, Result: r.resultBytes(Result{})}
	}
	cause := context.Cause(r.ctx)
	if errors.Is(err, errGiveBack) || cause != nil && !errors.Is(cause, ErrCancelled) {
		return shard.End{Kind: shard.Return}
	}
	var v *verdict
	errors.As(err, &v)
	if v == nil {
		v = &verdict{err: err}
	}
	failures := r.item.Failures + 1
	limit := r.worker.q.opts.maxAttempts
	if r.item.Attempts > 0 {
		limit = r.item.Attempts
	}
	if v.dead || !v.free && failures >= limit {
		return shard.End{Kind: shard.Dead, Error: err.Error(), Result: r.resultBytes(Result{Dead: true, Error: err.Error()})}
	}
	after := v.after
	if !v.set {
		after = r.worker.q.opts.backoff(failures)
	}
	return shard.End{Kind: shard.Retry, At: time.Now().Add(after).UnixMilli(), Free: v.free, Error: err.Error()}
}

// resultBytes returns what is kept of the job, or nil.
func (r *jobRun) resultBytes(res Result) []byte {
	if r.item.Result == 0 {
		return nil
	}
	res.Value, res.Ended = r.result, time.Now()
	b, err := json.Marshal(res)
	if err != nil { // the value is JSON already
		return nil
	}
	return b
}

// finish tells the loop that the run has ended; e is nil if its end is in the
// store already.
func (r *jobRun) finish(err error, e *shard.End) {
	w := r.worker
	if e != nil {
		r.leaseResult(e)
	}
	took := time.Since(r.began)
	defer r.report(err, e)
	w.post(func() {
		w.running--
		w.average = (7*w.average + max(took, time.Microsecond)) / 8
		if w.opts.hooks.Ended != nil {
			w.opts.hooks.Ended(r.raw, took, err)
		}
		if e != nil {
			w.conclude(r, *e)
		}
	})
}

// leaseResult gets a lease for the result, which is not kept without one.
func (r *jobRun) leaseResult(e *shard.End) {
	if e.Result == nil {
		return
	}
	lease, err := r.worker.q.leases.get(r.worker.life, time.Duration(r.item.Result)*time.Second)
	if err != nil {
		e.Result = nil
	}
	e.Lease = int64(lease)
}

// conclude ends a job, in the loop.
func (w *worker) conclude(r *jobRun, e shard.End) {
	if r.job.Over() {
		w.close(r.job, true)
		return
	}
	r.shard.Settle(r.job, e, time.Now().UnixMilli())
	if r.job.Over() || r.job.Waits() {
		w.close(r.job, false) // there may be another run of the same job: this one is over
	}
}

// commit ends the job in its transaction. It returns false, and why, if nothing
// was executed: client.ErrConflict when the handler may try again.
func (r *jobRun) commit() (bool, error) {
	guard, ops, err := r.guard()
	if err != nil {
		return false, err
	}
	own := r.tx.In(r.worker.q.client)
	own.Require(ErrClaimLost, comparesOf(guard)...)
	for _, op := range opsOf(ops) {
		own.Stage(op)
	}
	if b := r.resultBytes(Result{}); b != nil {
		lease, err := r.worker.q.leases.get(r.ctx, time.Duration(r.item.Result)*time.Second)
		if err == nil {
			own.Put(shard.ResultKey(r.item.Job), b, client.WithLease(lease))
		}
	}
	var rev client.Revision
	again := false
	for n := 0; ; n++ {
		rev, err = r.tx.Commit(r.worker.life)
		if !errors.Is(err, client.ErrUncertain) || !pause(r.worker.life, n) {
			break
		}
		again = true
	}
	switch {
	case err == nil:
		return r.told(shard.Committed, rev, shard.KV{}, shard.KV{}), nil
	case errors.Is(err, client.ErrGuardFailed) && errors.Is(err, ErrClaimLost):
		return r.unguarded(err, again)
	}
	r.told(shard.Refused, 0, shard.KV{}, shard.KV{})
	return false, err
}

// unguarded finds out whether the guard did not hold because an earlier attempt
// of the same transaction had been executed.
func (r *jobRun) unguarded(err error, again bool) (bool, error) {
	key := shard.JournalKey(r.shard.N, r.worker.id)
	look := shard.Txn{Then: []shard.Op{{Key: key}, {Key: r.job.Claim.Key}, {Key: shard.CancelKey(r.item.Job)}}}
	a, lookErr := r.worker.persist(look, func() {})
	if lookErr != nil {
		r.told(shard.Refused, 0, shard.KV{}, shard.KV{})
		return false, err
	}
	first := func(res shard.Result) (kv shard.KV) {
		if len(res.KVs) > 0 {
			kv = res.KVs[0]
		}
		return kv
	}
	if r.told(shard.Unguarded, client.Revision(a.Revision), first(a.Results[0]), first(a.Results[1])) {
		if !again || first(a.Results[2]).Key != "" {
			return true, ErrCancelled // the job is gone, and not by us
		}
		return true, nil
	}
	return false, err
}

// guard asks the loop for what ends the job, and waits until that is possible.
func (r *jobRun) guard() (guard []shard.Compare, ops []shard.Op, err error) {
	for n := 0; ; n++ {
		ok := false
		done := make(chan struct{})
		posted := r.worker.post(func() {
			defer close(done)
			if r.job.Over() {
				err = ErrClaimLost
				return
			}
			guard, ops, ok = r.shard.TxGuard(r.job)
		})
		if !posted {
			return nil, nil, ErrClaimLost
		}
		select {
		case <-done:
		case <-r.worker.ended:
			return nil, nil, ErrClaimLost
		}
		if ok || err != nil {
			return guard, ops, err
		}
		if !pause(r.worker.life, min(n, 2)) {
			return nil, nil, ErrClaimLost
		}
	}
}

// told tells the shard what came of the transaction.
func (r *jobRun) told(end shard.TxEnd, rev client.Revision, journal, item shard.KV) (ended bool) {
	done := make(chan struct{})
	if !r.worker.post(func() {
		defer close(done)
		ended = r.shard.TxDone(r.job, end, int64(rev), journal, item)
	}) {
		return end == shard.Committed
	}
	select {
	case <-done:
		return ended || end == shard.Committed
	case <-r.worker.ended:
		return end == shard.Committed
	}
}
