package queue_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// fleetOf starts so many workers, each with a client of its own, that count.
func fleetOf(b *testing.B, endpoints []string, workers, concurrency int, handler queue.Handler[string]) (stop func()) {
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	for range workers {
		c, err := client.New(client.Config{Endpoints: endpoints})
		require.NoError(b, err)
		b.Cleanup(func() { _ = c.Close() })
		q, err := queue.Open[string](ctx, c, "bench")
		require.NoError(b, err)
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := q.Run(ctx, handler, queue.WithConcurrency(concurrency)); err != nil {
				b.Error(err)
			}
		}()
	}
	return func() { cancel(); wg.Wait() }
}

var payload = strings.Repeat("x", 256)

// Three members with their disks, 16 producers and 16 workers, one by one.
func BenchmarkOneByOne(b *testing.B) {
	endpoints := servertest.Three(b).Endpoints()
	var done atomic.Int64
	full := make(chan struct{})
	stop := fleetOf(b, endpoints, 16, 1, func(context.Context, *queue.Job[string]) error {
		if done.Add(1) == int64(b.N) {
			close(full)
		}
		return nil
	})
	c, err := client.New(client.Config{Endpoints: endpoints})
	require.NoError(b, err)
	defer c.Close()
	q, err := queue.Open[string](b.Context(), c, "bench")
	require.NoError(b, err)
	b.ResetTimer()
	var next atomic.Int64
	for range 16 {
		go func() {
			for next.Add(1) <= int64(b.N) {
				if _, err := q.Enqueue(b.Context(), payload); err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	<-full
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	b.StopTimer()
	stop()
}

// The same with producers that pack.
func BenchmarkPacked(b *testing.B) {
	endpoints := servertest.Three(b).Endpoints()
	var done atomic.Int64
	full := make(chan struct{})
	stop := fleetOf(b, endpoints, 4, 4, func(context.Context, *queue.Job[string]) error {
		if done.Add(1) == int64(b.N) {
			close(full)
		}
		return nil
	})
	c, err := client.New(client.Config{Endpoints: endpoints})
	require.NoError(b, err)
	defer c.Close()
	q, err := queue.Open[string](b.Context(), c, "bench")
	require.NoError(b, err)
	p, err := q.Producer()
	require.NoError(b, err)
	b.ResetTimer()
	for range b.N {
		if _, err := p.Send(b.Context(), payload); err != nil {
			b.Fatal(err)
		}
	}
	<-full
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	b.StopTimer()
	require.NoError(b, p.Close(b.Context()))
	stop()
}

// From the call of Enqueue to the start of the handler, at 500 a second.
func BenchmarkLatency(b *testing.B) {
	endpoints := servertest.Three(b).Endpoints()
	var mu sync.Mutex
	var took []time.Duration
	full := make(chan struct{})
	stop := fleetOf(b, endpoints, 4, 4, func(_ context.Context, j *queue.Job[string]) error {
		at, err := time.Parse(time.RFC3339Nano, j.Value)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if took = append(took, time.Since(at)); len(took) == b.N {
			close(full)
		}
		return nil
	})
	c, err := client.New(client.Config{Endpoints: endpoints})
	require.NoError(b, err)
	defer c.Close()
	q, err := queue.Open[string](b.Context(), c, "bench")
	require.NoError(b, err)
	b.ResetTimer()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range b.N {
		<-tick.C
		go func() {
			if _, err := q.Enqueue(b.Context(), time.Now().Format(time.RFC3339Nano)); err != nil {
				b.Error(err)
			}
		}()
	}
	<-full
	b.StopTimer()
	stop()
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[len(took)*p/100].Microseconds())/1000, fmt.Sprintf("ms-p%d", p))
	}
}
