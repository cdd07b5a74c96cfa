package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

const (
	// jobsAhead bounds the jobs that were put in and not worked on, so that a run
	// measures both ends of the queue and not how fast one runs away from the other.
	jobsAhead       = 512
	jobsAheadPacked = 16_384
	jobsPerSecond   = 500 // of queuelatency
)

// job is the value of the bench's jobs: when it was put in, and ballast.
type job []byte

func newJob(origin time.Time) job {
	v := []byte(payload)
	return appendTime(v, time.Since(origin))
}

// appendTime writes a duration over the first digits of a value.
func appendTime(v []byte, d time.Duration) []byte {
	copy(v, fmt.Sprintf("%019d", d))
	return v
}

func timeOf(v []byte) (d time.Duration) {
	for _, c := range v[:19] {
		d = 10*d + time.Duration(c-'0')
	}
	return d
}

// queueRun is producers and workers on one queue. An operation is a job that was
// worked on, and its latency the time from before it was enqueued to the start of
// its handler.
type queueRun struct {
	e       *env
	queues  []*queue.Queue[[]byte] // one for each client
	origin  time.Time
	hists   []histogram // each element is owned by the queue's handlers, under mu
	mu      []sync.Mutex
	ahead   chan struct{}
	produce func(ctx context.Context, r *queueRun, worker int) error
	run     []queue.RunOption
}

// rawCodec leaves bytes as they are.
type rawCodec struct{}

func (rawCodec) Encode(v []byte) ([]byte, error) { return v, nil }
func (rawCodec) Decode(b []byte) ([]byte, error) { return b, nil }

func newQueueRun(ctx context.Context, e *env, name string, ahead int) (*queueRun, error) {
	r := &queueRun{e: e, origin: time.Now(), ahead: make(chan struct{}, ahead)}
	for _, c := range e.clients {
		q, err := queue.Open[[]byte](ctx, c, name, queue.WithCodec[[]byte](rawCodec{}))
		if err != nil {
			return nil, err
		}
		r.queues = append(r.queues, q)
	}
	r.hists, r.mu = make([]histogram, len(r.queues)), make([]sync.Mutex, len(r.queues))
	return r, nil
}

// measure lets e.workers producers put in, and each client's worker work, with as
// many jobs at once as it has producers.
func (r *queueRun) measure(ctx context.Context) (*Run, error) {
	return r.e.measure(ctx, r.work, func() *histogram { return merged(r.hists) })
}

func (r *queueRun) work(ctx context.Context, w *window) {
	var wg sync.WaitGroup
	fail := func(err error) {
		if err != nil && ctx.Err() == nil {
			w.failed(err)
		}
	}
	each := (r.e.workers + len(r.queues) - 1) / len(r.queues)
	for i, q := range r.queues {
		opts := append([]queue.RunOption{queue.WithConcurrency(each)}, r.run...)
		wg.Go(func() {
			fail(q.Run(ctx, func(_ context.Context, j *queue.Job[[]byte]) error {
				if w.open.Load() {
					r.mu[i].Lock()
					r.hists[i].add(time.Since(r.origin) - timeOf(j.Value))
					r.mu[i].Unlock()
				}
				select {
				case <-r.ahead:
				default: // given back, and run once more
				}
				return nil
			}, opts...))
		})
	}
	for i := range r.e.workers {
		wg.Go(func() { fail(r.produce(ctx, r, i)) })
	}
	wg.Wait()
}

// admit waits until one more job may be put in.
func (r *queueRun) admit(ctx context.Context) error {
	select {
	case r.ahead <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enqueue puts in one job after the other.
func enqueue(ctx context.Context, r *queueRun, worker int) error {
	q := r.queues[worker%len(r.queues)]
	for ctx.Err() == nil {
		if err := r.admit(ctx); err != nil {
			return err
		}
		if _, err := q.Enqueue(ctx, newJob(r.origin)); err != nil {
			return err
		}
	}
	return nil
}

func runQueue(ctx context.Context, e *env) (*Run, error) {
	r, err := newQueueRun(ctx, e, "queue", jobsAhead)
	if err != nil {
		return nil, err
	}
	r.produce = enqueue
	return r.measure(ctx)
}

func runQueuePacked(ctx context.Context, e *env) (*Run, error) {
	r, err := newQueueRun(ctx, e, "queuepacked", jobsAheadPacked)
	if err != nil {
		return nil, err
	}
	r.run = []queue.RunOption{queue.WithConcurrency(4)}
	r.produce = func(ctx context.Context, r *queueRun, worker int) error {
		q := r.queues[worker%len(r.queues)]
		jobs := func(yield func(queue.Item[[]byte]) bool) {
			for r.admit(ctx) == nil && yield(queue.Item[[]byte]{Value: newJob(r.origin)}) {
			}
		}
		for _, err := range q.EnqueueSeq(ctx, jobs, queue.WithPending(jobsAheadPacked)) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	return r.measure(ctx)
}

// runQueueLatency puts in so many jobs a second, however long each takes.
func runQueueLatency(ctx context.Context, e *env) (*Run, error) {
	r, err := newQueueRun(ctx, e, "queuelatency", jobsAheadPacked)
	if err != nil {
		return nil, err
	}
	r.run = []queue.RunOption{queue.WithConcurrency(4)}
	r.produce = func(ctx context.Context, r *queueRun, worker int) error {
		tick := time.NewTicker(time.Duration(e.workers) * time.Second / jobsPerSecond)
		defer tick.Stop()
		var wg sync.WaitGroup
		defer wg.Wait()
		errs := make(chan error, 1)
		for {
			select {
			case <-tick.C:
			case err := <-errs:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := r.admit(ctx); err != nil {
				return err
			}
			wg.Go(func() {
				if _, err := r.queues[worker%len(r.queues)].Enqueue(ctx, newJob(r.origin)); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			})
		}
	}
	return r.measure(ctx)
}

// runQueueHerd is runQueue with a count of the transactions whose conditions did
// not hold, by all clients.
func runQueueHerd(ctx context.Context, e *env) (*Run, error) {
	var txns, failed, jobs atomic.Int64
	var open atomic.Bool
	counts := grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := invoke(ctx, method, req, reply, cc, opts...)
		if res, ok := reply.(*pb.TxnResponse); ok && err == nil && open.Load() {
			n, bad := outcomes(res)
			txns.Add(n)
			failed.Add(bad)
		}
		return err
	})
	for i, c := range e.clients {
		counting, err := client.New(client.Config{Endpoints: e.cluster.Endpoints(), DialOptions: []grpc.DialOption{counts}})
		if err != nil {
			return nil, err
		}
		e.clients[i] = counting
		if err := c.Close(); err != nil {
			return nil, err
		}
	}
	r, err := newQueueRun(ctx, e, "queueherd", jobsAhead)
	if err != nil {
		return nil, err
	}
	timer := time.AfterFunc(warmUp, func() { open.Store(true) })
	defer timer.Stop()
	r.produce = enqueue
	r.run = []queue.RunOption{queue.WithHooks(queue.Hooks{Ended: func(*queue.RawJob, time.Duration, error) {
		if open.Load() {
			jobs.Add(1)
		}
	}})}
	res, err := r.measure(ctx)
	if err != nil {
		return nil, err
	}
	if jobs.Load() == 0 {
		return nil, errors.New("no job was worked on")
	}
	res.Note = fmt.Sprintf("of %d transactions for %d jobs %d failed: %.2f in 1,000 jobs", txns.Load(), jobs.Load(), failed.Load(),
		1000*float64(failed.Load())/float64(jobs.Load()))
	return res, nil
}

// outcomes counts the transactions in an answer, those inside others included, and
// those of them whose conditions did not hold.
func outcomes(res *pb.TxnResponse) (txns, failed int64) {
	txns = 1
	if !res.Succeeded {
		failed = 1
	}
	for _, op := range res.Responses {
		if inner := op.GetResponseTxn(); inner != nil {
			n, bad := outcomes(inner)
			txns, failed = txns+n, failed+bad
		}
	}
	return txns, failed
}

// runEtcdQueue is the queue of etcd's recipes, which deletes a job when it is
// handed out.
func runEtcdQueue(ctx context.Context, e *env) (*Run, error) {
	const name = "bench/queue"
	origin := time.Now()
	hists := make([]histogram, e.workers) // each element is owned by its consumer
	ahead := make(chan struct{}, jobsAhead)
	return e.measure(ctx, func(ctx context.Context, w *window) {
		var consumers, producers sync.WaitGroup
		for i := range e.workers {
			producers.Go(func() {
				q := recipe.NewQueue(e.conn(i), name)
				for {
					select {
					case ahead <- struct{}{}:
					case <-ctx.Done():
						return
					}
					if err := q.Enqueue(string(newJob(origin))); err != nil {
						w.failed(err)
						return
					}
				}
			})
			consumers.Go(func() {
				q := recipe.NewQueue(e.conn(i), name)
				for ctx.Err() == nil {
					v, err := q.Dequeue()
					if err != nil {
						w.failed(err)
						return
					}
					if v == "" {
						return
					}
					if w.open.Load() {
						hists[i].add(time.Since(origin) - timeOf([]byte(v)))
					}
					select {
					case <-ahead:
					default:
					}
				}
			})
		}
		producers.Wait()
		// Dequeue knows no context: it ends when it gets something.
		for range 2 * e.workers {
			if err := recipe.NewQueue(e.conn(0), name).Enqueue(""); err != nil {
				break
			}
		}
		consumers.Wait()
	}, func() *histogram { return merged(hists) })
}
