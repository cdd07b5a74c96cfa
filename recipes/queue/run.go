package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

const (
	defaultDrain   = 30 * time.Second
	concurrencyMax = 4096
	prefetchMax    = 1024
	weightMax      = 1000
)

// RunOption is an option of Run, Jobs and Receive.
type RunOption func(*runOptions)

type runOptions struct {
	concurrency int
	prefetch    int
	drain       time.Duration
	middleware  []Middleware
	groupLimit  int
	weights     []int
	rate        float64
	burst       int
	hooks       Hooks
}

// WithConcurrency sets how many jobs run at once. Default: four for each
// processor that Go uses.
func WithConcurrency(n int) RunOption { return func(o *runOptions) { o.concurrency = n } }

// WithPrefetch sets how many jobs a worker claims, those that run included.
// Default: twice the concurrency, and more while jobs are short: what is done in
// 20 ms, up to 256. Claimed jobs are not for others until they end or the worker does.
func WithPrefetch(n int) RunOption { return func(o *runOptions) { o.prefetch = n } }

// WithDrainTimeout sets how long jobs may go on after the context of Run has
// ended, before theirs ends too. Default 30 s.
func WithDrainTimeout(d time.Duration) RunOption { return func(o *runOptions) { o.drain = d } }

// WithMiddleware wraps the handler; the first one is the outermost.
func WithMiddleware(m ...Middleware) RunOption {
	return func(o *runOptions) { o.middleware = append(o.middleware, m...) }
}

// WithGroupLimit lets n jobs of a group run at once, over all workers, instead of
// one. Their order is then that of their starts only, and failed ones do not keep
// others waiting. All workers of a queue should have the same.
func WithGroupLimit(n int) RunOption { return func(o *runOptions) { o.groupLimit = n } }

// WithWeights shares the starts of this worker among the priorities of a shard, as
// long as each of them has jobs: with 6, 3, 1 six in ten are of priority 0. What
// has no weight has 1. Default: a job waits while its shard has more urgent ones.
func WithWeights(weights ...int) RunOption { return func(o *runOptions) { o.weights = weights } }

// WithRate limits the starts of this worker to so many a second, with bursts of
// up to burst.
func WithRate(perSecond float64, burst int) RunOption {
	return func(o *runOptions) { o.rate, o.burst = perSecond, burst }
}

// Hooks tell what a worker does, for metrics. They are called from its loop and
// must not block.
type Hooks struct {
	// Started is called when a job starts, with how long it was ready or enqueued before.
	Started func(j *RawJob, waited time.Duration)
	// Ended is called when a run has ended, with what the handler returned.
	Ended func(j *RawJob, took time.Duration, err error)
	// Lost is called when claims were lost with their session.
	Lost func(jobs int)
}

// WithHooks sets hooks.
func WithHooks(h Hooks) RunOption { return func(o *runOptions) { o.hooks = h } }

func newRunOptions(opts []RunOption) (runOptions, error) {
	o := runOptions{concurrency: 4 * runtime.GOMAXPROCS(0), drain: defaultDrain, groupLimit: 1, burst: 1}
	for _, opt := range opts {
		opt(&o)
	}
	if slices.ContainsFunc(o.weights, func(n int) bool { return n < 1 || n > weightMax }) {
		return o, fmt.Errorf("%w: weights %v, 1 to %d are possible", ErrOption, o.weights, weightMax)
	}
	if o.concurrency < 1 || o.concurrency > concurrencyMax || o.prefetch < 0 || o.prefetch > prefetchMax ||
		o.groupLimit < 1 || o.rate < 0 || o.burst < 1 || o.drain < 0 {
		return o, fmt.Errorf("%w: concurrency %d, prefetch %d, group limit %d, rate %v", ErrOption, o.concurrency, o.prefetch, o.groupLimit, o.rate)
	}
	return o, nil
}

// Run works on the queue until ctx ends, and then returns nil once all is in
// order: it claims and starts no more, gives back what it has not started, and
// lets what runs go on for the time of WithDrainTimeout; then the contexts of jobs
// end, and jobs that return an error for that are given back as well.
//
// A worker that dies gives its jobs back within one TTL of its session. One that
// loses its session ends the contexts of its jobs with [ErrClaimLost], and begins
// anew with a new session.
//
// Errors: [ErrOption]; those of the session of WithSession when it is lost; and
// those of the client that waiting does not cure.
func (q *Queue[T]) Run(ctx context.Context, h Handler[T], opts ...RunOption) error {
	o, err := newRunOptions(opts)
	if err != nil {
		return fmt.Errorf("work on queue %q: %w", q.name, err)
	}
	return q.work(ctx, q.raw(h), o)
}

// raw decodes values for a handler.
func (q *Queue[T]) raw(h Handler[T]) RawHandler {
	return func(ctx context.Context, j *RawJob) error {
		v, err := q.codec.Decode(j.Payload)
		if err != nil {
			return Discard(fmt.Errorf("decode: %w", err))
		}
		return h(ctx, &Job[T]{Value: v, RawJob: j})
	}
}

// work runs workers, one after the other, until ctx ends.
func (q *core) work(ctx context.Context, h RawHandler, o runOptions) error {
	for i := len(o.middleware) - 1; i >= 0; i-- {
		h = o.middleware[i](h)
	}
	for n := 0; ctx.Err() == nil; n++ {
		err := q.workOnce(ctx, h, o)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return nil
		case q.opts.session != nil && q.opts.session.Err() != nil:
			return fmt.Errorf("work on queue %q: %w", q.name, q.opts.session.Err())
		case q.opts.session != nil && errors.Is(err, client.ErrLeaseNotFound): // which the session will learn
			return fmt.Errorf("work on queue %q: %w: %w", q.name, client.ErrSessionLost, err)
		case errors.Is(err, client.ErrClosed):
			return fmt.Errorf("work on queue %q: %w", q.name, err)
		case !errors.Is(err, errAnew) && !retry.Temporary(err) && !errors.Is(err, client.ErrSessionLost) && !errors.Is(err, client.ErrLeaseNotFound):
			return fmt.Errorf("work on queue %q: %w", q.name, err)
		}
		q.opts.log.Warn("worker begins anew", "queue", q.name, "reason", err)
		pause(ctx, n)
	}
	return nil
}

// errAnew: the worker can not go on as it is.
var errAnew = errors.New("worker has to begin anew")
