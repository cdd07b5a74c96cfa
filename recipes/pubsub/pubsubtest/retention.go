package pubsubtest

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

// records returns the keys of the records of topic a.
func (h *harness) records() int {
	h.t.Helper()
	res, err := h.c.Get(h.ctx, "topic/a:log/", client.Prefix(), client.KeysOnly())
	require.NoError(h.t, err)
	n := 0
	for _, kv := range res.KVs {
		if kv.Key[len(kv.Key)-len("floor"):] != "floor" {
			n++
		}
	}
	return n
}

// testRetentionMessages: no less than the bound is kept, and not much more once
// passes have been made.
func testRetentionMessages(t *testing.T, h *harness) {
	const bound = 50
	topic := h.bounded(h.c, "a", pubsub.MaxMessages(bound), pubsub.WithPartitions(3))
	n := 0
	var deleted int64
	for range 12 {
		for range 20 {
			h.publish(topic, fmt.Sprint(n))
			n++
		}
		trimmed, err := topic.Trim(h.ctx)
		require.NoError(t, err)
		deleted += trimmed.Keys
		require.GreaterOrEqual(t, h.records(), min(bound, n))
	}
	require.Positive(t, deleted)
	require.LessOrEqual(t, h.records(), bound+5*20, "three segments more, and the floor lags by two")
	kept := h.records()
	require.Equal(t, numbers(n-kept, n), h.read(topic, pubsub.Earliest(), kept), "the oldest are gone")
	// A start that is trimmed begins with what there is.
	require.Equal(t, numbers(n-kept, n), h.read(topic, pubsub.After(pubsub.Offset{Revision: 1}), kept))
}

// testRetentionInterest: a message goes once all groups and durable names have
// handled it.
func testRetentionInterest(t *testing.T, h *harness) {
	topic := h.bounded(h.c, "a", pubsub.Interest(), pubsub.WithPartitions(2))
	group := topic.Group("g")
	require.NoError(t, group.Seek(h.ctx, pubsub.Earliest()))
	h.read(topic, pubsub.Durable("d", pubsub.Earliest()), 0)
	for range topic.Subscribe(canceled(h.ctx), pubsub.Durable("d", pubsub.Earliest())) {
		continue // it fails, and nothing is stored
	}
	trim := func() {
		for range 4 {
			_, err := topic.Trim(h.ctx)
			require.NoError(t, err)
			h.publish(topic, "more") // so that the floor has something to rise over
		}
	}
	h.publishAll(topic, 20, 0)
	require.Equal(t, numbers(0, 5), h.read(topic, pubsub.Durable("d", pubsub.Earliest()), 5))
	trim()
	require.Equal(t, numbers(0, 20), h.read(topic, pubsub.Earliest(), 20), "the group has not begun")
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	seen := 0
	done := background(func() error {
		return group.Run(ctx, func(context.Context, *pubsub.Msg[string]) error {
			if seen++; seen == 24 {
				cancel()
			}
			return nil
		}, pubsub.Concurrency(1))
	})
	require.ErrorIs(t, h.wait(done), context.Canceled)
	trim()
	require.Equal(t, numbers(5, 20), h.read(topic, pubsub.Durable("d"), 15), "the durable name had not")
	h.read(topic, pubsub.Durable("d"), 8)
	handled := make(chan string, 100)
	ctx, cancel = context.WithCancel(h.ctx)
	defer cancel()
	done = background(func() error {
		return group.Run(ctx, func(_ context.Context, m *pubsub.Msg[string]) error { handled <- m.Value; return nil })
	})
	for range 4 {
		<-handled
	}
	for range 4 {
		h.publish(topic, "end")
		require.Equal(t, []string{"end"}, h.read(topic, pubsub.Durable("d"), 1))
		<-handled
		_, err := topic.Trim(h.ctx)
		require.NoError(t, err)
	}
	cancel()
	require.ErrorIs(t, h.wait(done), context.Canceled)
	for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
		require.NoError(t, err)
		require.NotEqual(t, "0", m.Value, "what all have handled is gone")
		break
	}
}

func canceled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

// testTrimUnderReaders trims while others read: they see a suffix of the order,
// without repetition, and gaps only where it was trimmed.
func testTrimUnderReaders(t *testing.T, h *harness) {
	const n, bound = 1500, 100
	topic := h.bounded(h.c, "a", pubsub.MaxMessages(bound), pubsub.WithPartitions(2), pubsub.WithWindow(20, 1<<20))
	readers := make(chan error, 3)
	for r := range cap(readers) {
		c := h.client(client.Config{})
		go func() {
			sub, err := pubsub.Open[string](h.ctx, c, "a", pubsub.WithWindow(20, 1<<20))
			if err != nil {
				readers <- err
				return
			}
			last := -1
			for m, err := range sub.Subscribe(h.ctx, pubsub.Earliest()) {
				if err != nil {
					readers <- err
					return
				}
				var i int
				if _, err := fmt.Sscan(m.Value, &i); err != nil || i <= last {
					readers <- fmt.Errorf("reader %d: %q after %d", r, m.Value, last)
					return
				}
				if last = i; last == n-1 {
					break
				}
			}
			readers <- nil
		}()
	}
	var deleted int64
	p := topic.Publisher(pubsub.Linger(0))
	for i := range n {
		_, err := p.Publish(h.ctx, fmt.Sprint(i))
		require.NoError(t, err)
		if i%50 == 49 {
			require.NoError(t, p.Flush(h.ctx))
			trimmed, err := topic.Trim(h.ctx)
			require.NoError(t, err)
			deleted += trimmed.Keys
		}
		if i%200 == 199 {
			h.compact()
		}
	}
	require.NoError(t, p.Close(h.ctx))
	for range cap(readers) {
		require.NoError(t, h.wait(readers))
	}
	require.Positive(t, deleted)
	var kept []string
	for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
		require.NoError(t, err)
		if kept = append(kept, m.Value); m.Value == fmt.Sprint(n-1) {
			break
		}
	}
	require.GreaterOrEqual(t, len(kept), bound)
	require.Equal(t, numbers(n-len(kept), n), kept)
}
