package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
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
		return members == n && owned == partitions && len(owners) <= n
	})
}

func (h *harness) waitFor(ch <-chan struct{}, what string) {
	h.t.Helper()
	select {
	case <-ch:
	case <-h.ctx.Done():
		h.t.Fatal(what)
	}
}

// testGroupShares: members share the messages, each is handled once, and those of a
// key in order, while members come and go in peace.
func testGroupShares(t *testing.T, h *harness) {
	const n, keys = 600, 24
	topic := h.topic(h.c, "a")
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
	h.members(2, 8)
	h.keyed(topic, n, keys)
	members = append(members, h.member("a", client.Config{}, handle(2)))
	h.members(3, 8)
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
	var letters []*pubsub.DeadLetter[string]
	for l, err := range group.Dead(h.ctx) {
		require.NoError(t, err)
		letters = append(letters, l)
	}
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
	for l, err := range group.Dead(h.ctx) {
		require.NoError(t, err)
		require.Error(t, l.Err, "only the one that is no value is left")
	}
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

// testGroupCrashes ends the clients of members under their handlers, again and
// again: all is handled, in order of keys, and little twice.
func testGroupCrashes(t *testing.T, h *harness) {
	const n, keys, crashes = 400, 10, 4
	h.keyed(h.topic(h.c, "a"), n, keys)
	var mu sync.Mutex
	got := make(map[string][]string)
	handled, total := make(map[string]bool), 0
	all := make(chan struct{})
	enough := func(m *pubsub.Msg[string]) {
		mu.Lock()
		defer mu.Unlock()
		total++
		got[m.Key] = append(got[m.Key], m.Value)
		if handled[m.Value] = true; len(handled) == n && total > 0 {
			select {
			case <-all:
			default:
				close(all)
			}
		}
	}
	for i := range crashes {
		stuck := make(chan struct{}, 1)
		count := 0
		m := h.member("a", client.Config{}, func(ctx context.Context, m *pubsub.Msg[string]) error {
			mu.Lock()
			count++
			last := count >= 40+i
			mu.Unlock()
			if last {
				select {
				case stuck <- struct{}{}:
				default:
				}
				<-ctx.Done() // its process dies
				return ctx.Err()
			}
			enough(m)
			return nil
		}, pubsub.Concurrency(4))
		h.waitFor(stuck, "the member got too little")
		require.NoError(t, m.c.Close())
		require.Error(t, h.wait(m.done))
	}
	m := h.member("a", client.Config{}, func(_ context.Context, m *pubsub.Msg[string]) error { enough(m); return nil })
	h.waitFor(all, "something is missing")
	h.leave(m)
	require.GreaterOrEqual(t, total, n)
	require.Less(t, total, n+crashes*8*64, "more was handled twice than is not stored")
	t.Logf("%d handled, %d of them twice", total, total-n)
	for key, values := range got {
		// Each crash may go back, but never skips.
		last := -keys
		for _, v := range values {
			var i int
			_, err := fmt.Sscan(v, &i)
			require.NoError(t, err)
			require.True(t, i <= last || i == last+keys || last < 0, "%s: %d behind %d", key, i, last)
			last = max(last, i)
		}
	}
}

// testGroupPoison: a message that kills its process is found out and buried, and the
// others are handled.
func testGroupPoison(t *testing.T, h *harness) {
	topic := h.topic(h.c, "a", pubsub.WithPartitions(1))
	for i := range 10 {
		h.publish(topic, fmt.Sprint(i), pubsub.Key(fmt.Sprint(i)))
		if i == 5 {
			h.publish(topic, "poison", pubsub.Key("p"))
		}
	}
	var mu sync.Mutex
	handled := make(map[string]bool)
	crashes := 0
	all := make(chan struct{})
	for {
		died := make(chan struct{}, 1)
		m := h.member("a", client.Config{}, func(ctx context.Context, m *pubsub.Msg[string]) error {
			if m.Value == "poison" {
				died <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			if handled[m.Value] = true; len(handled) == 11 {
				close(all)
			}
			return nil
		})
		if crashes > 0 {
			h.publish(topic, "last") // the one that shows that the poison is behind
		}
		select {
		case <-died:
			require.NoError(t, m.c.Close())
			require.Error(t, h.wait(m.done))
			crashes++
			continue
		case <-all:
		case <-h.ctx.Done():
			t.Fatal("the group is stuck")
		}
		empty := true
		for l, err := range topic.Group("g").Dead(h.ctx) {
			require.NoError(t, err)
			require.Equal(t, "poison", l.Msg.Value)
			require.Equal(t, pubsub.ErrCrashed.Error(), l.Error)
			empty = false
		}
		if empty { // "last" overtook it, as their keys differ
			all = make(chan struct{})
			delete(handled, "last")
			select {
			case <-died:
				require.NoError(t, m.c.Close())
				require.Error(t, h.wait(m.done))
				crashes++
				continue
			case <-h.ctx.Done():
				t.Fatal("the poison is neither tried nor buried")
			}
		}
		h.leave(m)
		break
	}
	t.Logf("%d crashes", crashes)
	require.Greater(t, crashes, 1)
	require.LessOrEqual(t, crashes, 5)
}

// testGroupExactlyOnce: members that lose requests and answers, and die, consume,
// process and publish: each effect is there once.
func testGroupExactlyOnce(t *testing.T, h *harness) {
	const n, keys, crashes = 120, 8, 3
	h.keyed(h.topic(h.c, "a"), n, keys)
	out := h.topic(h.c, "out")
	lostTotal := 0
	run := func(seed int, stopAfter int) {
		var w clienttest.Wire
		c := h.client(w.Config())
		in, out := h.topic(c, "a"), h.topic(c, "out")
		lost := lossy(&w, int64(seed), 5)
		ctx, cancel := context.WithCancel(h.ctx)
		defer cancel()
		var mu sync.Mutex
		count := 0
		enough := make(chan struct{})
		done := background(func() error {
			return in.Group("g").Run(ctx, func(ctx context.Context, m *pubsub.Msg[string]) error {
				err := m.Tx(ctx, func(tx *client.Tx) error {
					if _, err := tx.Get("effect/" + m.Value); !errors.Is(err, client.ErrNotFound) {
						return fmt.Errorf("%s twice: %w", m.Value, errEnough)
					}
					tx.Put("effect/"+m.Value, nil)
					return out.PublishTx(tx, m.Value, pubsub.Key(m.Key))
				})
				if errors.Is(err, errEnough) {
					return pubsub.Dead(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if count++; count == stopAfter {
					close(enough)
				}
				return err
			}, pubsub.Backoff(func(int) time.Duration { return time.Millisecond }))
		})
		if stopAfter > 0 {
			h.waitFor(enough, "the member got too little")
			require.NoError(t, c.Close())
			require.Error(t, h.wait(done))
		} else {
			h.await("effect/", func(kvs []client.KV) bool { return len(kvs) == n })
			cancel()
			require.ErrorIs(t, h.wait(done), context.Canceled)
		}
		lostTotal += lost()
	}
	for i := range crashes {
		run(i, 15)
	}
	run(crashes, 0)
	require.Greater(t, lostTotal, n/10, "too little was lost to prove anything")
	for l, err := range out.Group("g").Dead(h.ctx) {
		require.NoError(t, err)
		t.Errorf("%s: %s", l.Msg.Value, l.Error)
	}
	for l, err := range h.topic(h.c, "a").Group("g").Dead(h.ctx) {
		require.NoError(t, err)
		t.Errorf("%s: %s", l.Msg.Value, l.Error)
	}
	h.publish(out, "end")
	got := make(map[string]int)
	byKey := make(map[string]int)
	for m, err := range out.Subscribe(h.ctx, pubsub.Earliest()) {
		require.NoError(t, err)
		if m.Value == "end" {
			break
		}
		got[m.Value]++
		var i int
		_, err := fmt.Sscan(m.Value, &i)
		require.NoError(t, err)
		before, ok := byKey[m.Key]
		require.True(t, !ok || before+keys == i, "key %s: %d behind %d", m.Key, i, before)
		byKey[m.Key] = i
	}
	require.Len(t, got, n)
	for v, times := range got {
		require.Equal(t, 1, times, v)
	}
	t.Logf("%d requests and answers lost", lostTotal)
}

// testGroupZombie: a member whose lease has ended while it does not know goes on,
// and commits nothing.
func testGroupZombie(t *testing.T, h *harness) {
	topic := h.topic(h.c, "a", pubsub.WithPartitions(1))
	h.publish(topic, "0")
	begun := make(chan struct{})
	wake := make(chan struct{})
	result := make(chan error, 2)
	effect := func(ctx context.Context, m *pubsub.Msg[string], by string) error {
		return m.Tx(ctx, func(tx *client.Tx) error {
			if _, err := tx.Get("effect"); !errors.Is(err, client.ErrNotFound) {
				return errEnough
			}
			tx.Put("effect", []byte(by))
			return nil
		})
	}
	first := true
	zombie := h.member("a", client.Config{}, func(_ context.Context, m *pubsub.Msg[string]) error {
		if !first {
			return nil
		}
		first = false
		close(begun)
		<-wake
		// Not the handler's context, which may have ended already.
		err := effect(h.ctx, m, "zombie")
		result <- err
		return err
	})
	h.waitFor(begun, "nothing came")
	s, err := zombie.c.Session(h.ctx)
	require.NoError(t, err)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	heir := h.member("a", client.Config{}, func(ctx context.Context, m *pubsub.Msg[string]) error {
		err := effect(ctx, m, "heir")
		result <- err
		return err
	})
	require.NoError(t, h.wait(result))
	close(wake)
	require.ErrorIs(t, h.wait(result), pubsub.ErrLost)
	kv, err := h.c.GetOne(h.ctx, "effect")
	require.NoError(t, err)
	require.Equal(t, "heir", string(kv.Value))
	h.leave(heir)
	h.leave(zombie)
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
	for l, err := range topic.Group("g").Dead(h.ctx) {
		require.NoError(t, err)
		t.Errorf("%s: %s", l.Msg.Value, l.Error)
	}
}
