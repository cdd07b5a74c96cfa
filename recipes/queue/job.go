package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

// RawJob is one run of a job, as middleware sees it: with its value as bytes. It
// belongs to the handler that it was given to.
type RawJob struct {
	ID      ID
	Payload []byte
	// Attempt counts the runs of the job, this one included: 1 for the first.
	Attempt int
	// Crashes is how many workers have died with it.
	Crashes  int
	Enqueued time.Time
	Group    string
	Priority int
	Header   map[string]string
	// LastError is what the last run that failed has said.
	LastError string

	run *jobRun
}

// Job is one run of a job.
type Job[T any] struct {
	Value T
	*RawJob
}

// Handler does a job. The job is done, and deleted, when it returns nil. After an
// error it is tried again later, see WithBackoff, [Retry], [Snooze] and [Discard];
// a panic is an error. ctx ends with a cause when the job must not go on:
// [ErrClaimLost], [ErrCancelled], or that the worker's time to drain is over.
type Handler[T any] func(ctx context.Context, j *Job[T]) error

// RawHandler is a handler of jobs of any type.
type RawHandler func(ctx context.Context, j *RawJob) error

// Middleware wraps handlers, for what is the same for all jobs.
type Middleware func(next RawHandler) RawHandler

// Tx returns the job's transaction: what it reads are conditions, and what it
// writes is executed together with the end of the job, once, when the handler
// returns nil; in no other case is anything of it executed. A condition that does
// not hold makes the handler run again, with a new transaction, without that
// counting as an attempt. Jobs for this or other queues can be staged in it, see
// [Queue.EnqueueTx].
//
// Keys are in the namespace of the client that the queue was opened with.
func (j *RawJob) Tx() *client.Tx {
	r := j.run
	if r.tx == nil {
		r.tx = r.worker.q.root.Begin(r.ctx)
	}
	return r.tx
}

// SetResult sets what Wait returns for the job, as JSON, if it was enqueued with
// KeepResult. It is written together with the end of the job.
func (j *RawJob) SetResult(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("result of job %s: %w", j.ID, err)
	}
	j.run.result = b
	return nil
}

// Queue returns the name of the queue that the job is from.
func (j *RawJob) Queue() string { return j.run.worker.q.name }

// jobRun is a run of a job that is under way. Its fields belong to its goroutine,
// those of the loop are said to.
type jobRun struct {
	worker *worker
	shard  *shard.Shard
	job    shard.Job // for the loop
	item   *shard.Item
	ctx    context.Context
	cancel context.CancelCauseFunc
	began  time.Time
	raw    *RawJob
	tx     *client.Tx
	result []byte
	over   chan struct{} // closed by the loop when the end is in the store, or the claim lost
	lost   bool          // of the loop, readable once over is closed
	pulled chan<- error  // takes what came of a delivery's end
}

func newRun(w *worker, s *shard.Shard, j shard.Job) *jobRun {
	it := j.Item()
	r := &jobRun{worker: w, shard: s, job: j, item: it, over: make(chan struct{}), began: time.Now()}
	r.ctx, r.cancel = context.WithCancelCause(w.jobsCtx)
	r.raw = &RawJob{
		ID: ID(it.Job), Payload: it.Payload, Attempt: it.Failures + it.Crashes + 1, Crashes: it.Crashes,
		Enqueued: time.UnixMilli(it.Enqueued), Group: it.Group, Priority: it.Lane, Header: it.Header,
		LastError: it.LastError, run: r,
	}
	return r
}
