// Package queue is a durable work queue for a fleet: jobs are done at least once,
// what they write into the store is written exactly once, and a worker that dies
// gives its jobs back within one TTL of its session.
//
// # Overview
//
//	q, err := queue.Open[Mail](ctx, c, "mail")
//	id, err := q.Enqueue(ctx, Mail{To: "ada@example.org"})
//	err = q.Run(ctx, func(ctx context.Context, j *queue.Job[Mail]) error {
//		return send(ctx, j.Value) // nil: done; an error: again, later
//	})
//
// [Queue.Enqueue], [Queue.EnqueueBatch] and [Queue.Producer] put jobs in;
// [Queue.EnqueueTx] does it in a transaction of the caller's, so that a job exists if
// and only if the state that it belongs to does. [Queue.Run] works with a handler,
// [Queue.Jobs] and [Queue.Receive] pull. In a handler, [RawJob.Tx] is a transaction
// that is executed together with the job's end: whatever crashes, its effects happen
// once. Jobs can be delayed, have priorities, unique keys and groups with strict
// order; [Queue.Cron] enqueues by a schedule; what fails too often is found among the
// dead letters, [Queue.Dead].
//
// # Guarantees
//
// Kept: a job whose Enqueue has returned is in the store of a majority, until it
// is done, cancelled, purged, expired by its TTL, or dead; dead ones stay until redriven or purged.
//
// At least once: the handler of a job has returned nil before it is done. It may
// run again if its worker dies, or loses its session, before its end is in the store.
//
// Exactly once: what is staged in Tx is executed with the job's end, in one
// transaction that compares the item's create revision: it can happen once.
//
// Counted: a claim is in the store before its handler runs, so a crash is
// counted. Crashes and failures are counted apart, and after too many of either the
// job is dead. A job whose worker has died runs beside no other such one in its worker, so
// that those that were only claimed with it are told from the guilty one.
//
// Given back: within the TTL of the session of a worker that dies (10 s by default), at once when
// it ends in order.
//
// Order: within a shard, jobs of one priority are claimed in the order of their
// commits. Jobs of a group run one at a time, in that order, over retries and crashes.
//
// Not promised: order between shards, except for groups; that a delayed job runs at its
// very millisecond; that nothing runs twice at the same time: a worker that was cut
// off may go on until it notices, and only what it commits through Tx is fenced.
//
// # Keys
//
// All stand below "q/<name>/", as text:
//
//	m/config                        settings: shards, priorities
//	m/pause  m/purge  m/x/<job>     signals to all workers
//	m/o/<shard>                     which worker has the shard, with "!" if it has too much to do
//	m/s/<worker>                    a worker; lives as long as its session
//	i/<shard>/<lane>/<record>       a job, or a chunk of them, that is ready
//	i/<shard>/t/<due>/<record>      one that waits for its time, or has waited
//	j/<shard>/<worker>              the worker's claims of the shard
//	w/<shard>/<lane>                no job is below this record: where readers start
//	x/<job>  r/<job>  u/<hash>      dead letters, kept results, unique keys
//	p/<id>  k/<name>                numbers of producers' batches, last ticks of cron entries
//
// A record is "<seed>-<writer>-<count>": the seed is a revision that the writer had
// heard of, so that names need no counter and follow the order of causes. Guides:
// docs/recipes/queue.md and docs/keys.md.
//
// # Failure handling
//
// A call returns when its outcome is known. Enqueue numbers its batches, so that one
// whose answer was lost is sent again and executed once; the error is
// [client.ErrUncertain] only if the context or the session ends before. Workers resend what has
// no answer until it has one; each of their transactions does nothing the second time.
//
// A worker whose session is lost ends the contexts of its jobs with [ErrClaimLost],
// waits for its handlers, and begins anew. What they commit meanwhile is executed
// only while nobody has adopted the claims.
//
// Compaction makes readers read again. A store that is full refuses producers, and
// lets workers wait. Clocks decide only when delayed jobs are due.
package queue
