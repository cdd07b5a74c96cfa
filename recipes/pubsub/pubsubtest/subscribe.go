package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

func testStarts(t *testing.T, h *harness) {
	topic := h.topic(h.c, "a")
	var offsets []pubsub.Offset
	for i := range 6 {
		offsets = append(offsets, h.publish(topic, fmt.Sprint(i), pubsub.Key(fmt.Sprint(i)), pubsub.WithHeader("even", fmt.Sprint(i%2 == 0))))
	}
	h.publishAll(topic, 6, 2) // "0" to "5" again
	all := append(numbers(0, 6), numbers(0, 6)...)
	for _, compact := range []bool{false, true} {
		if compact {
			h.compact()
		}
		require.Equal(t, all, h.read(topic, pubsub.Earliest(), 12))
		require.Equal(t, all[3:], h.read(topic, pubsub.After(offsets[2]), 9))
		require.Equal(t, all, h.read(topic, pubsub.After(pubsub.Offset{}), 12))
		require.Equal(t, all, h.read(topic, pubsub.Since(time.Now().Add(-time.Hour)), 12))
	}
	// Each offset, also within a record.
	i := 0
	for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
		require.NoError(t, err)
		text, err := pubsub.ParseOffset(m.Offset.String())
		require.NoError(t, err)
		require.Equal(t, m.Offset, text)
		if i++; i == 12 {
			break
		}
		require.Equal(t, all[i:], h.read(topic, pubsub.After(m.Offset), 12-i))
	}
	// Nothing old from Latest, nor from what is in the future.
	future := pubsub.Offset{Revision: offsets[5].Revision + 1<<40}
	for _, from := range []pubsub.Start{pubsub.Latest(), pubsub.After(future), pubsub.Since(time.Now().Add(time.Hour))} {
		ctx, cancel := context.WithTimeout(h.ctx, 50*time.Millisecond)
		for m, err := range topic.Subscribe(ctx, from) {
			require.Nil(t, m)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		cancel()
	}
	var even []string
	filter := pubsub.WithFilter(func(key string, head pubsub.Header) bool { return head["even"] == "true" && key != "2" })
	for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest(), filter) {
		require.NoError(t, err)
		if even = append(even, m.Value); len(even) == 2 {
			break
		}
	}
	require.Equal(t, []string{"0", "4"}, even)
}

// testLive has many subscribers of one object, which share a watch, and come and go
// while messages come.
func testLive(t *testing.T, h *harness) {
	const subscribers, n = 20, 300
	topic := h.topic(h.c, "a")
	errs := make(chan error, subscribers)
	begun := make(chan struct{}, subscribers)
	h.publish(topic, "0")
	for s := range subscribers {
		go func() {
			want := 0
			for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
				if err == nil && m.Value != fmt.Sprint(want) {
					err = fmt.Errorf("subscriber %d got %s, not %d", s, m.Value, want)
				}
				if err != nil {
					errs <- err
					return
				}
				if want == 0 {
					begun <- struct{}{}
				}
				// Some leave early, and the feed goes on.
				if want++; want == n || s%4 == 0 && want == n/2 {
					break
				}
			}
			errs <- nil
		}()
	}
	for range subscribers {
		<-begun
	}
	p := topic.Publisher(pubsub.Linger(0))
	for i := 1; i < n; i++ {
		_, err := p.Publish(h.ctx, fmt.Sprint(i))
		require.NoError(t, err)
	}
	require.NoError(t, p.Close(h.ctx))
	for range subscribers {
		require.NoError(t, h.wait(errs))
	}
	require.Zero(t, topic.Buffered().Subscribers)
	require.Zero(t, topic.Buffered().Messages)
}

// testCompacted compacts history again and again under subscribers that are slow.
func testCompacted(t *testing.T, h *harness) {
	const n = 1500
	topic := h.topic(h.c, "a", pubsub.WithWindow(10, 1<<20))
	done := background(func() error {
		i := 0
		for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
			if err != nil {
				return err
			}
			if m.Value != fmt.Sprint(i) {
				return fmt.Errorf("got %s, not %d", m.Value, i)
			}
			if i++; i == n {
				return nil
			}
			if i%100 == 0 {
				res, err := h.c.Put(h.ctx, "other", nil)
				if err != nil {
					return err
				}
				if err := h.c.Compact(h.ctx, res.Revision); err != nil && !errors.Is(err, client.ErrCompacted) {
					return err
				}
			}
		}
		return nil
	})
	h.publishAll(topic, n/2, 0)
	h.compact()
	p := topic.Publisher()
	for i := n / 2; i < n; i++ {
		_, err := p.Publish(h.ctx, fmt.Sprint(i))
		require.NoError(t, err)
	}
	require.NoError(t, p.Close(h.ctx))
	require.NoError(t, h.wait(done))
}

func testUndecodable(t *testing.T, h *harness) {
	text := h.topic(h.c, "a")
	h.publish(text, "x")
	number, err := pubsub.Open[int](h.ctx, h.c, "a")
	require.NoError(t, err)
	bad, err := number.Publish(h.ctx, 7)
	require.NoError(t, err)
	h.publish(text, "y")
	var got []string
	for m, err := range text.Subscribe(h.ctx, pubsub.Earliest()) {
		if err != nil {
			var decode *pubsub.DecodeError
			require.ErrorAs(t, err, &decode)
			require.Equal(t, bad, decode.Offset)
			require.Equal(t, bad, m.Offset)
			continue
		}
		if got = append(got, m.Value); len(got) == 2 {
			break
		}
	}
	require.Equal(t, []string{"x", "y"}, got)
}

// slowly subscribes and stands still at a message until others were published, then
// reads to the end.
func slowly(t *testing.T, h *harness, topic *pubsub.Topic[string], n int, opts ...pubsub.SubOption) (got []string, missed uint64, failure error) {
	t.Helper()
	value := strings.Repeat("x", 1000)
	h.publish(topic, "first")
	for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest(), opts...) {
		if err != nil {
			return got, missed, err
		}
		switch m.Value {
		case "first":
			go func() {
				if h.joined(topic, 1) { // so that the next one comes through the feed
					_, _ = topic.Publish(h.ctx, "begin")
				}
			}()
		case "begin":
			p := topic.Publisher()
			for i := range n {
				_, err := p.Publish(h.ctx, fmt.Sprintf("%d %s", i, value))
				require.NoError(t, err)
			}
			require.NoError(t, p.Close(h.ctx))
			h.feedTo(topic, "end")
		}
		missed += m.Missed
		if m.Value == "end" {
			return got, missed, nil
		}
		name, _, _ := strings.Cut(m.Value, " ")
		got = append(got, name)
	}
	return got, missed, nil
}

// joined waits until so many subscribers read the feed of a topic.
func (h *harness) joined(topic *pubsub.Topic[string], n int) bool {
	for topic.Buffered().Subscribers < n {
		select {
		case <-time.After(time.Millisecond):
		case <-h.ctx.Done():
			return false
		}
	}
	return true
}

// feedTo publishes a last message, and waits until the topic's feed has come to it.
func (h *harness) feedTo(topic *pubsub.Topic[string], last string) {
	h.t.Helper()
	before := topic.Buffered().Subscribers
	done := background(func() error {
		for m, err := range topic.Subscribe(h.ctx, pubsub.Latest()) { // which reads nothing but the feed
			if err != nil || m.Value == last {
				return err
			}
		}
		return nil
	})
	require.True(h.t, h.joined(topic, before+1))
	h.publish(topic, last)
	require.NoError(h.t, h.wait(done))
}

// testSlow: a subscriber that stands still costs a bounded buffer, whatever the
// policy, and gets what its policy promises.
func testSlow(t *testing.T, h *harness) {
	const n = 3000 // 3 MB; the window has 100 kB
	check := func(topic *pubsub.Topic[string]) {
		b := topic.Buffered()
		require.Greater(t, b.BytesPeak, 50_000, "it was not used")
		require.LessOrEqual(t, b.BytesPeak, 100_000+256<<10+4000, "a window and a slab")
	}
	topic := h.topic(h.c, "drop", pubsub.WithWindow(1000, 100_000))
	got, missed, err := slowly(t, h, topic, n, pubsub.WithSlow(pubsub.DropOldest))
	require.NoError(t, err)
	require.Equal(t, uint64(n+2), uint64(len(got))+missed, "what is left out is counted")
	require.Greater(t, missed, uint64(n/2))
	// What is kept is the end of the feed: perhaps nothing but "end" itself.
	require.Equal(t, append([]string{"first", "begin"}, numbers(n+2-len(got), n)...), got)
	check(topic)

	topic = h.topic(h.c, "lag", pubsub.WithWindow(1000, 1<<30))
	got, missed, err = slowly(t, h, topic, 500, pubsub.WithSlow(pubsub.DropOldest), pubsub.WithLag(10))
	require.NoError(t, err)
	require.Equal(t, uint64(502), uint64(len(got))+missed)
	require.Less(t, len(got), 20+2)

	topic = h.topic(h.c, "error", pubsub.WithWindow(1000, 100_000))
	_, _, err = slowly(t, h, topic, n, pubsub.WithSlow(pubsub.SlowError))
	require.ErrorIs(t, err, pubsub.ErrSlow)
	check(topic)
}

func testSlowCatchesUp(t *testing.T, h *harness) {
	const n = 3000
	topic := h.topic(h.c, "a", pubsub.WithWindow(1000, 100_000))
	got, missed, err := slowly(t, h, topic, n)
	require.NoError(t, err)
	require.Zero(t, missed)
	require.Equal(t, append([]string{"first", "begin"}, numbers(0, n)...), got)
	require.LessOrEqual(t, topic.Buffered().BytesPeak, 100_000+256<<10+4000)
}

func testSubscribeEnds(t *testing.T, h *harness) {
	stop := errors.New("enough")
	topic := h.topic(h.c, "a")
	h.publish(topic, "0")
	ctx, cancel := context.WithCancelCause(h.ctx)
	defer cancel(nil)
	var failure error
	for m, err := range topic.Subscribe(ctx, pubsub.Earliest()) {
		if failure = err; m != nil {
			cancel(stop)
		}
	}
	require.ErrorIs(t, failure, context.Canceled)
	require.ErrorIs(t, failure, stop)
	closing := h.client(client.Config{})
	for m, err := range h.topic(closing, "a").Subscribe(h.ctx, pubsub.Earliest()) {
		if failure = err; m != nil {
			require.NoError(t, closing.Close())
		}
	}
	require.ErrorIs(t, failure, client.ErrClosed)
}

// testDurable reads a topic in pieces: each loop goes on behind the last.
func testDurable(t *testing.T, h *harness) {
	const n = 200
	topic := h.topic(h.c, "a")
	h.publishAll(topic, n, 3)
	var got []string
	for len(got) < n {
		c := h.client(client.Config{})
		piece := 0
		for m, err := range h.topic(c, "a").Subscribe(h.ctx, pubsub.Durable("d", pubsub.Earliest())) {
			require.NoError(t, err)
			if piece == 37 {
				break // not handled, so it comes again
			}
			got = append(got, m.Value)
			if piece++; len(got) == n {
				m.Done()
				break
			}
		}
		h.compact()
	}
	require.Equal(t, numbers(0, n), got)
	h.publish(topic, "new")
	require.Equal(t, []string{"new"}, h.read(topic, pubsub.Durable("d"), 1))
	require.NoError(t, topic.DeleteDurable(h.ctx, "d"))
	require.Equal(t, numbers(0, 3), h.read(topic, pubsub.Durable("d", pubsub.Earliest()), 3))
}

func testDurableTaken(t *testing.T, h *harness) {
	topic := h.topic(h.c, "a")
	h.publishAll(topic, 100, 0)
	first := true
	var failure error
	var got []string
	for m, err := range topic.Subscribe(h.ctx, pubsub.Durable("d", pubsub.Earliest())) {
		if failure = err; err != nil {
			break
		}
		if first {
			first = false
			got = h.read(h.topic(h.client(client.Config{}), "a"), pubsub.Durable("d"), 3)
		}
		_ = m
	}
	require.ErrorIs(t, failure, pubsub.ErrTaken)
	require.Equal(t, numbers(0, 3), got)
	require.Equal(t, numbers(3, 6), h.read(topic, pubsub.Durable("d"), 3), "who has lost it has moved nothing")
}

// testDurableTx: the effects of a message commit with the cursor.
func testDurableTx(t *testing.T, h *harness) {
	const n = 20
	topic := h.topic(h.c, "a")
	h.publishAll(topic, n, 0)
	handled := 0
	for handled < n {
		for m, err := range topic.Subscribe(h.ctx, pubsub.Durable("d", pubsub.Earliest())) {
			require.NoError(t, err)
			err := m.Tx(h.ctx, func(tx *client.Tx) error {
				if _, err := tx.Get("effect/" + m.Value); !errors.Is(err, client.ErrNotFound) {
					return fmt.Errorf("%s was handled before: %w", m.Value, err)
				}
				tx.Put("effect/"+m.Value, nil)
				return nil
			})
			require.NoError(t, err)
			if handled++; handled%3 == 0 || handled == n {
				break // as if the process had died behind its commit
			}
		}
	}
	h.await("effect/", func(kvs []client.KV) bool { return len(kvs) == n })
}
