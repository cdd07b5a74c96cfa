package pubsubtest

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

// testPublisherOrder: packed messages have the order of the calls, also over keys,
// and few keys of the store.
func testPublisherOrder(t *testing.T, h *harness) {
	const n = 2000
	topic := h.topic(h.c, "a")
	p := topic.Publisher()
	var pending []*pubsub.Pending
	for i := range n {
		var opts []pubsub.PublishOption
		if i%3 > 0 {
			opts = append(opts, pubsub.Key(fmt.Sprint(i%7)))
		}
		item, err := p.Publish(h.ctx, fmt.Sprint(i), opts...)
		require.NoError(t, err)
		pending = append(pending, item)
	}
	require.NoError(t, p.Flush(h.ctx))
	i := 0
	for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), m.Value)
		at, err := pending[i].Wait(h.ctx)
		require.NoError(t, err)
		require.Equal(t, at, m.Offset)
		if i++; i == n {
			break
		}
	}
	res, err := h.c.Get(h.ctx, "topic/a:log/", client.Prefix(), client.CountOnly())
	require.NoError(t, err)
	require.Less(t, res.Count, int64(n/4))
	require.NoError(t, p.Close(h.ctx))

	// With more commits in flight, each key has its order.
	p = topic.Publisher(pubsub.InFlight(8), pubsub.Linger(0), pubsub.Queued(50))
	from := pending[n-1]
	for i := range n {
		_, err := p.Publish(h.ctx, fmt.Sprint(i), pubsub.Key(fmt.Sprint(i%16)))
		require.NoError(t, err)
	}
	require.NoError(t, p.Close(h.ctx))
	at, err := from.Wait(h.ctx)
	require.NoError(t, err)
	last := make(map[string]int)
	seen := 0
	for m, err := range topic.Subscribe(h.ctx, pubsub.After(at)) {
		require.NoError(t, err)
		var i int
		_, err := fmt.Sscan(m.Value, &i)
		require.NoError(t, err)
		before, ok := last[m.Key]
		require.True(t, !ok || before+16 == i, "%d before %d", before, i)
		last[m.Key] = i
		if seen++; seen == n {
			break
		}
	}
}

func testPublisherAnswersLost(t *testing.T, h *harness) {
	const n = 3000
	var w clienttest.Wire
	topic := h.topic(h.client(w.Config()), "a")
	lost := lossy(&w, 2, 2)
	p := topic.Publisher(pubsub.Queued(100))
	for i := range n {
		_, err := p.Publish(h.ctx, fmt.Sprint(i), pubsub.Key(fmt.Sprint(i%5)))
		require.NoError(t, err)
	}
	require.NoError(t, p.Close(h.ctx))
	require.Greater(t, lost(), 8, "too little was lost to prove anything")
	h.publish(topic, fmt.Sprint(n))
	require.Equal(t, numbers(0, n+1), h.read(h.topic(h.c, "a"), pubsub.Earliest(), n+1))
}

func testPublisherClose(t *testing.T, h *harness) {
	var w clienttest.Wire
	topic := h.topic(h.client(w.Config()), "a")
	p := topic.Publisher()
	first, err := p.Publish(h.ctx, "0")
	require.NoError(t, err)
	require.NoError(t, p.Flush(h.ctx))
	_, err = first.Wait(h.ctx)
	require.NoError(t, err)

	// Nothing gets through: what is handed over fails when Close gives up.
	asked := make(chan struct{}, 1000)
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if c.Puts() {
			asked <- struct{}{}
			return clienttest.RequestLost
		}
		return clienttest.Arrives
	})
	stuck, err := p.Publish(h.ctx, "1")
	require.NoError(t, err)
	<-asked
	behind, err := p.Publish(h.ctx, "2")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	require.ErrorIs(t, p.Flush(ctx), context.Canceled)
	require.ErrorIs(t, p.Close(ctx), context.Canceled)
	_, err = stuck.Wait(h.ctx)
	require.ErrorIs(t, err, client.ErrUncertain)
	require.ErrorIs(t, err, pubsub.ErrClosed)
	_, err = behind.Wait(h.ctx)
	require.ErrorIs(t, err, pubsub.ErrClosed)
	require.NotErrorIs(t, err, client.ErrUncertain)
	_, err = p.Publish(h.ctx, "3")
	require.ErrorIs(t, err, pubsub.ErrClosed)
	w.Before(nil)
	h.publish(topic, "4")
	require.Equal(t, []string{"0", "4"}, h.read(topic, pubsub.Earliest(), 2))
}
