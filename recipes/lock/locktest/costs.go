package locktest

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// meter counts what a client sends: calls, and what it asks of the watch stream.
type meter struct {
	wire
	watches atomic.Int64
}

func (m *meter) config() client.Config {
	return client.Config{DialOptions: []grpc.DialOption{
		grpc.WithUnaryInterceptor(m.intercept), grpc.WithStreamInterceptor(m.interceptStream),
	}}
}

func (m *meter) interceptStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, cc, method, opts...)
	return &meteredStream{stream, m}, err
}

type meteredStream struct {
	grpc.ClientStream
	meter *meter
}

func (s *meteredStream) SendMsg(m any) error {
	if r, ok := m.(*pb.WatchRequest); ok && r.GetProgressRequest() == nil {
		s.meter.watches.Add(1)
	}
	return s.ClientStream.SendMsg(m)
}

// sent is what one client has sent.
type sent struct{ calls, watches int }

func (m *meter) sent() sent { return sent{m.calls(), int(m.watches.Load())} }

// since returns what was sent after an earlier count.
func (m *meter) since(before sent) sent {
	now := m.sent()
	return sent{now.calls - before.calls, now.watches - before.watches}
}

// A lock that nobody else wants costs one transaction, and one to give it back.
// One that is held for a moment is not watched.
func testCostUncontended(t *testing.T, h *harness) {
	const rounds = 50
	var m meter
	c := h.client(m.config())
	l := lock.New(c, "job")
	h.release(h.acquire(l)) // makes the session
	start := m.sent()
	unwatched := 0
	for range rounds {
		before := m.sent()
		h.release(h.acquire(l))
		cost := m.since(before)
		require.Equal(t, 2, cost.calls)
		if cost.watches == 0 {
			unwatched++
		}
	}
	t.Logf("%d rounds: %+v, %d without a watch", rounds, m.since(start), unwatched)
	require.Positive(t, unwatched)

	// TryAcquire costs the same, and one call to find somebody else's.
	before := m.sent()
	held, err := l.TryAcquire(h.ctx)
	require.NoError(t, err)
	h.release(held)
	require.Equal(t, 2, m.since(before).calls)
	other := h.acquire(lock.New(h.c, "job"))
	before = m.sent()
	_, err = l.TryAcquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	require.Equal(t, 1, m.since(before).calls)
	h.release(other)

	// Any number of locks together cost what one does.
	before = m.sent()
	set, err := lock.AcquireAll(h.ctx, c, []string{"k", "l", "m", "n"})
	require.NoError(t, err)
	require.NoError(t, set.Release(h.ctx))
	require.Equal(t, 2, m.since(before).calls)
}

// While it waits, a waiter sends nothing, whatever happens to other keys and
// behind it. Its turn costs one call: the proof that it has come. It costs a
// second one when the answer to the first is from before the event that told of
// the turn: etcd tells of a change a moment before it shows it.
func testCostWaiting(t *testing.T, h *harness) {
	var m meter
	c := h.client(m.config())
	_, err := c.Session(h.ctx)
	require.NoError(t, err)
	holder := h.acquire(lock.New(h.c, "job"))
	start := m.sent()
	waiter := h.start(h.ctx, lock.New(c, "job"))
	h.awaitKeys("job/", 2)
	behind := h.client(client.Config{})
	for range 20 {
		ctx, cancel := context.WithCancel(h.ctx)
		a := h.start(ctx, lock.New(behind, "job"))
		h.awaitKeys("job/", 3)
		cancel()
		require.ErrorIs(t, a.failure(), context.Canceled)
		h.awaitKeys("job/", 2)
		h.release(h.acquire(lock.New(h.c, "other")))
	}
	cost := m.since(start)
	require.Equal(t, 1, cost.calls, "the creation of its key")
	require.LessOrEqual(t, cost.watches, 2, "of the key before it, and of its own")
	before := m.sent()
	h.release(holder)
	held := waiter.success()
	turn := m.since(before).calls
	require.Contains(t, []int{1, 2}, turn)
	h.release(held)
	require.Equal(t, 2+turn, m.since(start).calls)
}
