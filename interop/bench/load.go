package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/interop/harness"
)

const (
	warmUp      = time.Second
	valueBytes  = 256
	drainPeriod = 10 * time.Second // how long a run may take to end after its window
)

// Run is one measurement of one scenario on one cluster.
type Run struct {
	Scenario  string        `json:"scenario"`
	Kind      harness.Kind  `json:"kind"`
	Pair      int           `json:"pair"`
	Ops       int64         `json:"ops"`
	Window    time.Duration `json:"window_ns"`
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
	ServerCPU time.Duration `json:"server_cpu_ns"` // all members, in the window
	ClientCPU time.Duration `json:"client_cpu_ns"` // this process, in the window
	Errors    int64         `json:"errors"`
	Steal     float64       `json:"steal"` // share of the machine's time that its host took
	Load      string        `json:"load"`
	Note      string        `json:"note,omitempty"` // what else was seen

	latency *histogram
}

// Rate is in operations a second.
func (r *Run) Rate() float64 {
	if r.Window <= 0 {
		return 0
	}
	return float64(r.Ops) / r.Window.Seconds()
}

// CPUPerOp is the servers' time for one operation.
func (r *Run) CPUPerOp() time.Duration { return r.perOp(r.ServerCPU) }

func (r *Run) perOp(d time.Duration) time.Duration {
	if r.Ops == 0 {
		return 0
	}
	return d / time.Duration(r.Ops)
}

// env is what a scenario runs on. It has clients of one kind.
type env struct {
	cluster  *harness.Cluster
	conns    []*clientv3.Client // one gRPC client each, over all members
	clients  []*client.Client   // the same of this project's
	workers  int
	duration time.Duration
}

// conn spreads the workers evenly over the connections.
func (e *env) conn(worker int) *clientv3.Client { return e.conns[worker%len(e.conns)] }

// client does the same with this project's clients.
func (e *env) client(worker int) *client.Client { return e.clients[worker%len(e.clients)] }

func openEnv(c *harness.Cluster, workers, conns int, ours bool, d time.Duration) (*env, error) {
	e := &env{cluster: c, workers: workers, duration: d}
	for range max(1, min(conns, workers)) {
		if err := e.open(ours); err != nil {
			return nil, errors.Join(err, e.Close())
		}
	}
	return e, nil
}

func (e *env) open(ours bool) error {
	if ours {
		cli, err := client.New(client.Config{Endpoints: e.cluster.Endpoints()})
		if err == nil {
			e.clients = append(e.clients, cli)
		}
		return err
	}
	cli, err := e.cluster.Client()
	if err == nil {
		e.conns = append(e.conns, cli)
	}
	return err
}

func (e *env) Close() error {
	var errs []error
	for _, c := range e.conns {
		errs = append(errs, c.Close())
	}
	for _, c := range e.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// window is the measured part of a run: workers ask it whether what they just
// finished counts.
type window struct {
	open   atomic.Bool
	errors atomic.Int64
	last   atomic.Pointer[error]
}

func (w *window) failed(err error) {
	if w.open.Load() {
		w.errors.Add(1)
	}
	w.last.Store(&err)
}

// operation does one unit of work for one worker.
type operation func(ctx context.Context, worker int) error

// closedLoop runs op on every worker, each starting its next operation when
// the previous one was answered, and measures the operations that end in the
// window.
func (e *env) closedLoop(ctx context.Context, op operation) (*Run, error) {
	return e.loop(ctx, func(ctx context.Context, worker int, done count) error {
		start := time.Now()
		err := op(ctx, worker)
		if err == nil {
			done(time.Since(start))
		}
		return err
	})
}

// count says that an operation has been done, and how long it took.
type count func(took time.Duration)

// loop runs step on every worker, over and over. What counts is what a step
// says has been done in the window.
func (e *env) loop(ctx context.Context, step func(ctx context.Context, worker int, done count) error) (*Run, error) {
	hists := make([]histogram, e.workers) // each element is owned by its worker
	return e.measure(ctx, func(ctx context.Context, w *window) {
		var wg sync.WaitGroup
		for i := range e.workers {
			done := func(took time.Duration) {
				if w.open.Load() {
					hists[i].add(took)
				}
			}
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := step(ctx, i, done); err != nil && ctx.Err() == nil {
						w.failed(err)
					}
				}
			})
		}
		wg.Wait()
	}, func() *histogram { return merged(hists) })
}

func merged(hists []histogram) *histogram {
	all := &histogram{}
	for i := range hists {
		all.merge(&hists[i])
	}
	return all
}

// measure runs work until the window has passed and accounts for the window.
// The histogram that result returns counts one operation an entry.
func (e *env) measure(ctx context.Context, work func(context.Context, *window), result func() *histogram) (*Run, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var w window
	done := make(chan struct{})
	go func() {
		defer close(done)
		work(ctx, &w)
	}()
	if err := wait(ctx, warmUp); err != nil {
		return nil, err
	}
	r := &Run{Load: loadAverage()}
	before, _, err := e.cluster.Usage()
	if err != nil {
		return nil, err
	}
	own := ownCPU()
	total, steal := cpuTimes()
	start := time.Now()
	w.open.Store(true)
	err = wait(ctx, e.duration)
	w.open.Store(false)
	r.Window = time.Since(start)
	if err != nil {
		return nil, err
	}
	after, _, err := e.cluster.Usage()
	if err != nil {
		return nil, err
	}
	r.ClientCPU = ownCPU() - own
	r.ServerCPU = after.CPU - before.CPU
	if t, s := cpuTimes(); t > total {
		r.Steal = float64(s-steal) / float64(t-total)
	}
	stop()
	select {
	case <-done:
	case <-time.After(drainPeriod):
		return nil, fmt.Errorf("the work did not end within %v of its window", drainPeriod)
	}
	r.latency = result()
	r.Ops = r.latency.count
	r.P50, r.P99 = r.latency.quantile(0.5), r.latency.quantile(0.99)
	r.Errors = w.errors.Load()
	if last := w.last.Load(); last != nil && r.Ops == 0 {
		return nil, fmt.Errorf("no operation succeeded: %w", *last)
	}
	return r, nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
