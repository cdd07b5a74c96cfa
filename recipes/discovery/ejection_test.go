package discovery

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// fakeSource is a store in virtual time: what is sent to it is read, or comes as an
// event.
type fakeSource struct {
	rev     client.Revision
	kvs     []client.KV
	denied  atomic.Bool // nothing can be read
	batches chan client.WatchBatch
}

func newFakeSource(ids ...string) *fakeSource {
	f := &fakeSource{rev: 1, batches: make(chan client.WatchBatch)}
	for _, id := range ids {
		f.kvs = append(f.kvs, client.KV{Key: "s/" + id, Value: []byte(`{"Addr":"` + id + `"}`), ModRevision: 1})
	}
	return f
}

func (f *fakeSource) Get(context.Context, string, ...client.GetOption) (*client.GetResult, error) {
	if f.denied.Load() {
		return nil, client.ErrPermissionDenied
	}
	return &client.GetResult{Revision: f.rev, KVs: f.kvs}, nil
}

func (f *fakeSource) WatchBatches(ctx context.Context, _ string, _ ...client.WatchOption) iter.Seq2[client.WatchBatch, error] {
	return func(yield func(client.WatchBatch, error) bool) {
		for {
			select {
			case b := <-f.batches:
				if !yield(b, nil) {
					return
				}
			case <-ctx.Done():
				yield(client.WatchBatch{}, ctx.Err())
				return
			}
		}
	}
}

// put and remove are events; the provider has seen them when they return.
func (f *fakeSource) put(id, value string) {
	f.rev++
	f.batches <- client.WatchBatch{Revision: f.rev, Events: []client.Event{
		{Type: client.EventPut, KV: client.KV{Key: "s/" + id, Value: []byte(value), ModRevision: f.rev}},
	}}
	synctest.Wait()
}

func (f *fakeSource) remove(ids ...string) {
	f.rev++
	b := client.WatchBatch{Revision: f.rev}
	for _, id := range ids {
		b.Events = append(b.Events, client.Event{Type: client.EventDelete, KV: client.KV{Key: "s/" + id, ModRevision: f.rev}})
	}
	f.batches <- b
	synctest.Wait()
}

// inBubble runs f with a provider of instances in virtual time.
func inBubble(t *testing.T, src *fakeSource, e Ejection, f func(t *testing.T, p *Provider[struct{}])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		src.batches = make(chan client.WatchBatch)
		o := providerOptions{watch: watchOptions{keepLost: defaultKeepLost}, ejection: e}
		p := newProvider(src, "s", RoundRobin[struct{}](), o)
		defer p.Close()
		synctest.Wait()
		f(t, p)
	})
}

// use makes n requests; those to an instance in failing fail. It counts them.
func use(t *testing.T, p *Provider[struct{}], n int, failing ...string) map[string]int {
	t.Helper()
	count := make(map[string]int)
	for range n {
		in, done, err := p.Pick(t.Context())
		require.NoError(t, err)
		count[in.ID]++
		var failure error
		for _, id := range failing {
			if in.ID == id {
				failure = errors.New("broken")
			}
		}
		done(failure)
		done(errors.New("a second call has no effect"))
	}
	return count
}

func pass(d time.Duration) { <-time.After(d) }

// Two failures take an instance out for half a minute; then one more takes it out
// for twice as long, up to five minutes; a success clears it.
func TestEjectionTimes(t *testing.T) {
	inBubble(t, newFakeSource("a", "b", "c"), Ejection{}, func(t *testing.T, p *Provider[struct{}]) {
		require.Equal(t, map[string]int{"a": 2, "b": 11, "c": 11}, use(t, p, 24, "a"))
		for _, ejected := range []time.Duration{30, 60, 120, 240, 300, 300} {
			ejected *= time.Second
			pass(ejected - 1)
			require.Zero(t, use(t, p, 12, "a")["a"], "still out after %v", ejected-1)
			pass(1)
			require.Equal(t, 1, use(t, p, 12, "a")["a"], "one attempt after %v", ejected)
		}
		pass(5 * time.Minute)
		require.Equal(t, 4, use(t, p, 12)["a"], "it works again")
		require.Equal(t, 2, use(t, p, 24, "a")["a"], "and fails again: two failures are needed")
		pass(30*time.Second - 1)
		require.Zero(t, use(t, p, 12)["a"])
		pass(1)
		require.Equal(t, 4, use(t, p, 12)["a"])
	})
}

// Failures count together only within the window, and only without a success in
// between; what the caller gave up does not count.
func TestEjectionCounts(t *testing.T) {
	inBubble(t, newFakeSource("a", "b"), Ejection{Errors: 3, Window: 10 * time.Second}, func(t *testing.T, p *Provider[struct{}]) {
		one := func(err error) {
			for {
				in, done, perr := p.Pick(t.Context())
				require.NoError(t, perr)
				if in.ID == "a" {
					done(err)
					return
				}
				done(nil)
			}
		}
		broken := errors.New("broken")
		ejected := func() bool { return use(t, p, 2)["a"] == 0 }
		for range 2 {
			one(broken)
		}
		pass(10 * time.Second)
		one(broken) // the first two no longer count
		one(nil)
		for range 2 {
			one(broken)
		}
		one(context.Canceled)
		require.False(t, ejected(), "two in a row") // and these were successes
		for range 3 {
			one(broken)
		}
		require.True(t, ejected())
	})
}

// What was sent before the ejection does not lengthen it.
func TestEjectionOfStragglers(t *testing.T) {
	inBubble(t, newFakeSource("a", "b"), Ejection{Errors: 1}, func(t *testing.T, p *Provider[struct{}]) {
		var late []func(error)
		for range 10 {
			in, done, err := p.Pick(t.Context())
			require.NoError(t, err)
			if in.ID == "a" {
				late = append(late, done)
			} else {
				done(nil)
			}
		}
		for _, done := range late {
			done(errors.New("broken"))
		}
		pass(30 * time.Second)
		require.Equal(t, 1, use(t, p, 2)["a"])
	})
}

// No more than the share is ejected at a time, and never the last one.
func TestEjectionShare(t *testing.T) {
	inBubble(t, newFakeSource("a", "b", "c", "d", "e"), Ejection{}, func(t *testing.T, p *Provider[struct{}]) {
		use(t, p, 100, "a", "b", "c", "d", "e")
		require.Len(t, use(t, p, 30), 3, "two of five are out")
	})
	inBubble(t, newFakeSource("a"), Ejection{}, func(t *testing.T, p *Provider[struct{}]) {
		require.Equal(t, 10, use(t, p, 10, "a")["a"])
	})
	inBubble(t, newFakeSource("a", "b"), Ejection{Share: 100}, func(t *testing.T, p *Provider[struct{}]) {
		use(t, p, 10, "a", "b")
		require.Len(t, use(t, p, 10), 2, "all are out: then all are in")
	})
	inBubble(t, newFakeSource("a", "b"), Ejection{Off: true}, func(t *testing.T, p *Provider[struct{}]) {
		require.Equal(t, map[string]int{"a": 5, "b": 5}, use(t, p, 10, "a", "b"))
	})
}

// How an instance has behaved stays with it when others change its weight, and is
// forgotten when it moves to another address.
func TestEjectionFollowsTheAddress(t *testing.T) {
	src := newFakeSource("a", "b")
	inBubble(t, src, Ejection{}, func(t *testing.T, p *Provider[struct{}]) {
		use(t, p, 8, "a")
		src.put("a", `{"Addr":"a","weight":9}`)
		require.Zero(t, use(t, p, 10)["a"])
		src.put("a", `{"Addr":"elsewhere","weight":9}`)
		require.Equal(t, 9, use(t, p, 10)["a"])
	})
}

// All instances are lost: the last good set is used, for five minutes, and only
// until one is there.
func TestLastGoodSet(t *testing.T) {
	src := newFakeSource("a", "b", "c")
	inBubble(t, src, Ejection{}, func(t *testing.T, p *Provider[struct{}]) {
		src.remove("a")
		pass(3 * time.Minute)
		src.put("b", `{"Addr":"b","state":"draining"}`)
		src.remove("b") // said goodbye
		src.remove("c")
		in, stale := p.Instances()
		require.True(t, stale)
		require.Len(t, in, 2)
		require.Equal(t, "a", in[0].ID)
		require.Equal(t, "c", in[1].ID)
		require.Equal(t, Lost, in[1].State)
		pass(time.Hour)
		require.Len(t, use(t, p, 10), 2, "nothing better is known")
		src.put("d", `{"Addr":"d"}`)
		require.Equal(t, map[string]int{"d": 10}, use(t, p, 10))
		src.remove("d")
		in, _ = p.Instances()
		require.Len(t, in, 1, "a and c were lost long ago")
		require.Equal(t, "d", in[0].ID)
	})
}

// A service that can not be read at all says why; once it can, all is well.
func TestProviderSaysWhy(t *testing.T) {
	src := newFakeSource("a")
	src.denied.Store(true)
	inBubble(t, src, Ejection{}, func(t *testing.T, p *Provider[struct{}]) {
		_, _, err := p.Pick(t.Context())
		require.ErrorIs(t, err, ErrNoInstance)
		require.ErrorIs(t, err, client.ErrPermissionDenied)
		src.denied.Store(false)
		pass(watchRetry)
		synctest.Wait()
		require.Equal(t, 1, use(t, p, 1)["a"])
	})
}
