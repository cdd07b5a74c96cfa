package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

// testGroupBatches: a loop gets the messages of each partition in order, many at
// once, and what it leaves when it breaks comes again.
func testGroupBatches(t *testing.T, h *harness) {
	const n, most = 300, 40
	topic := h.topic(h.c, "a", pubsub.WithPartitions(2))
	h.keyed(topic, n, 6)
	next := map[int]pubsub.Offset{}
	seen := map[string]int{}
	largest := 0
	take := func(b *pubsub.Batch[string]) {
		require.NotEmpty(t, b.Messages)
		require.LessOrEqual(t, len(b.Messages), most)
		largest = max(largest, len(b.Messages))
		for _, m := range b.Messages {
			require.Equal(t, b.Partition, m.Partition)
			require.Negative(t, next[m.Partition].Compare(m.Offset))
			next[m.Partition] = m.Offset
			seen[m.Value]++
		}
	}
	loops, handled := 0, 0
	for handled < n {
		loops++
		group := h.topic(h.client(client.Config{}), "a").Group("g")
		batches := 0
		for b, err := range group.Batches(h.ctx, most, 5*time.Millisecond) {
			require.NoError(t, err)
			if batches++; batches == 3 && loops == 1 {
				break // it is left, and comes again
			}
			take(b)
			if handled += len(b.Messages); handled == n || batches == 4 {
				b.Done()
				break
			}
		}
	}
	require.Len(t, seen, n)
	for v, times := range seen {
		require.Equal(t, 1, times, v)
	}
	require.Greater(t, largest, 1)
	lag, err := topic.Group("g").Lag(h.ctx)
	require.NoError(t, err)
	require.Zero(t, lag.Messages)
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	for _, err := range topic.Group("g").Batches(ctx, most, 0) {
		require.ErrorIs(t, err, context.Canceled)
	}
}

// testGroupBatchTx: the effects of a batch commit with the cursor, over members that
// die behind their commits, and lose answers.
func testGroupBatchTx(t *testing.T, h *harness) {
	const n = 200
	topic := h.topic(h.c, "a", pubsub.WithPartitions(2))
	h.keyed(topic, n, 5)
	for round := 0; ; round++ {
		c := h.client(client.Config{})
		batches := 0
		for b, err := range h.topic(c, "a").Group("g").Batches(h.ctx, 16, time.Millisecond) {
			if err != nil {
				require.ErrorIs(t, err, client.ErrClosed)
				break
			}
			require.NoError(t, b.Tx(b.Context(), func(tx *client.Tx) error {
				for _, m := range b.Messages {
					if _, err := tx.Get("effect/" + m.Value); !errors.Is(err, client.ErrNotFound) {
						return fmt.Errorf("%s twice: %w", m.Value, err)
					}
					tx.Put("effect/"+m.Value, []byte(m.Key))
				}
				return nil
			}))
			res, err := h.c.Get(h.ctx, "effect/", client.Prefix(), client.CountOnly())
			require.NoError(t, err)
			if res.Count == n {
				return
			}
			if batches++; batches == 3 && round < 3 {
				require.NoError(t, c.Close()) // its process dies
			}
		}
	}
}

// testGroupBatchFails: a batch that fails comes again message by message, and only
// the guilty one goes to the dead letters.
func testGroupBatchFails(t *testing.T, h *harness) {
	const n = 30
	topic := h.topic(h.c, "a", pubsub.WithPartitions(1))
	number, err := pubsub.Open[int](h.ctx, h.c, "a")
	require.NoError(t, err)
	for i := range n {
		if i == 11 {
			_, err := number.Publish(h.ctx, 7)
			require.NoError(t, err)
		}
		h.publish(topic, fmt.Sprint(i), pubsub.Key("k"))
	}
	h.publish(topic, "end", pubsub.Key("k"))
	var got []string
	attempts := 0
	for b, err := range topic.Group("g").Batches(h.ctx, 8, time.Second, pubsub.MaxAttempts(3), pubsub.Backoff(func(int) time.Duration { return 0 })) {
		require.NoError(t, err)
		if slices.ContainsFunc(b.Messages, func(m *pubsub.Msg[string]) bool { return m.Value == "20" }) {
			if len(b.Messages) == 1 {
				attempts++
				require.Equal(t, attempts, b.Messages[0].Attempt)
			}
			b.Fail(errors.New("twenty"))
			continue
		}
		for _, m := range b.Messages {
			got = append(got, m.Value)
		}
		if got[len(got)-1] == "end" {
			b.Done()
			break
		}
	}
	want := append(numbers(0, 20), append(numbers(21, n), "end")...)
	require.Equal(t, want, got)
	require.Equal(t, 3, attempts)
	letters := h.letters(topic.Group("g"))
	require.Len(t, letters, 2)
	require.Error(t, letters[0].Err)
	require.Equal(t, "20", letters[1].Msg.Value)
	require.Equal(t, "twenty", letters[1].Error)
}
