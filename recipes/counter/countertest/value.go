package countertest

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/counter"
)

// limits is a value for tests.
type limits struct {
	Rate int    `json:"rate"`
	Who  string `json:"who,omitempty"`
}

func testValue(t *testing.T, h *harness) {
	v := counter.NewValue[limits](h.c, "limits")
	_, _, err := v.Get(h.ctx)
	require.ErrorIs(t, err, client.ErrNotFound)
	first, err := v.Set(h.ctx, limits{Rate: 1})
	require.NoError(t, err)
	got, rev, err := counter.NewValue[limits](h.client(client.Config{}), "limits").Get(h.ctx)
	require.NoError(t, err)
	require.Equal(t, limits{Rate: 1}, got)
	require.Equal(t, first, rev)
	require.Equal(t, `{"rate":1}`, h.value("limits"))

	second, err := v.TrySet(h.ctx, limits{Rate: 2}, first)
	require.NoError(t, err)
	require.Greater(t, second, first)
	for _, stale := range []client.Revision{0, first} {
		_, err = v.TrySet(h.ctx, limits{Rate: 3}, stale)
		require.ErrorIs(t, err, client.ErrConflict)
	}
	_, err = counter.NewValue[limits](h.c, "new").TrySet(h.ctx, limits{}, 0)
	require.NoError(t, err)
	h.put("limits", "{")
	_, rev, err = v.Get(h.ctx)
	var decode *client.DecodeError
	require.ErrorAs(t, err, &decode)
	require.NotZero(t, rev)
	_, err = counter.NewValue[limits](h.c, "").Set(h.ctx, limits{})
	require.ErrorIs(t, err, counter.ErrName)
}

// Curator's SharedCount compared versions, which restart and wrap round, and then was
// never updated again. The version of a key that was deleted and made anew is smaller than
// before, too: here that is a change like any other.
func testValueVersion(t *testing.T, h *harness) {
	v := counter.NewValue[int](h.c, "v")
	pull, stop := iter.Pull2(v.Watch(h.ctx))
	defer stop()
	require.Zero(t, next(h, pull).Revision)
	var last client.Revision
	for i := range 10 {
		rev, err := v.TrySet(h.ctx, i, last)
		require.NoError(t, err)
		last = rev
		require.Equal(t, counter.Version[int]{Value: i, Revision: rev}, next(h, pull))
	}
	_, err := h.c.Delete(h.ctx, "v")
	require.NoError(t, err)
	require.Zero(t, next(h, pull))
	_, err = v.TrySet(h.ctx, 99, last)
	require.ErrorIs(t, err, client.ErrConflict)
	rev, err := v.TrySet(h.ctx, 100, 0)
	require.NoError(t, err)
	require.Equal(t, counter.Version[int]{Value: 100, Revision: rev}, next(h, pull))
	kv, err := h.c.GetOne(h.ctx, "v")
	require.NoError(t, err)
	require.Equal(t, int64(1), kv.Version)
	_, err = v.TrySet(h.ctx, 101, rev)
	require.NoError(t, err)
}

// A set whose request is lost is made again; the first one arrives when somebody else has
// set the value since, and does not undo that.
func testLateSet(t *testing.T, h *harness) {
	var late *clienttest.Call
	var w clienttest.Wire
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if late == nil && c.Puts() {
			late = c
			return clienttest.RequestLost
		}
		return clienttest.Arrives
	})
	_, err := counter.NewValue[int](h.client(w.Config()), "v").Set(h.ctx, 1)
	require.NoError(t, err)
	_, err = counter.NewValue[int](h.c, "v").Set(h.ctx, 2)
	require.NoError(t, err)
	resp, err := late.Deliver()
	require.NoError(t, err)
	require.False(t, resp.(*pb.TxnResponse).Succeeded)
	require.Equal(t, "2", h.value("v"))
}

func testValueWatch(t *testing.T, h *harness) {
	v := counter.NewValue[limits](h.c, "limits")
	pull, stop := iter.Pull2(v.Watch(h.ctx))
	defer stop()
	require.Zero(t, next(h, pull))
	_, err := v.Set(h.ctx, limits{Rate: 1})
	require.NoError(t, err)
	require.Equal(t, 1, next(h, pull).Value.Rate)
	h.put("limits", "{")
	_, err, ok := pull()
	require.True(t, ok)
	var decode *client.DecodeError
	require.ErrorAs(t, err, &decode)
	_, err = v.Set(h.ctx, limits{Rate: 2})
	require.NoError(t, err)
	require.Equal(t, 2, next(h, pull).Value.Rate)
}

// sequences draws numbers from several objects at once, and checks that no two are the
// same and that each object's grow.
func (h *harness) sequences(n int, all ...*counter.Sequence) map[int64]bool {
	h.t.Helper()
	var mu sync.Mutex
	seen := make(map[int64]bool)
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	for i, s := range all {
		wg.Go(func() {
			last := int64(0)
			for range n {
				v, err := s.Next(h.ctx)
				mu.Lock()
				if err == nil && (seen[v] || v <= last) {
					err = errors.New("a number was given out twice, or does not grow")
				}
				seen[v], last = true, v
				mu.Unlock()
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(h.t, errors.Join(errs...))
	return seen
}

func testSequence(t *testing.T, h *harness) {
	one := counter.NewSequence(h.c, "ids", 10)
	first, err := one.Next(h.ctx)
	require.NoError(t, err)
	require.Equal(t, int64(1), first)
	require.Equal(t, "10", h.value("ids"), "what stands in the store is the end of the block")
	seen := h.sequences(95, one, counter.NewSequence(h.client(client.Config{}), "ids", 7), counter.NewSequence(h.c, "ids", 1))
	require.Len(t, seen, 285)

	// Many goroutines may draw from one object.
	var wg sync.WaitGroup
	numbers := make(chan int64, 50)
	for range 50 {
		wg.Go(func() {
			v, err := one.Next(h.ctx)
			if err == nil {
				numbers <- v
			}
		})
	}
	wg.Wait()
	close(numbers)
	got := 0
	for v := range numbers {
		require.False(t, seen[v])
		seen[v] = true
		got++
	}
	require.Equal(t, 50, got)
}

// A block of which it is not known whether it was taken is at worst lost.
func testSequenceLostAnswers(t *testing.T, h *harness) {
	var all []*counter.Sequence
	var lost atomic.Int64
	for i := range 3 {
		var w clienttest.Wire
		puts := 0 // Before is called for one call at a time
		w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
			if !c.Puts() {
				return clienttest.Arrives
			}
			puts++
			switch puts % 4 {
			case 1:
				lost.Add(1)
				return clienttest.AnswerDropped
			case 2:
				lost.Add(1)
				return clienttest.RequestLost
			}
			return clienttest.Arrives
		})
		all = append(all, counter.NewSequence(h.client(w.Config()), "ids", int64(i+1)))
	}
	require.Len(t, h.sequences(30, all...), 90)
	require.Greater(t, lost.Load(), int64(20))
}

func testSequenceErrors(t *testing.T, h *harness) {
	for _, size := range []int64{-1, 0, 1_000_001} {
		_, err := counter.NewSequence(h.c, "ids", size).Next(h.ctx)
		require.ErrorIs(t, err, counter.ErrBlock)
	}
	h.put("ids", "x")
	s := counter.NewSequence(h.c, "ids", 5)
	_, err := s.Next(h.ctx)
	require.ErrorIs(t, err, counter.ErrNotNumber)
	h.put("ids", "9223372036854775800")
	_, err = s.Next(h.ctx)
	require.NoError(t, err)
	for range 4 {
		_, err = s.Next(h.ctx)
		require.NoError(t, err)
	}
	_, err = s.Next(h.ctx)
	require.ErrorIs(t, err, counter.ErrOverflow)
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	_, err = counter.NewSequence(h.c, "other", 5).Next(ctx)
	require.ErrorIs(t, err, context.Canceled)
}
