package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

func testSettings(t *testing.T, h *harness) {
	_, err := pubsub.Open[string](h.ctx, h.c, "a")
	require.ErrorIs(t, err, pubsub.ErrUnbounded)
	opts := []pubsub.Option{pubsub.MaxAge(time.Hour), pubsub.MaxMessages(5), pubsub.WithPartitions(3), pubsub.BesideKubernetes()}
	made, err := pubsub.Open[string](h.ctx, h.c, "a", opts...)
	require.NoError(t, err)
	require.Equal(t, 3, made.Partitions())
	again, err := pubsub.Open[string](h.ctx, h.c, "a")
	require.NoError(t, err, "what exists needs no settings")
	require.Equal(t, 3, again.Partitions())
	_, err = pubsub.Open[string](h.ctx, h.c, "a", opts...)
	require.NoError(t, err)
	for _, other := range []pubsub.Option{pubsub.WithPartitions(4), pubsub.MaxAge(time.Minute), pubsub.Unlimited()} {
		_, err = pubsub.Open[string](h.ctx, h.c, "a", other)
		require.ErrorIs(t, err, pubsub.ErrConfig)
		var config *pubsub.ConfigError
		require.ErrorAs(t, err, &config)
		require.Equal(t, 3, config.Partitions)
		require.Equal(t, pubsub.Retention{Age: time.Hour, Messages: 5}, config.Retention)
	}
	require.NoError(t, again.SetRetention(h.ctx, pubsub.Retention{Bytes: 7}))
	_, err = pubsub.Open[string](h.ctx, h.c, "a", pubsub.MaxBytes(7))
	require.NoError(t, err)
	_, err = pubsub.Open[string](h.ctx, h.c, "a", pubsub.WithCodec(pubsub.Raw()))
	require.Error(t, err, "a codec of another type")
	_, err = pubsub.Open[string](h.ctx, h.c, "b", pubsub.Unlimited(), pubsub.WithPartitions(61))
	require.Error(t, err)

	// Many who open it at once have one topic.
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		wg.Go(func() {
			_, err := pubsub.Open[string](h.ctx, h.c, "race", pubsub.Unlimited(), pubsub.BesideKubernetes())
			errs <- err
		})
	}
	wg.Wait()
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
	res, err := h.c.Get(h.ctx, "topics/race")
	require.NoError(t, err)
	require.EqualValues(t, 1, res.KVs[0].Version)
}

func testNames(t *testing.T, h *harness) {
	for _, name := range []string{"", "/", "a/", "/a", "a//b", "a:b", "a*", "a\nb", strings.Repeat("x", 201)} {
		_, err := pubsub.Open[string](h.ctx, h.c, name, pubsub.Unlimited())
		require.ErrorIs(t, err, pubsub.ErrName, name)
		require.ErrorIs(t, pubsub.Delete(h.ctx, h.c, name), pubsub.ErrName, name)
	}
	// Nested names, and names that begin like others, are topics of their own.
	for _, name := range []string{"a", "a/log", "a/log/00", "a b", "a.b", "ü"} {
		h.publish(h.topic(h.c, name), name)
	}
	for _, name := range []string{"a", "a/log", "a/log/00", "a b", "a.b", "ü"} {
		require.Equal(t, []string{name}, h.read(h.topic(h.c, name), pubsub.Earliest(), 1))
	}
	list := func(pattern string) (out []string) {
		for info, err := range pubsub.List(h.ctx, h.c, pattern) {
			require.NoError(t, err)
			out = append(out, info.Name)
		}
		return out
	}
	require.Equal(t, []string{"a", "a b", "a.b", "a/log", "a/log/00", "ü"}, list("**"))
	require.Equal(t, []string{"a", "a b", "a.b", "ü"}, list("*"))
	require.Equal(t, []string{"a/log"}, list("a/*"))
	require.Equal(t, []string{"a/log", "a/log/00"}, list("a/**"))
	require.Equal(t, []string{"a/log/00"}, list("*/log/*"))
	require.Equal(t, []string{"a"}, list("a"))
	for _, pattern := range []string{"", "a/**/b", "a*b", "a//*"} {
		for _, err := range pubsub.List(h.ctx, h.c, pattern) {
			require.ErrorIs(t, err, pubsub.ErrName, pattern)
		}
	}
	topic := h.topic(h.c, "a")
	for _, err := range topic.Subscribe(h.ctx, pubsub.Durable("a/b")) {
		require.ErrorIs(t, err, pubsub.ErrName)
	}
	require.ErrorIs(t, topic.Group("").Seek(h.ctx, pubsub.Latest()), pubsub.ErrName)
}

// testKubernetes looks at keys outside of the case's namespace: the refusal is about
// the cluster.
func testKubernetes(t *testing.T, h *harness) {
	root, err := client.New(client.Config{Endpoints: h.endpoints})
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	const key = "/registry/pubsubtest"
	_, err = root.Put(h.ctx, key, nil)
	require.NoError(t, err)
	_, err = pubsub.Open[string](h.ctx, h.c, "a", pubsub.Unlimited())
	require.ErrorIs(t, err, pubsub.ErrKubernetes)
	_, err = pubsub.Open[string](h.ctx, h.c, "a", pubsub.Unlimited(), pubsub.BesideKubernetes())
	require.NoError(t, err)
	_, err = pubsub.Open[string](h.ctx, h.c, "a")
	require.NoError(t, err, "who has made it has been told")
	_, err = root.Delete(h.ctx, key)
	require.NoError(t, err)
}

func testDeleted(t *testing.T, h *harness) {
	topic := h.topic(h.c, "a")
	h.publish(topic, "0")
	h.publish(h.topic(h.c, "ab"), "other")
	seen := make(chan struct{})
	done := background(func() error {
		for _, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
			if err != nil {
				return err
			}
			close(seen)
		}
		return nil
	})
	<-seen
	require.NoError(t, pubsub.Delete(h.ctx, h.c, "a"))
	require.ErrorIs(t, h.wait(done), pubsub.ErrNoTopic)
	_, err := topic.Publish(h.ctx, "1")
	require.ErrorIs(t, err, pubsub.ErrNoTopic)
	require.ErrorIs(t, topic.Group("g").Run(h.ctx, nil), pubsub.ErrNoTopic)
	require.ErrorIs(t, topic.SetRetention(h.ctx, pubsub.Retention{}), pubsub.ErrNoTopic)
	_, err = topic.Trim(h.ctx)
	require.ErrorIs(t, err, pubsub.ErrNoTopic)
	require.NoError(t, pubsub.Delete(h.ctx, h.c, "a"))
	require.Equal(t, []string{"other"}, h.read(h.topic(h.c, "ab"), pubsub.Earliest(), 1))
}

// testOrder has several processes publish while others read in different ways: all
// see one order, in which each publisher's messages are in order.
func testOrder(t *testing.T, h *harness) {
	const publishers, each = 4, 100
	topic := h.topic(h.c, "a", pubsub.WithPartitions(3))
	live := make(chan []pubsub.Offset, 3)
	for range cap(live) {
		c := h.client(client.Config{})
		sub := h.topic(c, "a")
		go func() {
			var got []pubsub.Offset
			for m, err := range sub.Subscribe(h.ctx, pubsub.Earliest()) {
				if err != nil {
					break
				}
				if got = append(got, m.Offset); len(got) == publishers*each {
					break
				}
			}
			live <- got
		}()
	}
	errs := make(chan error, publishers)
	for n := range publishers {
		c := h.client(client.Config{})
		pub := h.topic(c, "a")
		go func() {
			for i := range each {
				if _, err := pub.Publish(h.ctx, fmt.Sprintf("%d %d", n, i)); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range publishers {
		require.NoError(t, h.wait(errs))
	}
	var want []pubsub.Offset
	next := make(map[int]int)
	for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
		require.NoError(t, err)
		if len(want) > 0 {
			require.Negative(t, want[len(want)-1].Compare(m.Offset))
		}
		var n, i int
		_, err := fmt.Sscanf(m.Value, "%d %d", &n, &i)
		require.NoError(t, err)
		require.Equal(t, next[n], i)
		next[n]++
		if want = append(want, m.Offset); len(want) == publishers*each {
			break
		}
	}
	for range cap(live) {
		require.Equal(t, want, <-live)
	}
}

func testMessages(t *testing.T, h *harness) {
	type order struct{ ID, Customer string }
	before := time.Now().Add(-time.Minute)
	topic, err := pubsub.Open[order](h.ctx, h.c, "a", pubsub.Unlimited(), pubsub.BesideKubernetes(),
		pubsub.WithKey(func(o order) string { return o.Customer }))
	require.NoError(t, err)
	first, err := topic.Publish(h.ctx, order{"1", "x"}, pubsub.WithHeader("a", "1"), pubsub.WithHeader("b", ""))
	require.NoError(t, err)
	second, err := topic.Publish(h.ctx, order{"2", "x"}, pubsub.Key("other"))
	require.NoError(t, err)
	var got []*pubsub.Msg[order]
	for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
		require.NoError(t, err)
		if got = append(got, m); len(got) == 2 {
			break
		}
	}
	require.Equal(t, order{"1", "x"}, got[0].Value)
	require.Equal(t, "x", got[0].Key)
	require.Equal(t, pubsub.Header{"a": "1", "b": ""}, got[0].Header)
	require.Equal(t, first, got[0].Offset)
	require.Equal(t, "a", got[0].Topic)
	require.True(t, got[0].Time.After(before))
	require.Equal(t, "other", got[1].Key)
	require.Empty(t, got[1].Header)
	require.Equal(t, second, got[1].Offset)
	require.ErrorIs(t, got[0].Tx(h.ctx, func(*client.Tx) error { return nil }), pubsub.ErrNoCursor)
	_, err = topic.Publish(h.ctx, order{ID: strings.Repeat("x", pubsub.MessageBytesMax)})
	require.ErrorIs(t, err, pubsub.ErrTooLarge)
	large := strings.Repeat("x", pubsub.MessageBytesMax-1000)
	_, err = topic.Publish(h.ctx, order{ID: large})
	require.NoError(t, err)
	for m, err := range topic.Subscribe(h.ctx, pubsub.After(second)) {
		require.NoError(t, err)
		require.Equal(t, large, m.Value.ID)
		break
	}
}

// testPublishTx: messages and the application's own state commit together or not at
// all, in one revision over topics.
func testPublishTx(t *testing.T, h *harness) {
	a, b := h.topic(h.c, "a"), h.topic(h.c, "b")
	stop := errors.New("stop")
	err := h.c.Update(h.ctx, func(tx *client.Tx) error {
		require.NoError(t, a.PublishTx(tx, "never"))
		return stop
	})
	require.Equal(t, stop, err)
	runs := 0
	var at client.Revision
	err = h.c.Update(h.ctx, func(tx *client.Tx) error {
		if _, err := tx.Get("stock"); !errors.Is(err, client.ErrNotFound) && runs == 0 {
			return err
		}
		if runs++; runs == 1 {
			_, err := h.c.Put(h.ctx, "stock", []byte("conflict"))
			require.NoError(t, err)
		}
		tx.Put("stock", []byte("9"))
		for _, v := range []string{"0", "1"} {
			require.NoError(t, a.PublishTx(tx, v, pubsub.Key(v)))
			require.NoError(t, b.PublishTx(tx, v))
		}
		tx.AfterCommit(func(rev client.Revision) { at = rev })
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 2, runs)
	for _, topic := range []*pubsub.Topic[string]{a, b} {
		var got []string
		for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
			require.NoError(t, err)
			require.Equal(t, at, m.Offset.Revision)
			if got = append(got, m.Value); len(got) == 2 {
				break
			}
		}
		require.Equal(t, []string{"0", "1"}, got)
	}
	err = h.c.Update(h.ctx, func(tx *client.Tx) error {
		_ = a.PublishTx(tx, strings.Repeat("x", pubsub.MessageBytesMax))
		return nil
	})
	require.ErrorIs(t, err, pubsub.ErrTooLarge, "also when it is overlooked")
}

// testStaleClient: a client that has seen nothing for long is refused by the floor,
// and publishes all the same, one request later.
func testStaleClient(t *testing.T, h *harness) {
	var w clienttest.Wire
	c := h.client(w.Config())
	topic, other := h.topic(c, "a"), h.topic(h.c, "a")
	n := 0
	age := func() { // each pass raises the floor to where the one before began
		for range 3 {
			h.publish(other, fmt.Sprint(n))
			n++
			_, err := other.Trim(h.ctx)
			require.NoError(t, err)
		}
	}
	age()
	calls := w.Calls()
	h.publish(topic, fmt.Sprint(n))
	n++
	require.Equal(t, 2, w.Calls()-calls, "the answer to the first try tells what is new")
	age()
	runs := 0
	err := c.Update(h.ctx, func(tx *client.Tx) error {
		runs++
		return topic.PublishTx(tx, fmt.Sprint(n))
	})
	require.NoError(t, err)
	require.Equal(t, 2, runs)
	n++
	require.Equal(t, numbers(0, n), h.read(other, pubsub.Earliest(), n))
}

func testDedup(t *testing.T, h *harness) {
	topic := h.topic(h.c, "a")
	first := h.publish(topic, "0", pubsub.DedupID("x"))
	for _, other := range []*pubsub.Topic[string]{topic, h.topic(h.client(client.Config{}), "a")} {
		_, err := other.Publish(h.ctx, "0", pubsub.DedupID("x"))
		require.ErrorIs(t, err, pubsub.ErrDuplicate)
		var dup *pubsub.DuplicateError
		require.ErrorAs(t, err, &dup)
		require.Equal(t, &pubsub.DuplicateError{ID: "x", Offset: first}, dup)
	}
	err := h.c.Update(h.ctx, func(tx *client.Tx) error {
		if err := topic.PublishTx(tx, "1", pubsub.DedupID("y")); err != nil {
			return err
		}
		err := topic.PublishTx(tx, "0", pubsub.DedupID("x"))
		require.ErrorIs(t, err, pubsub.ErrDuplicate)
		return nil // it is the caller's choice
	})
	require.NoError(t, err)
	p := topic.Publisher()
	dup, err := p.Publish(h.ctx, "1", pubsub.DedupID("y"))
	require.NoError(t, err)
	fresh, err := p.Publish(h.ctx, "2", pubsub.DedupID("z"))
	require.NoError(t, err)
	_, err = dup.Wait(h.ctx)
	require.ErrorIs(t, err, pubsub.ErrDuplicate)
	at, err := fresh.Wait(h.ctx)
	require.NoError(t, err)
	require.NoError(t, p.Close(h.ctx))
	h.publish(topic, "3")
	require.Equal(t, numbers(0, 4), h.read(topic, pubsub.Earliest(), 4))
	require.Equal(t, []string{"3"}, h.read(topic, pubsub.After(at), 1))
	// The ids end with a lease.
	res, err := h.c.Get(h.ctx, "topic/a:dedup/", client.Prefix())
	require.NoError(t, err)
	require.Len(t, res.KVs, 3)
	for _, kv := range res.KVs {
		require.NotZero(t, kv.Lease)
	}
}

// lossy makes a wire lose requests and answers, and deliver some once more, later.
// It returns how many it has lost so far.
func lossy(w *clienttest.Wire, seed int64, every int) func() int {
	r := rand.New(rand.NewSource(seed))
	lost := 0
	var late []*clienttest.Call
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if !c.Puts() {
			return clienttest.Arrives
		}
		if len(late) > 0 && r.Intn(4) == 0 {
			_, _ = late[0].Deliver()
			late = late[1:]
		}
		if r.Intn(every) != 0 {
			return clienttest.Arrives
		}
		lost++
		late = append(late, c)
		return clienttest.Fate(1 + r.Intn(2))
	})
	return func() (n int) {
		w.Before(func(context.Context, *clienttest.Call) clienttest.Fate { n = lost; return clienttest.Arrives })
		return lost
	}
}

// testPublishAnswersLost: whatever is lost or comes twice, each message is there
// once.
func testPublishAnswersLost(t *testing.T, h *harness) {
	const n = 150
	var w clienttest.Wire
	topic := h.topic(h.client(w.Config()), "a", pubsub.WithPartitions(2))
	lost := lossy(&w, 1, 3)
	var offsets []pubsub.Offset
	for i := range n {
		var opts []pubsub.PublishOption
		if i%2 == 0 {
			opts = append(opts, pubsub.DedupID(fmt.Sprint(i)))
		}
		offsets = append(offsets, h.publish(topic, fmt.Sprint(i), opts...))
	}
	require.Greater(t, lost(), n/5, "too little was lost to prove anything")
	h.publish(topic, "end")
	var got []pubsub.Offset
	for m, err := range h.topic(h.c, "a").Subscribe(h.ctx, pubsub.Earliest()) {
		require.NoError(t, err)
		if m.Value == "end" {
			break
		}
		require.Equal(t, fmt.Sprint(len(got)), m.Value)
		got = append(got, m.Offset)
	}
	require.Equal(t, offsets, got)
}

// testPublishCancelled: a Publish that gives up says whether it knows.
func testPublishCancelled(t *testing.T, h *harness) {
	ctx, cancel := context.WithCancel(h.ctx)
	dropping := false
	w := clienttest.Wire{After: func(*clienttest.Call, error) {
		if dropping {
			cancel()
		}
	}}
	topic := h.topic(h.client(w.Config()), "a")
	dropping = true
	w.Before(func(context.Context, *clienttest.Call) clienttest.Fate { return clienttest.AnswerDropped })
	_, err := topic.Publish(ctx, "0")
	require.ErrorIs(t, err, client.ErrUncertain)
	dropping = false
	w.Before(nil)
	ctx, cancel = context.WithCancel(h.ctx)
	cancel()
	_, err = topic.Publish(ctx, "never")
	require.ErrorIs(t, err, context.Canceled)
	h.publish(topic, "end")
	for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
		require.NoError(t, err)
		require.NotEqual(t, "never", m.Value)
		if m.Value == "end" {
			break
		}
	}
}
