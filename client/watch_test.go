package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// follow runs a watch on a goroutine and returns what it has yielded so far, and a way to end it.
func follow(ctx context.Context, c *Client, key string, opts ...WatchOption) (seen func() []WatchBatch, stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var batches []WatchBatch
	var last error
	var done sync.WaitGroup
	done.Go(func() {
		for b, err := range c.WatchBatches(ctx, key, opts...) {
			mu.Lock()
			if last = err; err == nil {
				batches = append(batches, b)
			}
			mu.Unlock()
		}
	})
	seen = func() []WatchBatch {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(batches)
	}
	stop = func() error { cancel(); done.Wait(); return last }
	return seen, stop
}

// values are the values of all events, in order.
func values(batches []WatchBatch) string {
	var out []string
	for _, b := range batches {
		for _, ev := range b.Events {
			out = append(out, string(ev.KV.Value))
		}
	}
	return strings.Join(out, " ")
}

// TestWatchResumes: over the loss of members, each event is yielded once, in order, also those from in between.
func TestWatchResumes(t *testing.T) {
	inBubble(t, 3, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		seen, stop := follow(ctx, c, "a")
		require.Equal(t, []WatchBatch{{Revision: 1, Created: true}}, seen())
		want := make([]string, 0, 20)
		for i := range 20 {
			switch i {
			case 0, 5, 10: // then nobody is left
				fake.using(c).stop()
				synctest.Wait()
			case 15:
				fake.members["b"].start()
			}
			fake.put("a", fmt.Sprint(i))
			fake.put("b", "not watched")
			want = append(want, fmt.Sprint(i))
		}
		pass(time.Second) // until a member that was started again is connected
		require.Equal(t, strings.Join(want, " "), values(seen()))
		created := slices.IndexFunc(seen()[1:], func(b WatchBatch) bool { return b.Created })
		require.Equal(t, -1, created, "it is reported once only")
		require.ErrorIs(t, stop(), context.Canceled)
	})
}

// TestWatchFromNowResumes: a watch that has seen nothing yet goes on from where it was established, not from where it is
// established anew.
func TestWatchFromNowResumes(t *testing.T) {
	inBubble(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		fake.put("a", "before")
		seen, stop := follow(ctx, c, "a")
		seen()
		for _, m := range fake.members {
			m.stop()
		}
		fake.put("a", "while nobody listened")
		fake.members["b"].start()
		pass(time.Second)
		require.Equal(t, "while nobody listened", values(seen()))
		require.Error(t, stop())
	})
}

// TestWatchCompacted: what was compacted away while the watch could not see it is reported, with both revisions.
func TestWatchCompacted(t *testing.T) {
	inBubble(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		seen, stop := follow(ctx, c, "a")
		seen()
		fake.put("a", "1")
		require.Equal(t, "1", values(seen()))
		for _, m := range fake.members {
			m.stop()
		}
		fake.put("a", "2")
		fake.compact(fake.put("a", "3"))
		fake.members["b"].start()
		pass(time.Second)
		require.Equal(t, "1", values(seen()))
		var compacted *CompactedError
		err := stop()
		require.ErrorAs(t, err, &compacted)
		require.ErrorIs(t, err, ErrCompacted)
		require.Equal(t, CompactedError{Wanted: 3, Revision: 4}, *compacted)
	})
}

// TestWatchAsksForProgress: a watch without events keeps its revision fresh, so that compaction of what it has no
// interest in does not end it.
func TestWatchAsksForProgress(t *testing.T) {
	inBubble(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		seen, stop := follow(ctx, c, "a", FromRevision(2))
		fresh, stopFresh := follow(ctx, c, "a", WithProgress())
		seen()
		for range 100 {
			fake.put("b", "")
		}
		pass(progressInterval)
		require.Equal(t, WatchBatch{Revision: 101, Progress: true}, fresh()[1])
		require.Len(t, seen(), 1, "who did not ask for it is not told")
		fake.compact(100)
		fake.using(c).stop()
		fake.put("a", "still here")
		require.Equal(t, "still here", values(seen()))
		require.ErrorIs(t, stop(), context.Canceled)
		require.ErrorIs(t, stopFresh(), context.Canceled)
	})
}

// TestWatchAsksWhenTold: the answer tells a revision that no event has brought, and no time passes.
func TestWatchAsksWhenTold(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		c.AskProgress() // nobody watches: nothing is asked, nor later
		seen, stop := follow(ctx, c, "a", WithProgress())
		require.Len(t, seen(), 1)
		fake.put("b", "")
		require.Len(t, seen(), 1)
		start := time.Now()
		c.AskProgress()
		require.Equal(t, WatchBatch{Revision: 2, Progress: true}, seen()[1])
		require.Zero(t, time.Since(start))
		require.ErrorIs(t, stop(), context.Canceled)
	})
}

// TestWatchIsToldDespiteOthers: neither a watch that begins behind the newest revision, where a server waits for somebody
// to write, nor one that was compacted away, which etcd counts with those that are behind, keeps others from being told.
func TestWatchIsToldDespiteOthers(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		told, stop := follow(ctx, c, "a", FromRevision(2), WithProgress())
		fake.put("b", "before")
		last := Revision(fake.put("b", "before too"))
		next, stopNext := follow(ctx, c, "b", FromRevision(last+1))
		future, stopFuture := follow(ctx, c, "b", FromRevision(last+3))
		require.Len(t, next(), 1)
		require.Len(t, future(), 1)
		c.AskProgress()
		require.Len(t, told(), 1)
		c.AskProgress()
		require.Equal(t, WatchBatch{Revision: last, Progress: true}, told()[1])

		fake.compact(int64(last))
		_, stopCompacted := follow(ctx, c, "b", FromRevision(2))
		synctest.Wait()
		fake.put("b", "1")
		c.AskProgress()
		require.Equal(t, last+1, told()[len(told())-1].Revision)
		require.ErrorIs(t, stopCompacted(), ErrCompacted)

		fake.put("b", "2")
		fake.put("b", "3")
		require.Equal(t, "1 2 3", values(next()), "each once, and nothing from before")
		require.Equal(t, "3", values(future()))
		for _, stop := range []func() error{stop, stopNext, stopFuture} {
			require.ErrorIs(t, stop(), context.Canceled)
		}
	})
}

// TestWatchBeginsEarlier, so that others are told, where history has been compacted meanwhile: that it does not want.
func TestWatchBeginsEarlier(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		told, stop := follow(ctx, c, "a", FromRevision(2), WithProgress())
		require.Len(t, told(), 1)
		last := Revision(fake.put("not watched", ""))
		future, stopFuture := follow(ctx, c, "b", FromRevision(last+5))
		require.Len(t, future(), 1)
		last = Revision(fake.put("not watched", ""))
		fake.compact(int64(last))
		for range 3 {
			c.AskProgress()
			synctest.Wait()
		}
		require.Equal(t, WatchBatch{Revision: last, Progress: true}, told()[1])
		for range 4 {
			last = Revision(fake.put("b", "x"))
		}
		require.Equal(t, "x", values(future()))
		require.Equal(t, last, future()[1].Revision)
		require.ErrorIs(t, stop(), context.Canceled)
		require.ErrorIs(t, stopFuture(), context.Canceled)
	})
}

// TestWatchesShareAStream, and each gets its own events only.
func TestWatchesShareAStream(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		const n = 50
		var all []func() []WatchBatch
		var stops []func() error
		for i := range n {
			seen, stop := follow(ctx, c.Namespace("n/"), fmt.Sprint(i))
			all, stops = append(all, seen), append(stops, stop)
		}
		synctest.Wait()
		for i := range n {
			fake.put(fmt.Sprintf("n/%d", i), fmt.Sprint("v", i))
		}
		for i, seen := range all {
			require.Equal(t, fmt.Sprint("v", i), values(seen()))
			require.Equal(t, fmt.Sprint(i), seen()[1].Events[0].KV.Key)
		}
		require.Equal(t, 1, fake.total("Watch"))
		for _, stop := range stops {
			require.ErrorIs(t, stop(), context.Canceled)
		}
		synctest.Wait()
		c.core.watches[0].mu.Lock()
		require.False(t, c.core.watches[0].running, "without a watch there is no stream")
		c.core.watches[0].mu.Unlock()

		// The hub starts anew for the next one.
		seen, stop := follow(ctx, c, "a")
		fake.put("a", "again")
		_ = seen()
		fake.put("a", "and again")
		require.Contains(t, values(seen()), "and again")
		require.Error(t, stop())
		require.Equal(t, 2, fake.total("Watch"))
	})
}

// TestSlowLoopIsTakenOffTheStream when its queue is full, without harm to others, and misses nothing.
func TestSlowLoopIsTakenOffTheStream(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		const n = 30
		big := strings.Repeat("x", watchQueueBytesMax/10)
		creates := 0
		fake.members["a"].set(func(m *fakeMember) {
			m.onCreate = func(*pb.WatchCreateRequest) *pb.WatchResponse { creates++; return nil }
		})
		quick, stop := follow(ctx, c, "a")
		quick() // until it is established
		next := Revision(2)
		for b, err := range c.WatchBatches(ctx, "a", FromRevision(2)) {
			require.NoError(t, err)
			if b.Created {
				for range n {
					fake.put("a", big)
					synctest.Wait()
				}
				require.Equal(t, n+1, len(quick())) // require.Len would print megabytes
				h := c.core.watches[0]
				h.mu.Lock()
				for w := range h.all {
					require.LessOrEqual(t, w.bytes, watchQueueBytesMax)
				}
				h.mu.Unlock()
				continue
			}
			require.Equal(t, next, b.Revision)
			next++
			if b.Revision == n+1 {
				break
			}
		}
		require.GreaterOrEqual(t, creates, 3, "the queue never was full")
		require.Error(t, stop())
	})
}

// TestWatchRefused: of several watches that are made at once, the one that the server refuses without naming it ends, and
// no other.
func TestWatchRefused(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		fake.members["a"].set(func(m *fakeMember) {
			m.onCreate = func(r *pb.WatchCreateRequest) *pb.WatchResponse {
				if string(r.Key) != "secret" {
					return nil
				}
				return &pb.WatchResponse{
					Header: &pb.ResponseHeader{Revision: 1}, WatchId: -1, Created: true, Canceled: true,
					CancelReason: "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
				}
			}
		})
		var stops []func() error
		var all []func() []WatchBatch
		for _, key := range []string{"a", "secret", "b", "secret", "c"} {
			seen, stop := follow(ctx, c, key)
			all, stops = append(all, seen), append(stops, stop)
		}
		synctest.Wait()
		for _, key := range []string{"a", "b", "c"} {
			fake.put(key, key)
		}
		require.Equal(t, "a", values(all[0]()))
		require.Equal(t, "b", values(all[2]()))
		require.Equal(t, "c", values(all[4]()))
		for i, stop := range stops {
			want := context.Canceled
			if i%2 == 1 {
				want = ErrPermissionDenied
			}
			require.ErrorIs(t, stop(), want)
		}
	})
}

// TestWatchLeavesMemberWithoutLeader, unless told not to.
func TestWatchLeavesMemberWithoutLeader(t *testing.T) {
	inBubble(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		cut := fake.using(c)
		seen, stop := follow(ctx, c, "a")
		seen()
		cut.set(func(m *fakeMember) { m.noLeader = true })
		local, stopLocal := follow(ctx, c, "a", WithoutLeader())
		require.Len(t, local(), 1)
		require.Equal(t, 2, cut.called("Watch"), "one stream of each kind")
		cut.breakStreams()
		fake.put("a", "1")
		require.Equal(t, "1", values(seen()))
		require.NotSame(t, cut, fake.using(c))
		require.Equal(t, "1", values(local()))
		require.Error(t, stop())
		require.Error(t, stopLocal())
	})
}

// TestWatchLeavesMemberThatHangs, although nothing else is asked of it that could be missed.
func TestWatchLeavesMemberThatHangs(t *testing.T) {
	inBubble(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		seen, stop := follow(ctx, c, "a")
		seen()
		pass(time.Minute)
		m := fake.using(c)
		m.set(func(m *fakeMember) { m.hang = make(chan struct{}) })
		fake.put("a", "1")
		pass(streamSilence + 2*probeInterval + probeTimeout)
		require.Equal(t, "1", values(seen()))
		require.NotSame(t, m, fake.using(c))
		require.Error(t, stop())
	})
}

// TestWatchLeavesMemberThatIsMute: it answers whatever else it is asked, but not how far the stream is.
func TestWatchLeavesMemberThatIsMute(t *testing.T) {
	inBubble(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		seen, stop := follow(ctx, c, "a")
		seen()
		for range 10 { // one that is quiet is not mute
			pass(progressInterval)
		}
		m := fake.using(c)
		require.Equal(t, 1, m.called("Watch"))
		m.set(func(m *fakeMember) { m.mute = true })
		fake.put("a", "1")
		pass((mutePeriods + 1) * progressInterval)
		require.Equal(t, "1", values(seen()))
		require.NotSame(t, m, fake.using(c))
		require.Error(t, stop())
	})
}

// deafTransport opens a first stream on which nothing can be sent, and whose receiver is not told why.
type deafTransport struct {
	transport
	opened atomic.Int32
}

type deafStream struct {
	grpc.ClientStream
	ctx context.Context
}

func (s deafStream) SendMsg(any) error { return io.EOF }
func (s deafStream) RecvMsg(any) error { <-s.ctx.Done(); return s.ctx.Err() }

func (d *deafTransport) stream(ctx context.Context, ep *endpoint, desc *grpc.StreamDesc, method string) (grpc.ClientStream, error) {
	if d.opened.Add(1) == 1 {
		return deafStream{ctx: ctx}, nil
	}
	return d.transport.stream(ctx, ep, desc, method)
}

// TestWatchLeavesBrokenStream: gRPC may fail to send on a stream and never tell the receiver. It opens a stream anew by
// itself when the connection breaks before a server has seen it, and gets into that state if the next one breaks while it
// repeats what was sent.
func TestWatchLeavesBrokenStream(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		deaf := &deafTransport{transport: c.core.transport}
		c.core.transport = deaf
		seen, stop := follow(ctx, c, "a")
		synctest.Wait()
		pass(2 * lastWordTimeout)
		fake.put("a", "1")
		require.Equal(t, "1", values(seen()))
		require.EqualValues(t, 2, deaf.opened.Load())
		require.ErrorIs(t, stop(), context.Canceled)
	})
}

// TestLeaseLeavesBrokenStream, of the same kind.
func TestLeaseLeavesBrokenStream(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		lease, err := c.Grant(ctx, time.Minute)
		require.NoError(t, err)
		deaf := &deafTransport{transport: c.core.transport}
		c.core.transport = deaf
		_, err = c.KeepAliveOnce(ctx, lease.ID)
		require.NoError(t, err)
		require.EqualValues(t, 2, deaf.opened.Load())
	})
}

// TestWatchEnds: the last word is an error, a break says nothing, and neither leaves anything behind.
func TestWatchEnds(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		enough := errors.New("enough")
		ctx2, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(time.Minute, func() { cancel(enough) })
		n := 0
		for _, err := range c.Watch(ctx2, "a") {
			n++
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, enough)
		}
		require.Equal(t, 1, n)

		// A context that is done wins over events that wait.
		ctx3, cancel3 := context.WithCancel(ctx)
		defer cancel3()
		fake.put("a", "1")
		fake.put("a", "2")
		n = 0
		for _, err := range c.Watch(ctx3, "a", FromRevision(2)) {
			if n++; n == 1 {
				require.NoError(t, err)
				synctest.Wait()
				cancel3()
				continue
			}
			require.ErrorIs(t, err, context.Canceled)
		}
		require.Equal(t, 2, n)
		for _, err := range c.Watch(ctx, "a", FromRevision(2)) {
			require.NoError(t, err)
			break
		}
		for _, h := range c.core.watches {
			h.mu.Lock()
			require.Empty(t, h.all)
			h.mu.Unlock()
		}
	})
}

// ---- what no well-behaved server does

// feed gives a hub answers as if from a server, without a stream.
func feed(t *testing.T, w *watcher, responses ...*pb.WatchResponse) *watchHub {
	h := newWatchHub(nil, true)
	w.wake = make(chan struct{}, 1)
	h.all[w] = struct{}{}
	_, any := h.wanted()
	require.True(t, any)
	for _, r := range responses {
		require.NoError(t, h.dispatch(r))
	}
	return h
}

func header(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: rev} }

func events(id int64, revs ...int64) *pb.WatchResponse {
	resp := &pb.WatchResponse{Header: header(1000), WatchId: id}
	for _, rev := range revs {
		kv := &mvccpb.KeyValue{Key: []byte("k"), ModRevision: rev, Value: fmt.Append(nil, rev)}
		resp.Events = append(resp.Events, &mvccpb.Event{Kv: kv})
	}
	return resp
}

func TestDispatch(t *testing.T) {
	created := func(rev int64) *pb.WatchResponse {
		return &pb.WatchResponse{Header: header(rev), WatchId: 1, Created: true}
	}
	progress := func(id, rev int64) *pb.WatchResponse { return &pb.WatchResponse{Header: header(rev), WatchId: id} }
	for _, c := range []struct {
		name      string
		from      Revision
		responses []*pb.WatchResponse
		want      string
		next      Revision
	}{
		{"now", 0, []*pb.WatchResponse{created(9)}, "", 10},
		{"events from before now", 0, []*pb.WatchResponse{created(9), events(1, 8, 9, 10)}, "10", 11},
		{"repeated events", 5, []*pb.WatchResponse{created(9), events(1, 5, 6), events(1, 5, 6), events(1, 6, 7)}, "5 6 7", 8},
		{"the header is not how far it is", 5, []*pb.WatchResponse{created(9), events(1, 5)}, "5", 6},
		{"events of another", 5, []*pb.WatchResponse{created(9), events(7, 5)}, "", 5},
		{"progress", 5, []*pb.WatchResponse{created(9), progress(1, 8)}, "", 9},
		{"progress of all", 5, []*pb.WatchResponse{created(9), progress(-1, 8)}, "", 9},
		{"progress before it was created", 5, []*pb.WatchResponse{progress(-1, 8), progress(1, 8), created(9)}, "", 5},
		{"progress of a member that lags", 50, []*pb.WatchResponse{created(9), progress(-1, 8)}, "", 50},
	} {
		w := &watcher{req: watchRequest{keys: keyRange{key: "k"}}, next: c.from}
		h := feed(t, w, c.responses...)
		batches, err := h.take(w)
		require.NoError(t, err)
		require.Equal(t, c.want, values(batches), c.name)
		require.Equal(t, c.next, w.next, c.name)
	}

	// Answers that make the stream useless.
	w := &watcher{req: watchRequest{keys: keyRange{key: "k"}}, next: 5}
	h := feed(t, w, created(9))
	require.ErrorContains(t, h.dispatch(created(9)), "not asked for")
	require.ErrorContains(t, h.dispatch(&pb.WatchResponse{Header: header(9), WatchId: 1, Canceled: true}), "canceled watch 1")
	require.Equal(t, Revision(5), w.next, "it will go on where it was")
	require.NoError(t, h.dispatch(&pb.WatchResponse{Header: header(9), WatchId: 1, Canceled: true}), "nobody's watch")
	_, err := h.take(w)
	require.NoError(t, err)
}

// TestWatchSurvivesACancelWithoutReason, as a proxy in between may send it.
func TestWatchSurvivesACancelWithoutReason(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		n := 0
		fake.members["a"].set(func(m *fakeMember) {
			m.onCreate = func(r *pb.WatchCreateRequest) *pb.WatchResponse {
				if n++; n > 3 {
					return nil
				}
				return &pb.WatchResponse{Header: header(1), WatchId: r.WatchId, Created: true, Canceled: true}
			}
		})
		seen, stop := follow(ctx, c, "a", FromRevision(2))
		fake.put("a", "1")
		pass(time.Second)
		require.Equal(t, "1", values(seen()))
		require.Equal(t, 4, n)
		require.Error(t, stop())
	})
}

func TestWatchesAreBounded(t *testing.T) {
	h := newWatchHub(nil, true)
	for range watchesMax {
		h.all[&watcher{}] = struct{}{}
	}
	require.ErrorIs(t, h.add(&watcher{}), ErrLimit)
}
