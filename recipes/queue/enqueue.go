package queue

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

const (
	// batchMax bounds the jobs of one transaction.
	batchMax = 90
	// batchBytesMax bounds their size: servers take requests of 1.5 MiB.
	batchBytesMax = 1 << 20
	groupBytesMax = 256
	// headerBytesMax bounds the headers of a job, with their names.
	headerBytesMax = 16 << 10
)

// EnqueueOption is an option of Enqueue and its relatives.
type EnqueueOption func(*enqueueOptions)

type enqueueOptions struct {
	due      time.Time
	delay    time.Duration
	priority int
	group    string
	unique   string
	until    Until
	attempts int
	ttl      time.Duration
	result   time.Duration
	header   map[string]string
	wait     bool
}

// Until says when a unique key is free again.
type Until struct {
	start  bool
	window time.Duration
}

// Done frees a unique key when its job is done or dead. It is the default.
func Done() Until { return Until{} }

// Start frees a unique key when its job is claimed for its first run.
func Start() Until { return Until{start: true} }

// Window frees a unique key after a time, whatever becomes of its job. The time
// is rounded up, by at most a tenth and a second.
func Window(d time.Duration) Until { return Until{window: d} }

// Delay lets the job wait before it can be run. The clock is that of the worker
// which has the job's shard.
func Delay(d time.Duration) EnqueueOption { return func(o *enqueueOptions) { o.delay = d } }

// At lets the job wait for a moment, to the millisecond.
func At(t time.Time) EnqueueOption { return func(o *enqueueOptions) { o.due = t } }

// Priority sets the job's priority, 0 first. See WithPriorities.
func Priority(n int) EnqueueOption { return func(o *enqueueOptions) { o.priority = n } }

// Group puts the job into a group: jobs of a group run one at a time, in the order
// in which they were enqueued, over all workers, and a job that fails keeps the
// others waiting until it is done or dead. At most 256 bytes.
func Group(name string) EnqueueOption { return func(o *enqueueOptions) { o.group = name } }

// Unique makes Enqueue return [ErrDuplicate] while a job with the same key is in the
// queue, or as long as until says.
func Unique(key string, until ...Until) EnqueueOption {
	return func(o *enqueueOptions) {
		o.unique = key
		if len(until) > 0 {
			o.until = until[0]
		}
	}
}

// Attempts sets how often the job may fail, instead of WithMaxAttempts.
func Attempts(n int) EnqueueOption { return func(o *enqueueOptions) { o.attempts = n } }

// TTL drops the job if no run of it has started within a time.
func TTL(d time.Duration) EnqueueOption { return func(o *enqueueOptions) { o.ttl = d } }

// KeepResult keeps what became of the job for a time after its end, for Wait.
func KeepResult(d time.Duration) EnqueueOption { return func(o *enqueueOptions) { o.result = d } }

// Header adds a header to the job: for tracing, and for middleware. All of a job
// take 16 KiB at most.
func Header(key, value string) EnqueueOption {
	return func(o *enqueueOptions) {
		if o.header == nil {
			o.header = make(map[string]string)
		}
		o.header[key] = value
	}
}

// WaitForRoom makes Enqueue wait while the queue is full, instead of returning
// [ErrFull].
func WaitForRoom() EnqueueOption { return func(o *enqueueOptions) { o.wait = true } }

// Enqueue puts a job into the queue and returns once it is durable there. Calls
// that are made at the same time share a transaction.
//
// An answer that is lost is found out: the job is put in once. When ctx ends
// first, the error is [client.ErrUncertain] if the job was on its way.
//
// Errors: [ErrDuplicate], [ErrFull], [ErrTooLarge], [ErrOption], and those of the client.
func (q *Queue[T]) Enqueue(ctx context.Context, v T, opts ...EnqueueOption) (ID, error) {
	item, err := q.encode(v)
	if err != nil {
		return "", err
	}
	ids, err := q.enqueue(ctx, []*request{{payload: item, opts: newEnqueueOptions(opts)}}, false)
	if err != nil {
		return "", fmt.Errorf("enqueue in %q: %w", q.name, err)
	}
	return ids[0], nil
}

// Item is one job of a batch.
type Item[T any] struct {
	Value T
	Opts  []EnqueueOption
}

// EnqueueBatch puts jobs into the queue, all of them or none, at most 90.
// Otherwise it is like Enqueue.
func (q *Queue[T]) EnqueueBatch(ctx context.Context, items ...Item[T]) ([]ID, error) {
	var reqs []*request
	for _, it := range items {
		payload, err := q.encode(it.Value)
		if err != nil {
			return nil, err
		}
		reqs = append(reqs, &request{payload: payload, opts: newEnqueueOptions(it.Opts)})
	}
	if len(reqs) == 0 {
		return nil, nil
	}
	ids, err := q.enqueue(ctx, reqs, true)
	if err != nil {
		return nil, fmt.Errorf("enqueue batch in %q: %w", q.name, err)
	}
	return ids, nil
}

func (q *Queue[T]) encode(v T) ([]byte, error) {
	b, err := q.codec.Encode(v)
	if err != nil {
		return nil, fmt.Errorf("encode job for %q: %w", q.name, err)
	}
	return b, nil
}

func newEnqueueOptions(opts []EnqueueOption) enqueueOptions {
	var o enqueueOptions
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// request is a job that is asked for.
type request struct {
	payload []byte
	chunk   int // messages in the payload; 0 for one that is no chunk
	opts    enqueueOptions
	spread  int // chooses the shard
}

func (r *request) size() int { return len(r.payload) + 256 }

// check finds what is wrong with a request.
func (q *core) check(r *request) error {
	o := &r.opts
	headers := 0
	for k, v := range o.header {
		headers += len(k) + len(v)
	}
	switch {
	case o.priority < 0 || o.priority >= q.conf.Load().Lanes:
		return fmt.Errorf("%w: priority %d, the queue has %d", ErrOption, o.priority, q.conf.Load().Lanes)
	case len(o.group) > groupBytesMax || headers > headerBytesMax || o.attempts < 0 || o.result < 0 || o.ttl < 0:
		return fmt.Errorf("%w: group, headers, attempts or a time", ErrOption)
	case r.size()+headers > batchBytesMax:
		return ErrTooLarge
	}
	return nil
}

func (q *core) enqueue(ctx context.Context, reqs []*request, atomic bool) ([]ID, error) {
	size := 0
	unique := 0
	for _, r := range reqs {
		if err := q.check(r); err != nil {
			return nil, err
		}
		size += r.size()
		if r.opts.unique != "" {
			unique++
		}
	}
	if len(reqs)+unique > batchMax || size > batchBytesMax {
		return nil, ErrTooLarge
	}
	if err := q.length.admit(ctx, len(reqs), reqs[0].opts.wait); err != nil {
		return nil, err
	}
	for _, r := range reqs {
		r.spread = rand.IntN(shardsMax)
		if len(reqs) > 1 {
			r.spread = reqs[0].spread // a batch is for one shard
		}
	}
	return q.writes.submit(ctx, &call{reqs: reqs, alone: atomic || unique > 0, done: make(chan struct{})})
}

// draft makes the item of a request, for the configuration and with a new name.
func (q *core) draft(ctx context.Context, r *request, conf *config) (*shard.Draft, error) {
	o := &r.opts
	now := time.Now()
	d := &shard.Draft{Shard: conf.First + r.spread%conf.Shards}
	if o.group != "" {
		d.Shard = conf.home(o.group)
	}
	d.Item = &shard.Item{
		Lane: o.priority, Group: o.group, Enqueued: now.UnixMilli(), Attempts: o.attempts,
		Result: int64((o.result + time.Second - 1) / time.Second), Header: o.header, Chunk: r.chunk, Payload: r.payload,
	}
	if o.ttl > 0 {
		d.Item.Expires = now.Add(o.ttl).UnixMilli()
	}
	if d.Due = millis(o.due); o.delay > 0 {
		d.Due = now.Add(o.delay).UnixMilli()
	}
	if o.unique != "" {
		d.Unique = uniqueHash(o.unique)
		d.Item.Unique, d.Item.AtStart = d.Unique, o.until.start
		if o.until.window > 0 {
			lease, err := q.leases.get(ctx, o.until.window)
			if err != nil {
				return nil, err
			}
			d.UniqueLease = int64(lease)
			d.Item.Unique = "" // the job's end leaves it alone
		}
	}
	id := q.mint.Next(q.client.Seen(), max(1, r.chunk))
	d.Item.Job = shard.JobID(d.Shard, d.Item.Lane, id.String())
	return d, nil
}

// uniqueHash makes a key of any length one that fits into the store.
func uniqueHash(key string) string {
	h := fnv.New128a()
	_, _ = h.Write([]byte(key))
	return hex.EncodeToString(h.Sum(nil))
}

// EnqueueTx puts a job into the queue in a transaction of the caller's: it is there
// if, and only if, the transaction commits. The ID is valid then.
//
// Errors: [ErrDuplicate], [ErrFull], [ErrTooLarge] and [ErrOption]; what the reads of
// the transaction return. Nothing is staged then.
func (q *Queue[T]) EnqueueTx(tx *client.Tx, v T, opts ...EnqueueOption) (ID, error) {
	payload, err := q.encode(v)
	if err != nil {
		return "", err
	}
	id, err := q.stage(tx, &request{payload: payload, opts: newEnqueueOptions(opts), spread: rand.IntN(shardsMax)})
	if err != nil {
		return "", fmt.Errorf("enqueue in %q: %w", q.name, err)
	}
	return id, nil
}

// stage adds a job to a transaction. The conditions that its place needs join the
// transaction's own: it has no else-branch that they could mislead, and one that
// does not hold makes it run again, with a newer name.
func (q *core) stage(tx *client.Tx, r *request) (ID, error) {
	if err := q.check(r); err != nil {
		return "", err
	}
	if err := q.length.admit(tx.Context(), 1, false); err != nil {
		return "", err
	}
	own := tx.In(q.client)
	conf, err := own.Get(shard.ConfigKey) // it may have changed since it was last seen
	if err != nil {
		return "", err
	}
	now, err := q.configure(conf.Value, int64(conf.ModRevision))
	if err != nil {
		return "", err
	}
	d, err := q.draft(tx.Context(), r, now)
	if err != nil {
		return "", err
	}
	if d.Unique != "" {
		kv, err := own.Get(shard.UniqueKey(d.Unique))
		if err == nil {
			return "", &DuplicateError{Jobs: []ID{ID(kv.Value)}}
		}
		if !errors.Is(err, client.ErrNotFound) {
			return "", err
		}
	}
	guard, ops := d.Put(0)
	own.If(comparesOf(guard)...)
	for _, op := range opsOf(ops) {
		own.Stage(op)
	}
	return ID(d.Item.Job), nil
}
