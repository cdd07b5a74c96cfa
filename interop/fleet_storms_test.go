//go:build chaos

package interop_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/interop/harness"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
	"github.com/latchkey-go/latchkey/recipes/queue/queuetest"
)

var (
	stormSeeds = flag.Int("storm.seeds", 50, "`seeds` of the queue's storms")
	stallFor   = flag.Duration("stall.for", 30*time.Second, "how `long` the subscriber stands still")
	stallRate  = flag.Int("stall.rate", 2000, "`messages` a second meanwhile")
)

// TestStorms has the queue's model of faults run over the real client and three processes, one of which is killed again and again.
func TestStorms(t *testing.T) {
	cluster := startSide(t, *subjectKind, 3).cluster
	ctx, stop := context.WithCancel(t.Context())
	kills := make(chan int, 1)
	var failed error
	go func() {
		n := 0
		defer func() { kills <- n }()
		rng := rand.New(rand.NewPCG(*chaosSeed, 4001))
		for pause(ctx, time.Duration(500+rng.IntN(1500))*time.Millisecond) {
			m := cluster.Members[rng.IntN(len(cluster.Members))]
			if failed = m.Kill(); failed != nil {
				return
			}
			n++
			pause(ctx, time.Duration(100+rng.IntN(500))*time.Millisecond)
			if failed = m.Start(context.WithoutCancel(ctx)); failed != nil {
				return
			}
		}
	}()
	queuetest.Storm(t, cluster.Endpoints(), *stormSeeds, nil)
	stop()
	n := <-kills
	require.NoError(t, failed)
	t.Logf("%d seeds, and %d kills of members", *stormSeeds, n)
	require.Greater(t, n, *stormSeeds/10, "too little happened")
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// stall is what was in memory at some time of a stall.
type stall struct {
	heap, server int64 // bytes; of the server's processes together
	buffered     pubsub.Buffered
}

// TestStalled has a subscriber stand still under load: what it costs is bounded, here and in the server, and it misses nothing that is kept.
func TestStalled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), *stallFor+2*time.Minute)
	defer cancel()
	cluster := startSide(t, *subjectKind, 3, "--auto-compaction-mode=periodic", "--auto-compaction-retention=10s").cluster
	c := newOurClient(t, cluster)
	topic, err := pubsub.Open[string](ctx, c, "load", pubsub.MaxBytes(16<<20))
	require.NoError(t, err)
	stalled, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var first, last, got int64
	go func() {
		for m, err := range topic.Subscribe(ctx, pubsub.Latest()) {
			if err != nil {
				ended <- err
				return
			}
			if m.Value == "first" {
				close(stalled)
				<-goOn
				continue
			}
			n := int64(m.Offset.Revision)
			if first == 0 {
				first = n
			}
			last = n
			if got++; strings.HasPrefix(m.Value, "end") {
				break
			}
		}
		ended <- nil
	}()
	for topic.Buffered().Subscribers == 0 { // so that it stands still in the feed
		require.True(t, pause(ctx, time.Millisecond))
	}
	_, err = topic.Publish(ctx, "first")
	require.NoError(t, err)
	<-stalled
	samples, published := loadTopic(t, ctx, cluster, c, topic)
	_, err = topic.Publish(ctx, "end")
	require.NoError(t, err)
	close(goOn)
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-ctx.Done():
		t.Fatal("it does not catch up")
	}
	t.Logf("%d messages were published, the subscriber has read %d that were left, of revisions %d to %d", published, got, first, last)
	require.Greater(t, got, int64(1000))
	flat(t, samples)
}

// loadTopic publishes, with one more subscriber that is not slow, and looks at the memory now and then.
func loadTopic(t *testing.T, ctx context.Context, cluster *harness.Cluster, c *client.Client, topic *pubsub.Topic[string]) (out []stall, published int) {
	reading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range topic.Subscribe(reading, pubsub.Latest()) {
			continue
		}
	}()
	p := topic.Publisher()
	value := strings.Repeat("x", 256)
	look := time.NewTicker(max(*stallFor/60, 100*time.Millisecond))
	defer look.Stop()
	const batches = 50 // a second
	tick := time.NewTicker(time.Second / batches)
	defer tick.Stop()
	for end := time.After(*stallFor); ; {
		select {
		case <-tick.C:
			for range *stallRate / batches {
				_, err := p.Publish(ctx, value)
				require.NoError(t, err)
				published++
			}
			continue
		case <-look.C:
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			used, _, err := cluster.Usage()
			require.NoError(t, err)
			out = append(out, stall{int64(m.HeapAlloc), used.RSS, topic.Buffered()})
			continue
		case <-end:
		}
		break
	}
	require.NoError(t, p.Close(ctx))
	stop()
	<-done
	return out, published
}

// flat holds that the last third of the samples needs little more than the second third: the first one fills what is bounded.
func flat(t *testing.T, samples []stall) {
	require.Greater(t, len(samples), 20)
	median := func(of func(stall) int64, from, to int) int64 {
		var all []int64
		for _, s := range samples[from:to] {
			all = append(all, of(s))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	n := len(samples)
	for name, of := range map[string]func(stall) int64{
		"client's heap":   func(s stall) int64 { return s.heap },
		"servers' memory": func(s stall) int64 { return s.server },
	} {
		a, b, c := median(of, 0, n/3), median(of, n/3, 2*n/3), median(of, 2*n/3, n)
		t.Logf("%s: %d, %d, %d MB in the three thirds", name, a>>20, b>>20, c>>20)
		require.Less(t, c, b+b/4+32<<20, name)
	}
	end := samples[n-1].buffered
	t.Logf("%+v", end)
	require.LessOrEqual(t, end.BytesPeak, 8<<20+1<<20)
}
