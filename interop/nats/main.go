// Command nats measures NATS JetStream as interop/bench measures the queue and the
// topics of this project: a cluster of three servers on this machine, streams with
// three replicas in files, and an fsync for each message (sync_interval: always),
// without which an acknowledged message may be lost with its machines.
//
// It is a module of its own, so that nothing else depends on NATS.
//
//	go run . -duration 5s
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	warmUp     = time.Second
	valueBytes = 256
	// What interop/bench has in flight as well.
	jobsAhead       = 512
	jobsAheadPacked = 16_384
	publishAhead    = 1000
	subscribers     = 100
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	duration := flag.Duration("duration", 5*time.Second, "measured window of a run")
	only := flag.String("scenario", "", "comma separated `list` of scenarios; all when empty")
	sync := flag.String("sync", "always", "sync_interval of the servers")
	flag.Parse()
	if err := run(ctx, *duration, *only, *sync); err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(1)
	}
}

// scenario measures one thing, on connections of its own.
type scenario struct {
	name, what string
	conns      int
	run        func(ctx context.Context, b *bench) error
}

var scenarios = []scenario{
	{"queue16", "16 producers that wait for each message and 16 workers that ack one by one, each on its connection", 16, oneByOne},
	{"queuepacked", "4 asynchronous producers, 4 workers with batches of 256, on 4 connections", 4, batches},
	{"queuelatency", "500 jobs a second, from publish to the worker", 4, latency},
	{"pub16", "16 publishers that wait for each message", 16, publish},
	{"pubpacked", "4 asynchronous publishers", 4, publishAsync},
	{"pubfan100", "events to 100 subscribers on 8 connections", 8, fanOut},
}

// bench is one run.
type bench struct {
	conns  []jetstream.JetStream
	origin time.Time
	open   atomic.Bool

	mu    sync.Mutex
	times []time.Duration // protected by mu; one for each operation in the window
	count atomic.Int64
	err   error // protected by mu
}

func (b *bench) done(took time.Duration) {
	if !b.open.Load() {
		return
	}
	if n := b.count.Add(1); n%8 == 0 { // enough for quantiles
		b.mu.Lock()
		b.times = append(b.times, took)
		b.mu.Unlock()
	}
}

func (b *bench) fail(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = errors.Join(b.err, err)
}

func (b *bench) value() []byte {
	v := []byte(strings.Repeat("v", valueBytes))
	copy(v, fmt.Sprintf("%019d", time.Since(b.origin)))
	return v
}

func (b *bench) age(v []byte) time.Duration {
	var at time.Duration
	for _, c := range v[:19] {
		at = 10*at + time.Duration(c-'0')
	}
	return time.Since(b.origin) - at
}

func run(ctx context.Context, duration time.Duration, only, syncInterval string) error {
	c, err := startCluster(ctx, syncInterval)
	if err != nil {
		return err
	}
	defer c.stop()
	fmt.Printf("nats-server %s, three servers, R3 file streams, sync_interval %s\n", c.version, syncInterval)
	fmt.Printf("%-14s %12s %10s %10s %12s\n", "scenario", "rate", "p50", "p99", "servers' CPU")
	for _, s := range scenarios {
		if only != "" && !slices.Contains(strings.Split(only, ","), s.name) {
			continue
		}
		if err := measure(ctx, c, s, duration); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func measure(ctx context.Context, c *cluster, s scenario, duration time.Duration) error {
	b := &bench{origin: time.Now()}
	defer func() {
		for _, js := range b.conns {
			js.Conn().Close()
		}
	}()
	if err := b.connect(ctx, c, s); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, b) }()
	window, cpu, err := b.window(c, duration, ended)
	if err != nil {
		return err
	}
	stop()
	select {
	case err := <-ended:
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	case <-time.After(20 * time.Second):
		return errors.New("it does not end")
	}
	return b.report(s, window, cpu)
}

// connect opens the connections of a scenario, and makes its stream.
func (b *bench) connect(ctx context.Context, c *cluster, s scenario) error {
	for i := range s.conns {
		nc, err := nats.Connect(strings.Join(c.urls, ","), nats.Name(fmt.Sprintf("%s-%d", s.name, i)))
		if err != nil {
			return err
		}
		js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
		if err != nil {
			return err
		}
		b.conns = append(b.conns, js)
	}
	retention := jetstream.LimitsPolicy
	if strings.HasPrefix(s.name, "queue") {
		retention = jetstream.WorkQueuePolicy
	}
	_, err := b.conns[0].CreateStream(ctx, jetstream.StreamConfig{
		Name: s.name, Subjects: []string{s.name}, Replicas: 3, Storage: jetstream.FileStorage, Retention: retention,
	})
	return err
}

// window lets a run warm up and measures a while of it.
func (b *bench) window(c *cluster, duration time.Duration, ended <-chan error) (took, cpu time.Duration, err error) {
	early := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case err := <-ended:
			return errors.Join(errors.New("it ended early"), err)
		}
	}
	if err := early(warmUp); err != nil {
		return 0, 0, err
	}
	before, err := c.cpu()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	b.open.Store(true)
	if err := early(duration); err != nil {
		return 0, 0, err
	}
	b.open.Store(false)
	took = time.Since(start)
	after, err := c.cpu()
	return took, after - before, err
}

// report prints what a run has measured.
func (b *bench) report(s scenario, window, cpu time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	slices.Sort(b.times)
	at := func(p int) time.Duration {
		if len(b.times) == 0 {
			return 0
		}
		return b.times[len(b.times)*p/100].Round(10 * time.Microsecond)
	}
	n := b.count.Load()
	fmt.Printf("%-14s %10.0f/s %10v %10v %9.0f us\n", s.name, float64(n)/window.Seconds(), at(50), at(99), float64(cpu.Microseconds())/float64(max(n, 1)))
	return nil
}
