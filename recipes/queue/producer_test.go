package queue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// sink is where a producer's requests go.
type sink struct {
	begin time.Time

	mu   sync.Mutex // protects what follows
	got  []int      // messages of each
	at   []time.Duration
	err  error
	hold chan struct{} // if it is set, requests wait for it
}

func newSinkQueue() (*Queue[string], *sink) {
	q := &Queue[string]{core: &core{name: "test"}, codec: client.JSON[string]()}
	q.conf.Store(&config{Version: 1, Shards: 1, Lanes: 2})
	return q, &sink{begin: time.Now()}
}

func newSink(t *testing.T, opts ...ProducerOption) (*Producer[string], *sink) {
	q, s := newSinkQueue()
	p, err := q.Producer(opts...)
	require.NoError(t, err)
	p.put = s.put
	return p, s
}

func (s *sink) put(_ context.Context, r *request) (ID, error) {
	s.mu.Lock()
	s.got, s.at = append(s.got, max(1, r.chunk)), append(s.at, time.Since(s.begin))
	hold, err := s.hold, s.err
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return "job", err
}

// sizes returns the messages of each request so far.
func (s *sink) sizes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func send(t *testing.T, p *Producer[string], opts ...EnqueueOption) *Pending {
	t.Helper()
	d, err := p.Send(t.Context(), "x", opts...)
	require.NoError(t, err)
	return d
}

// What comes within the time to linger shares a key, and no later than that it
// goes; a full chunk goes at once.
func TestProducerLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newSink(t, WithPack(3))
		first := send(t, p)
		time.Sleep(time.Millisecond)
		send(t, p)
		synctest.Wait()
		require.Empty(t, s.sizes())
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.Equal(t, []int{2}, s.sizes())
		s.mu.Lock()
		require.Equal(t, []time.Duration{2 * time.Millisecond}, s.at)
		s.mu.Unlock()
		id, err := first.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, ID("job.0"), id)

		for range 3 {
			send(t, p)
		}
		send(t, p)
		synctest.Wait()
		require.Equal(t, []int{2, 3}, s.sizes(), "a full one does not wait")
		send(t, p, Priority(1))
		grouped := send(t, p, Group("g"))
		synctest.Wait()
		require.Equal(t, []int{2, 3, 1}, s.sizes(), "one that can not share does not wait")
		id, err = grouped.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, ID("job"), id)
		require.NoError(t, p.Flush(t.Context()))
		require.Equal(t, []int{2, 3, 1, 1, 1}, s.sizes(), "priorities do not share")
	})
}

// With too many pending, Send waits; what fails is told to all who share it.
func TestProducerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newSink(t, WithPack(2), WithPending(2))
		s.hold, s.err = make(chan struct{}), errors.New("store is gone")
		a, b := send(t, p), send(t, p)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Send(ctx, "x")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = a.Wait(ctx)
		require.ErrorIs(t, err, client.ErrUncertain)
		close(s.hold)
		for _, d := range []*Pending{a, b} {
			_, err := d.Wait(t.Context())
			require.ErrorContains(t, err, "store is gone")
		}
		require.NoError(t, p.Close(t.Context()))
		_, err = p.Send(t.Context(), "x")
		require.ErrorIs(t, err, ErrClosed)
	})
}

// The wait grows, is bounded, and differs.
func TestBackoff(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for attempt := range 60 {
		top := backoffMax
		if attempt < 20 {
			top = min(backoffMax, backoffMin<<max(0, attempt-1))
		}
		for range 50 {
			d := Backoff(attempt)
			require.LessOrEqual(t, d, top, "attempt %d", attempt)
			require.Greater(t, d, top*3/4-1, "attempt %d", attempt)
			seen[d] = true
		}
	}
	require.Greater(t, len(seen), 1000)
}

func TestShardsOfGroups(t *testing.T) {
	c := &config{First: 10, Shards: 8, Old: []span{{First: 2, Shards: 8}}}
	used := make(map[int]int)
	for i := range 800 {
		n := c.home(fmt.Sprint("group", i))
		require.True(t, c.current(n))
		used[n]++
	}
	require.Len(t, used, 8)
	for _, n := range used {
		require.Greater(t, n, 50, "%v", used)
	}
	require.Len(t, c.all(), 16)
	require.Equal(t, 3, c.keep(3))
	require.Equal(t, 12, c.keep(12))
	require.True(t, c.current(c.keep(1)))
}

// TestOldestShards has a queue that was cut anew twice before its first shards were empty: groups wait in the second
// shards as well, not only in the newest.
func TestOldestShards(t *testing.T) {
	c := &config{First: 7, Shards: 3, Old: []span{{First: 0, Shards: 2}, {First: 2, Shards: 5}}}
	oldest := func() (out []int) {
		for _, n := range c.all() {
			if c.oldest(n) {
				out = append(out, n)
			}
		}
		return out
	}
	require.Equal(t, []int{0, 1}, oldest())
	c.Old = c.Old[1:]
	require.Equal(t, []int{2, 3, 4, 5, 6}, oldest())
	c.Old = nil
	require.Equal(t, []int{7, 8, 9}, oldest())
}

// What a sequence yields is packed, and has its place in the order whatever becomes
// of it.
func TestEnqueueSeq(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newSinkQueue()
		items := func(n int) iter.Seq[Item[string]] {
			return func(yield func(Item[string]) bool) {
				for i := range n {
					it := Item[string]{Value: "x"}
					if i == 2 {
						it.Opts = []EnqueueOption{Priority(7)} // there is none
					}
					if !yield(it) {
						return
					}
				}
			}
		}
		var ids []ID
		for id, err := range q.enqueueSeq(t.Context(), items(8), s.put, WithPack(3), WithPending(4), WithLinger(time.Hour)) {
			if len(ids) == 2 {
				require.ErrorIs(t, err, ErrOption)
			} else {
				require.NoError(t, err)
			}
			ids = append(ids, id)
		}
		require.Equal(t, []ID{"job.0", "job.1", "", "job.2", "job.0", "job.1", "job.2", "job"}, ids)
		require.ElementsMatch(t, []int{3, 3, 1}, s.sizes())

		// A loop that breaks leaves nothing running.
		for range q.enqueueSeq(t.Context(), items(100), s.put, WithPack(2), WithPending(2)) {
			break
		}
		synctest.Wait()
		require.Less(t, len(s.sizes()), 3+3)

		// A ctx that ends is told once, behind what it leaves open.
		ctx, cancel := context.WithCancel(t.Context())
		s.mu.Lock()
		s.hold = make(chan struct{})
		s.mu.Unlock()
		var errs []error
		go func() {
			time.Sleep(time.Second)
			cancel()
		}()
		for _, err := range q.enqueueSeq(ctx, items(2), s.put) {
			errs = append(errs, err)
		}
		close(s.hold)
		require.Len(t, errs, 3)
		require.ErrorIs(t, errs[0], client.ErrUncertain)
		require.ErrorIs(t, errs[2], context.Canceled)
		require.NotErrorIs(t, errs[2], client.ErrUncertain)
	})
}
