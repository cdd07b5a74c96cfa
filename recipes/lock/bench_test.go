package lock_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// What is called right before each side effect must not cost anything.
func TestValidAllocatesNothing(t *testing.T) {
	held, err := lock.New(servertest.One(t).Client(), "job", lock.WithReentrant()).Acquire(t.Context())
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if !held.Valid() || held.Remaining() <= 0 {
			t.Error("lost")
		}
	}))
	require.NoError(t, held.Release(t.Context()))
}

func BenchmarkValid(b *testing.B) {
	held, err := lock.New(servertest.One(b).Client(), "job").Acquire(b.Context())
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		held.Valid()
	}
	require.NoError(b, held.Release(b.Context()))
}

// Acquire and Release of a lock that nobody else wants.
func BenchmarkUncontended(b *testing.B) {
	l := lock.New(servertest.One(b).Client(), "job")
	work := func() error {
		held, err := l.Acquire(b.Context())
		if err != nil {
			return err
		}
		return held.Release(b.Context())
	}
	require.NoError(b, work()) // makes the session
	b.ReportAllocs()
	for b.Loop() {
		if err := work(); err != nil {
			b.Fatal(err)
		}
	}
}

// Sixty-four callers, each with a name of its own, share one client.
func BenchmarkManyNames(b *testing.B) {
	const callers = 64
	c := servertest.One(b).Client()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for i := range callers {
		wg.Go(func() {
			if err := contend(b.Context(), lock.New(c, fmt.Sprintf("job%d", i)), &left, func() {}, func() {}); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}

// Put and Delete of a key: what the transactions of a lock are measured against.
func BenchmarkPutAndDelete(b *testing.B) {
	c := servertest.One(b).Client()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Put(b.Context(), "job", nil); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Delete(b.Context(), "job"); err != nil {
			b.Fatal(err)
		}
	}
}

// One lock that sixteen clients want all the time. The time is that of one
// hand-over: from the call of Release to the return of the next one's Acquire.
func BenchmarkHandOver(b *testing.B) {
	const clients = 16
	m := servertest.One(b)
	var released atomic.Int64 // when
	var left atomic.Int64
	took := make([]time.Duration, 0, b.N) // the lock protects it
	start := time.Now()
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for range clients {
		c, err := client.New(client.Config{Endpoints: m.Endpoints()})
		require.NoError(b, err)
		defer c.Close()
		_, err = c.Session(b.Context())
		require.NoError(b, err)
		wg.Go(func() {
			<-begin
			if err := contend(b.Context(), lock.New(c, "job"), &left, func() {
				if at := released.Load(); at != 0 {
					took = append(took, time.Since(start)-time.Duration(at))
				}
			}, func() { released.Store(int64(time.Since(start))) }); err != nil {
				b.Error(err)
			}
		})
	}
	b.ResetTimer()
	close(begin)
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	if n := len(took); n > 0 {
		b.ReportMetric(float64(took[n/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(took[n*99/100].Microseconds())/1000, "p99-ms")
	}
}

// contend takes the lock as long as there are rounds left.
func contend(ctx context.Context, l *lock.Lock, left *atomic.Int64, got, release func()) error {
	for left.Add(-1) >= 0 {
		held, err := l.Acquire(ctx)
		if err != nil {
			return err
		}
		got()
		release()
		if err := held.Release(ctx); err != nil {
			return err
		}
	}
	return nil
}
