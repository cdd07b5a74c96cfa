package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

// tally is what the handlers of a group have handled, of texts "<key> <number>".
type tally struct {
	mu       sync.Mutex
	byKey    map[string][]string
	byMember map[int]int
	n        int
	enough   chan struct{}
	want     int
}

func newTally(want int) *tally {
	return &tally{byKey: make(map[string][]string), byMember: make(map[int]int), enough: make(chan struct{}), want: want}
}

func (a *tally) add(member int, m *pubsub.Msg[string]) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.byKey[m.Key] = append(a.byKey[m.Key], m.Value)
	a.byMember[member]++
	if a.n++; a.n == a.want {
		close(a.enough)
	}
}

// keyed publishes n messages under keys that repeat.
func (h *harness) keyed(topic *pubsub.Topic[string], n, keys int) {
	h.t.Helper()
	p := topic.Publisher()
	for i := range n {
		_, err := p.Publish(h.ctx, fmt.Sprintf("%d", i), pubsub.Key(fmt.Sprintf("k%d", i%keys)))
		require.NoError(h.t, err)
	}
	require.NoError(h.t, p.Close(h.ctx))
}

// member is a Run of a group on a client of its own.
type member struct {
	c      *client.Client
	cancel context.CancelFunc
	done   <-chan error
}

func (h *harness) member(name string, cfg client.Config, f func(ctx context.Context, m *pubsub.Msg[string]) error, opts ...pubsub.RunOption) *member {
	h.t.Helper()
	c := h.client(cfg)
	group := h.topic(c, name).Group("g")
	ctx, cancel := context.WithCancel(h.ctx)
	m := &member{c: c, cancel: cancel}
	opts = append([]pubsub.RunOption{pubsub.Backoff(func(int) time.Duration { return 0 })}, opts...)
	m.done = background(func() error { return group.Run(ctx, f, opts...) })
	return m
}

// leave ends the member in peace.
func (h *harness) leave(m *member) {
	h.t.Helper()
	m.cancel()
	require.ErrorIs(h.t, h.wait(m.done), context.Canceled)
}

// members waits until the group of topic a has so many members that own all
// partitions.
func (h *harness) members(n, partitions int) {
	h.t.Helper()
	h.await("topic/a:group/g/", func(kvs []client.KV) bool {
		var members, owned int
		owners := make(map[string]bool)
		for _, kv := range kvs {
			switch {
			case len(kv.Key) > 22 && kv.Key[:23] == "topic/a:group/g/member/":
				members++
			case len(kv.Key) > 21 && kv.Key[:22] == "topic/a:group/g/owner/":
				owned++
				owners[string(kv.Value)] = true
			}
		}
		return members == n && owned == partitions && len(owners) == n
	})
}

// letters returns the dead letters of a group.
func (h *harness) letters(g *pubsub.Group[string]) (out []*pubsub.DeadLetter[string]) {
	h.t.Helper()
	for l, err := range g.Dead(h.ctx) {
		require.NoError(h.t, err)
		out = append(out, l)
	}
	return out
}

func (h *harness) waitFor(ch <-chan struct{}, what string) {
	h.t.Helper()
	select {
	case <-ch:
	case <-h.ctx.Done():
		res, err := h.c.Get(context.WithoutCancel(h.ctx), "topic/", client.Prefix())
		if err == nil {
			for _, kv := range res.KVs {
				if len(kv.Value) < 2000 && !strings.Contains(kv.Key, ":log/") {
					h.t.Logf("%s = %s", kv.Key, kv.Value)
				}
			}
		}
		h.t.Fatal(what)
	}
}

// testGroupShares: members share the messages, each is handled once, and those of a
// key in order, while members come and go in peace.
func testGroupShares(t *testing.T, h *harness) {
	const n, keys, partitions = 600, 24, 30
	topic := h.topic(h.c, "a", pubsub.WithPartitions(partitions))
	all := newTally(3 * n)
	running := make(map[string]bool)
	var mu sync.Mutex
	handle := func(i int) func(context.Context, *pubsub.Msg[string]) error {
		return func(_ context.Context, m *pubsub.Msg[string]) error {
			mu.Lock()
			twice := running[m.Key]
			running[m.Key] = true
			mu.Unlock()
			if twice {
				return pubsub.Dead(errors.New("two at a time of one key"))
			}
			all.add(i, m)
			mu.Lock()
			running[m.Key] = false
			mu.Unlock()
			return nil
		}
	}
	members := []*member{h.member("a", client.Config{}, handle(0)), h.member("a", client.Config{}, handle(1))}
	h.members(2, partitions)
	h.keyed(topic, n, keys)
	members = append(members, h.member("a", client.Config{}, handle(2)))
	h.members(3, partitions)
	h.keyed(topic, n, keys)
	h.leave(members[0])
	h.keyed(topic, n, keys)
	h.waitFor(all.enough, "not all was handled")
	for _, m := range members[1:] {
		h.leave(m)
	}
	require.Equal(t, 3*n, all.n)
	for key, got := range all.byKey {
		var want []string
		for range 3 {
			for i := range n {
				if fmt.Sprintf("k%d", i%keys) == key {
					want = append(want, fmt.Sprint(i))
				}
			}
		}
		require.Equal(t, want, got, key)
	}
	require.Positive(t, all.byMember[0])
	require.Positive(t, all.byMember[1])
	require.Positive(t, all.byMember[2])
	lag, err := topic.Group("g").Lag(h.ctx)
	require.NoError(t, err)
	require.Zero(t, lag.Messages)
	groups, err := topic.Groups(h.ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"g"}, groups)
}

// testGroupRetries: a failure is tried again before the next message of its key.
func testGroupRetries(t *testing.T, h *harness) {
	const n, keys = 30, 3
	h.keyed(h.topic(h.c, "a"), n, keys)
	all := newTally(n)
	attempts := make(map[string][]int)
	m := h.member("a", client.Config{}, func(_ context.Context, m *pubsub.Msg[string]) error {
		all.mu.Lock()
		attempts[m.Value] = append(attempts[m.Value], m.Attempt)
		all.mu.Unlock()
		switch m.Attempt {
		case 1:
			return errors.New("first attempt")
		case 2:
			panic("second attempt")
		}
		all.add(0, m)
		return nil
	})
	h.waitFor(all.enough, "not all was handled")
	h.leave(m)
	for i := range n {
		require.Equal(t, []int{1, 2, 3}, attempts[fmt.Sprint(i)])
	}
	for _, got := range all.byKey {
		require.True(t, slices.IsSortedFunc(got, func(a, b string) int { return len(a)*1000 - len(b)*1000 + compareTexts(a, b) }), got)
	}
}

func compareTexts(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

// testGroupDead: what fails for good, or is no value, goes to the dead letters, from
// where it can be sent to this group again.
func testGroupDead(t *testing.T, h *harness) {
	topic := h.topic(h.c, "a")
	number, err := pubsub.Open[int](h.ctx, h.c, "a")
	require.NoError(t, err)
	bad := h.publish(topic, "bad", pubsub.Key("k"), pubsub.WithHeader("h", "1"))
	h.publish(topic, "hopeless", pubsub.Key("k"))
	_, err = number.Publish(h.ctx, 7, pubsub.Key("k"))
	require.NoError(t, err)
	h.publish(topic, "good", pubsub.Key("k"))
	good := make(chan struct{})
	redriven := make(chan *pubsub.Msg[string], 1)
	fixed := false
	tries := 0
	m := h.member("a", client.Config{}, func(_ context.Context, m *pubsub.Msg[string]) error {
		switch {
		case m.Value == "bad" && fixed:
			redriven <- m
			return nil
		case m.Value == "bad":
			tries++
			return errors.New("it is bad")
		case m.Value == "hopeless":
			return fmt.Errorf("no way: %w", pubsub.Dead(errors.New("hopeless")))
		}
		close(good)
		return nil
	}, pubsub.MaxAttempts(3))
	h.waitFor(good, "the group is stuck")
	require.Equal(t, 3, tries)
	group := topic.Group("g")
	letters := h.letters(group)
	require.Len(t, letters, 3)
	require.Equal(t, "bad", letters[0].Msg.Value)
	require.Equal(t, bad, letters[0].Msg.Offset)
	require.Equal(t, "k", letters[0].Msg.Key)
	require.Equal(t, 3, letters[0].Msg.Attempt)
	require.Equal(t, "it is bad", letters[0].Error)
	require.Equal(t, "no way: hopeless", letters[1].Error)
	var decode *pubsub.DecodeError
	require.ErrorAs(t, letters[2].Err, &decode)
	fixed = true
	require.NoError(t, group.Redrive(h.ctx, letters[0]))
	require.NoError(t, group.Redrive(h.ctx, letters[0]), "twice is once")
	require.NoError(t, group.Purge(h.ctx, letters[1]))
	select {
	case got := <-redriven:
		require.Equal(t, "1", got.Header["h"])
	case <-h.ctx.Done():
		t.Fatal("it did not come again")
	}
	h.leave(m)
	letters = h.letters(group)
	require.Len(t, letters, 1)
	require.Error(t, letters[0].Err, "only the one that is no value is left")
	// Nobody else gets it.
	h.publish(topic, "end")
	var got []string
	for m, err := range topic.Subscribe(h.ctx, pubsub.Earliest()) {
		if err == nil {
			got = append(got, m.Value)
		}
		if m.Value == "end" {
			break
		}
	}
	require.Equal(t, []string{"bad", "hopeless", "good", "end"}, got)
}

// testGroupSeek moves a group that runs, and one that does not.
func testGroupSeek(t *testing.T, h *harness) {
	const n = 20
	topic := h.topic(h.c, "a", pubsub.WithPartitions(2))
	group := topic.Group("g")
	_, err := group.Lag(h.ctx)
	require.ErrorIs(t, err, pubsub.ErrNoTopic)
	h.keyed(topic, n, 4)
	require.NoError(t, group.Seek(h.ctx, pubsub.Earliest()))
	lag, err := group.Lag(h.ctx)
	require.NoError(t, err)
	require.EqualValues(t, n, lag.Messages)
	require.Len(t, lag.Partitions, 2)
	require.NoError(t, group.Seek(h.ctx, pubsub.Latest()))
	lag, err = group.Lag(h.ctx)
	require.NoError(t, err)
	require.Zero(t, lag.Messages)
	got := make(chan string, 10*n)
	m := h.member("a", client.Config{}, func(_ context.Context, m *pubsub.Msg[string]) error {
		got <- m.Value
		return nil
	})
	h.members(1, 2)
	h.publish(topic, "mark", pubsub.Key("k0"))
	require.Equal(t, "mark", <-got)
	require.NoError(t, group.Seek(h.ctx, pubsub.Earliest()))
	seen := make(map[string]bool)
	for len(seen) < n+1 {
		select {
		case v := <-got:
			seen[v] = true
		case <-h.ctx.Done():
			t.Fatalf("only %d came again", len(seen))
		}
	}
	h.leave(m)
	lag, err = group.Lag(h.ctx)
	require.NoError(t, err)
	require.Zero(t, lag.Messages)
	require.NoError(t, group.Delete(h.ctx))
	_, err = group.Lag(h.ctx)
	require.ErrorIs(t, err, pubsub.ErrNoTopic)
}

// testGroupDrain: when ctx ends, what has begun is finished and stored, and the rest
// is left to others.
func testGroupDrain(t *testing.T, h *harness) {
	const n = 12
	topic := h.topic(h.c, "a", pubsub.WithPartitions(1))
	h.keyed(topic, n, n)
	begun := make(chan string, n)
	finish := make(chan struct{})
	m := h.member("a", client.Config{}, func(ctx context.Context, m *pubsub.Msg[string]) error {
		begun <- m.Value
		<-finish
		return ctx.Err()
	}, pubsub.Concurrency(3))
	seen := make(map[string]bool)
	for range 3 {
		seen[<-begun] = true
	}
	m.cancel()
	close(finish)
	require.ErrorIs(t, h.wait(m.done), context.Canceled)
	lag, err := topic.Group("g").Lag(h.ctx)
	require.NoError(t, err)
	require.EqualValues(t, n-3-int64(len(begun)), lag.Messages)
	for len(begun) > 0 {
		seen[<-begun] = true
	}
	// One whose handler does not end is told to.
	causes := make(chan error, n)
	m = h.member("a", client.Config{}, func(ctx context.Context, m *pubsub.Msg[string]) error {
		if seen[m.Value] {
			return pubsub.Dead(errors.New("it was stored"))
		}
		begun <- m.Value
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return ctx.Err()
	}, pubsub.DrainTimeout(0), pubsub.Concurrency(2))
	<-begun
	m.cancel()
	require.ErrorIs(t, h.wait(m.done), context.Canceled)
	require.Error(t, <-causes)
	h.await("topic/a:group/g/owner/", func(kvs []client.KV) bool { return len(kvs) == 0 })
	require.Empty(t, h.letters(topic.Group("g")))
}
