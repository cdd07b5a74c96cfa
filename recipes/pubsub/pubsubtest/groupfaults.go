package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

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
	h.publish(topic, "behind", pubsub.Key("p"))
	var mu sync.Mutex
	handled := make(map[string]bool)
	behind := make(chan struct{}, 10)
	crashes := 0
	for over := false; !over; {
		died := make(chan struct{}, 1)
		m := h.member("a", client.Config{}, func(ctx context.Context, m *pubsub.Msg[string]) error {
			if m.Value == "poison" {
				died <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			handled[m.Value] = true
			if len(handled) == 11 {
				behind <- struct{}{}
			}
			return nil
		})
		select {
		case <-died:
			require.NoError(t, m.c.Close())
			require.Error(t, h.wait(m.done))
			crashes++
		case <-behind:
			h.leave(m)
			over = true
		case <-h.ctx.Done():
			t.Fatal("the group is stuck")
		}
	}
	letters := h.letters(topic.Group("g"))
	require.Len(t, letters, 1)
	require.Equal(t, "poison", letters[0].Msg.Value)
	require.Equal(t, pubsub.ErrCrashed.Error(), letters[0].Error)
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
	lost := 0
	for i := range crashes {
		lost += processOnce(t, h, i, 15, n)
	}
	lost += processOnce(t, h, crashes, 0, n)
	require.Greater(t, lost, n/10, "too little was lost to prove anything")
	t.Logf("%d requests and answers lost", lost)
	require.Empty(t, h.letters(h.topic(h.c, "a").Group("g")), "an effect was there twice")
	h.publish(out, "end")
	got := 0
	byKey := make(map[string]int)
	for m, err := range out.Subscribe(h.ctx, pubsub.Earliest()) {
		require.NoError(t, err)
		if m.Value == "end" {
			break
		}
		got++
		var i int
		_, err := fmt.Sscan(m.Value, &i)
		require.NoError(t, err)
		before, ok := byKey[m.Key]
		require.True(t, !ok || before+keys == i, "key %s: %d behind %d", m.Key, i, before)
		byKey[m.Key] = i
	}
	require.Equal(t, n, got)
}

// processOnce is a member that has a bad network. After so many messages its client
// is closed under it; with zero, it goes on until all have been processed. It returns
// how much was lost.
func processOnce(t *testing.T, h *harness, seed, stopAfter, n int) int {
	var w clienttest.Wire
	c := h.client(w.Config())
	in, out := h.topic(c, "a"), h.topic(c, "out")
	lost := lossy(&w, int64(seed), 5)
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	var mu sync.Mutex
	count := 0
	enough := make(chan struct{})
	process := func(ctx context.Context, m *pubsub.Msg[string]) error {
		err := m.Tx(ctx, func(tx *client.Tx) error {
			if _, err := tx.Get("effect/" + m.Value); !errors.Is(err, client.ErrNotFound) {
				return pubsub.Dead(fmt.Errorf("%s twice: %v", m.Value, err))
			}
			tx.Put("effect/"+m.Value, nil)
			return out.PublishTx(tx, m.Value, pubsub.Key(m.Key))
		})
		mu.Lock()
		defer mu.Unlock()
		if count++; count == stopAfter {
			close(enough)
		}
		return err
	}
	done := background(func() error {
		return in.Group("g").Run(ctx, process, pubsub.Backoff(func(int) time.Duration { return time.Millisecond }))
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
	return lost()
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
			tx.Put("effect/"+by, nil)
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
	res, err := h.c.Get(h.ctx, "effect/", client.Prefix())
	require.NoError(t, err)
	require.Len(t, res.KVs, 1)
	require.Equal(t, "effect/heir", res.KVs[0].Key)
	h.leave(heir)
	h.leave(zombie)
}
