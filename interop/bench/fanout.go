package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	fanOutKey    = "bench/fan"
	fanOutRounds = 4 // puts whose events may be under way at once
)

// runFanOut delivers every put of one key to e.workers watchers. It keeps
// fanOutRounds puts under way: the next one starts when all watchers together
// have received as many events as the oldest one causes. An event's latency
// runs from the start of its put.
func runFanOut(ctx context.Context, e *env) (*Run, error) {
	f := &fanOut{
		env:    e,
		hists:  make([]histogram, e.workers),
		origin: time.Now(),
		rounds: make(chan struct{}, fanOutRounds),
	}
	for range fanOutRounds {
		f.rounds <- struct{}{}
	}
	return e.measure(ctx, f.work, func() *histogram { return merged(f.hists) })
}

type fanOut struct {
	env       *env
	hists     []histogram // each element is owned by its watcher
	origin    time.Time
	rounds    chan struct{}
	delivered atomic.Int64
}

func (f *fanOut) work(ctx context.Context, w *window) {
	var watchers, writers sync.WaitGroup
	var created sync.WaitGroup
	created.Add(f.env.workers)
	for i := range f.env.workers {
		watchers.Go(func() { f.watch(ctx, w, i, &created) })
	}
	created.Wait()
	for i := range fanOutRounds {
		writers.Go(func() { f.write(ctx, w, i) })
	}
	writers.Wait()
	watchers.Wait()
}

func (f *fanOut) write(ctx context.Context, w *window, writer int) {
	for {
		select {
		case <-f.rounds:
		case <-ctx.Done():
			return
		}
		stamp := strconv.FormatInt(int64(time.Since(f.origin)), 10)
		value := stamp + " " + payload[:valueBytes-len(stamp)-1]
		if _, err := f.env.conn(writer).Put(ctx, fanOutKey, value); err != nil && ctx.Err() == nil {
			w.failed(err)
			f.allowRound() // this one may never be delivered
		}
	}
}

// allowRound never blocks: a put that failed at the client and was applied all
// the same is counted twice, and the surplus is dropped.
func (f *fanOut) allowRound() {
	select {
	case f.rounds <- struct{}{}:
	default:
	}
}

func (f *fanOut) watch(ctx context.Context, w *window, i int, created *sync.WaitGroup) {
	waiting := true
	defer func() {
		if waiting {
			created.Done()
		}
	}()
	for resp := range f.env.conn(i).Watch(ctx, fanOutKey, clientv3.WithCreatedNotify()) {
		if resp.Created && waiting {
			waiting = false
			created.Done()
		}
		if err := resp.Err(); err != nil {
			if ctx.Err() == nil {
				w.failed(fmt.Errorf("watch: %w", err))
			}
			return
		}
		now := time.Since(f.origin)
		for _, ev := range resp.Events {
			if w.open.Load() {
				stamp, _, _ := strings.Cut(string(ev.Kv.Value[:24]), " ")
				sent, err := strconv.ParseInt(stamp, 10, 64)
				if err != nil {
					w.failed(err)
					continue
				}
				f.hists[i].add(now - time.Duration(sent))
			}
			if f.delivered.Add(1)%int64(f.env.workers) == 0 {
				f.allowRound()
			}
		}
	}
}
