package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/interop/harness"
)

const (
	writePeriod    = time.Millisecond // 1 kHz
	writeTimeout   = 10 * time.Second
	maxWriting     = 20_000                 // puts under way; a tick beyond it is skipped
	steadyBefore   = 500 * time.Millisecond // writing before the kill
	steadyAfter    = 500 * time.Millisecond // success without a longer pause than steadyGap ends a trial
	steadyGap      = 250 * time.Millisecond
	trialTimeout   = 60 * time.Second
	observationGap = 10 * time.Millisecond
)

// putter is the part of a client that the writer uses.
type putter interface {
	Put(ctx context.Context, key, value string) error
	Close() error
}

// fault is one way for a leader to go.
type fault struct {
	name, what string
	begin      func(context.Context, *harness.Member) error
	mend       func(context.Context, *harness.Member) error
}

// faults are the scenarios that are no load.
var faults = []fault{
	{"failover", "kill -9 of the leader",
		func(_ context.Context, m *harness.Member) error { return m.Kill() },
		func(ctx context.Context, m *harness.Member) error { return m.Start(ctx) }},
	{"hang", "SIGSTOP of the leader",
		func(_ context.Context, m *harness.Member) error { return m.Pause() },
		func(_ context.Context, m *harness.Member) error { return m.Resume() }},
	{"stop", "planned stop (SIGTERM) of the leader",
		func(ctx context.Context, m *harness.Member) error { return m.Terminate(ctx) },
		func(ctx context.Context, m *harness.Member) error { return m.Start(ctx) }},
}

// Failover is one fault of a leader.
type Failover struct {
	Fault  string        `json:"fault"`
	Kind   harness.Kind  `json:"kind"`
	Client string        `json:"client"`
	Trial  int           `json:"trial"`
	Gap    time.Duration `json:"gap_ns"`  // longest time without a successful put
	Failed int64         `json:"failed"`  // puts that the client reported as failed
	Done   int           `json:"success"` // puts that succeeded
}

// writer puts at a fixed rate whatever the answers, so that a pause shows in
// the answers and does not slow the questions down.
type writer struct {
	client putter

	mu     sync.Mutex
	times  []time.Time // mu protects; when puts succeeded, in order of their answers
	failed int64       // mu protects
}

func (w *writer) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxWriting)
	ticks := time.NewTicker(writePeriod)
	defer ticks.Stop()
	for n := 0; ; n++ {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		wg.Go(func() {
			w.put(ctx, n)
			<-slots
		})
	}
}

func (w *writer) put(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := w.client.Put(ctx, fmt.Sprintf("bench/failover/%03d", n%writeKeys), payload)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.times = append(w.times, time.Now())
	case !errors.Is(context.Cause(ctx), context.Canceled):
		w.failed++
	}
}

// steady tells whether the writer has succeeded for d without a longer pause
// than steadyGap since a success after from.
func (w *writer) steady(from time.Time, d time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, _ := slices.BinarySearchFunc(w.times, from, time.Time.Compare)
	if i == len(w.times) || time.Since(w.times[len(w.times)-1]) > steadyGap {
		return false
	}
	start := w.times[i]
	for j := i + 1; j < len(w.times); j++ {
		if w.times[j].Sub(w.times[j-1]) > steadyGap {
			start = w.times[j]
		}
	}
	return time.Since(start) >= d
}

// longestGap is the longest time between two successes after from, counting
// from the last success before it.
func (w *writer) longestGap(from time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, _ := slices.BinarySearchFunc(w.times, from, time.Time.Compare)
	var gap time.Duration
	for j := max(i, 1); j < len(w.times); j++ {
		gap = max(gap, w.times[j].Sub(w.times[j-1]))
	}
	return gap
}

// failoverTrial takes the leader of a running cluster away under the writer's load,
// measures, and brings the member back.
func failoverTrial(ctx context.Context, f fault, c *harness.Cluster, client putter) (Failover, error) {
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	out := Failover{Fault: f.what, Kind: c.Kind}
	leader, err := c.Leader(ctx)
	if err != nil {
		return out, err
	}
	w := &writer{client: client}
	writing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { w.run(writing) })
	err = f.underLoad(ctx, c.Members[leader], w, &out)
	stop()
	wg.Wait()
	if err != nil {
		return out, err
	}
	out.Failed, out.Done = w.failed, len(w.times)
	if err := f.mend(ctx, c.Members[leader]); err != nil {
		return out, err
	}
	_, err = c.Leader(ctx)
	return out, err
}

func (f *fault) underLoad(ctx context.Context, leader *harness.Member, w *writer, out *Failover) error {
	start := time.Now()
	for !w.steady(start, steadyBefore) {
		if err := wait(ctx, observationGap); err != nil {
			return fmt.Errorf("wait for steady writes before the fault: %w", err)
		}
	}
	began := time.Now()
	if err := f.begin(ctx, leader); err != nil {
		return err
	}
	for !w.steady(began.Add(steadyGap), steadyAfter) {
		if err := wait(ctx, observationGap); err != nil {
			return fmt.Errorf("wait for steady writes after the fault: %w", err)
		}
	}
	out.Gap = w.longestGap(began)
	return nil
}
