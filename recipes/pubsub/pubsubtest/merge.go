package pubsubtest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

// testMerge: several topics have one order, that of their commits, from keys and
// from a watch.
func testMerge(t *testing.T, h *harness) {
	const n = 60
	topics := []*pubsub.Topic[string]{
		h.topic(h.c, "m/a"), h.topic(h.c, "m/b", pubsub.WithPartitions(2)), h.topic(h.c, "m/c", pubsub.WithPartitions(1)),
	}
	h.topic(h.c, "m/d")
	var want []string
	next := func(i int) {
		topic := topics[(i*7)%3]
		h.publish(topic, fmt.Sprint(i))
		h.publish(h.topic(h.c, "m/d"), "other")
		want = append(want, topic.Name()+" "+fmt.Sprint(i))
	}
	for i := range n {
		next(i)
		if i == n/2 {
			h.compact()
		}
	}
	// One transaction, topic by topic.
	require.NoError(t, h.c.Update(h.ctx, func(tx *client.Tx) error {
		for i := range topics {
			for _, v := range []string{"x", "y"} {
				if err := topics[2-i].PublishTx(tx, v); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	want = append(want, "m/a x", "m/a y", "m/b x", "m/b y", "m/c x", "m/c y")
	var got []string
	for m, err := range pubsub.Merge(h.ctx, pubsub.Earliest(), topics...) {
		require.NoError(t, err)
		got = append(got, m.Topic+" "+m.Value)
		if len(got) == n+6 {
			next(n)
		}
		if len(got) == n+7 {
			break
		}
	}
	require.Equal(t, want, got)
	for _, err := range pubsub.Merge(h.ctx, pubsub.Durable("d"), topics...) {
		require.Error(t, err)
	}
	for _, err := range pubsub.Merge[string](h.ctx, pubsub.Latest()) {
		require.Error(t, err)
	}
}

// testMatch: topics that are made while the loop runs take part from their first
// message on.
func testMatch(t *testing.T, h *harness) {
	h.publish(h.topic(h.c, "chat/a"), "0")
	h.publish(h.topic(h.c, "chat/a/b"), "too deep")
	h.publish(h.topic(h.c, "chatter"), "other")
	made := 1
	var got []string
	for m, err := range pubsub.Match[string](h.ctx, h.c, "chat/*", pubsub.Earliest()) {
		require.NoError(t, err)
		got = append(got, m.Topic+" "+m.Value)
		if made == 5 {
			break
		}
		name := fmt.Sprintf("chat/new%d", made)
		h.publish(h.topic(h.c, "elsewhere"), "other")
		h.publish(h.topic(h.c, name), fmt.Sprint(made))
		made++
	}
	require.Equal(t, []string{"chat/a 0", "chat/new1 1", "chat/new2 2", "chat/new3 3", "chat/new4 4"}, got)
	got = nil
	for m, err := range pubsub.Match[string](h.ctx, h.c, "**", pubsub.Earliest()) {
		require.NoError(t, err)
		if got = append(got, m.Value); len(got) == 11 {
			break
		}
	}
	require.Equal(t, []string{"0", "too deep", "other", "other", "1", "other", "2", "other", "3", "other", "4"}, got)
}
