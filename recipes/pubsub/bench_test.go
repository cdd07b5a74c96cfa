package pubsub_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// The benchmarks run three members, which sync each commit, and all clients, in one
// process: `go test ./recipes/pubsub -run xxx -bench . -benchtime 100000x`.

// payload is a message of 256 bytes.
var payload = make([]byte, 256)

func benchTopic(b *testing.B, endpoints []string) *pubsub.Topic[[]byte] {
	b.Helper()
	c, err := client.New(client.Config{Endpoints: endpoints})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, c.Close()) })
	t, err := pubsub.Open[[]byte](b.Context(), c, "bench", pubsub.MaxBytes(1<<30), pubsub.WithCodec(pubsub.Raw()))
	require.NoError(b, err)
	return t
}

func perSecond(b *testing.B, n int, what string) {
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), what)
	b.ReportMetric(0, "ns/op")
}

// BenchmarkPublishOneByOne has 16 publishers that wait for each message.
func BenchmarkPublishOneByOne(b *testing.B) {
	const publishers = 16
	t := benchTopic(b, servertest.Three(b).Endpoints())
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range publishers {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if _, err := t.Publish(b.Context(), payload); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	perSecond(b, b.N, "messages/s")
}

// BenchmarkPublishPacked has a publisher on each of four clients.
func BenchmarkPublishPacked(b *testing.B) {
	const publishers = 4
	endpoints := servertest.Three(b).Endpoints()
	var wg sync.WaitGroup
	topics := make([]*pubsub.Topic[[]byte], publishers)
	for i := range topics {
		topics[i] = benchTopic(b, endpoints)
	}
	b.ResetTimer()
	for i := range publishers {
		wg.Go(func() {
			p := topics[i].Publisher()
			for range b.N / publishers {
				if _, err := p.Publish(b.Context(), payload); err != nil {
					b.Error(err)
				}
			}
			if err := p.Close(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	perSecond(b, b.N, "messages/s")
}

// BenchmarkFanOut publishes to 100 subscribers on four clients, all of which must
// have a message before the 5,000th after it is published.
func BenchmarkFanOut(b *testing.B) {
	const clients, each, ahead = 4, 25, 5000
	endpoints := servertest.Three(b).Endpoints()
	pub := benchTopic(b, endpoints)
	from, err := pub.Publish(b.Context(), payload)
	require.NoError(b, err)
	credits := make(chan struct{}, ahead) // one for each message that not all have
	var got atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		t := benchTopic(b, endpoints)
		for range each {
			wg.Go(func() {
				n := 0
				for _, err := range t.Subscribe(b.Context(), pubsub.After(from)) {
					if err != nil {
						b.Error(err)
						return
					}
					if got.Add(1)%(clients*each) == 0 {
						<-credits
					}
					if n++; n == b.N {
						return
					}
				}
			})
		}
	}
	p := pub.Publisher()
	b.ResetTimer()
	for range b.N {
		credits <- struct{}{}
		_, err := p.Publish(b.Context(), payload)
		require.NoError(b, err)
	}
	require.NoError(b, p.Close(b.Context()))
	wg.Wait()
	perSecond(b, b.N*clients*each, "events/s")
}

// BenchmarkGroup has four members handle what was published before.
func BenchmarkGroup(b *testing.B) {
	const members = 4
	endpoints := servertest.Three(b).Endpoints()
	pub := benchTopic(b, endpoints)
	p := pub.Publisher()
	for range b.N {
		_, err := p.Publish(b.Context(), payload)
		require.NoError(b, err)
	}
	require.NoError(b, p.Close(b.Context()))
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var got atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range members {
		g := benchTopic(b, endpoints).Group("g")
		wg.Go(func() {
			_ = g.Run(ctx, func(context.Context, *pubsub.Msg[[]byte]) error {
				if got.Add(1) == int64(b.N) {
					cancel()
				}
				return nil
			})
		})
	}
	<-ctx.Done()
	perSecond(b, b.N, "messages/s")
	wg.Wait()
}
