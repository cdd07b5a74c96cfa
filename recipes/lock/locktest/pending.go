package locktest

import (
	"context"
	"slices"
	"sync"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/latchkey-go/latchkey/client"
)

// pending is a call on a goroutine of its own.
type pending[T any] struct {
	h    *harness
	done chan struct{}
	got  T
	err  error
}

func begin[T any](h *harness, call func() (T, error)) *pending[T] {
	p := &pending[T]{h: h, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.got, p.err = call()
	}()
	return p
}

func (p *pending[T]) wait() (T, error) {
	p.h.t.Helper()
	select {
	case <-p.done:
	case <-p.h.ctx.Done():
		p.h.t.Fatal("the call did not return")
	}
	return p.got, p.err
}

func (p *pending[T]) success() T {
	p.h.t.Helper()
	got, err := p.wait()
	require.NoError(p.h.t, err)
	return got
}

func (p *pending[T]) failure() error {
	p.h.t.Helper()
	_, err := p.wait()
	require.Error(p.h.t, err)
	return err
}

// stillWaits fails if the call has returned.
func (p *pending[T]) stillWaits() {
	p.h.t.Helper()
	select {
	case <-p.done:
		p.h.t.Fatalf("the call returned: %v, %v", p.got, p.err)
	default:
	}
}

// cancelled gives up when the call waits, and expects that it says so.
func (p *pending[T]) cancelled(cancel context.CancelFunc) {
	p.h.t.Helper()
	p.stillWaits()
	cancel()
	require.ErrorIs(p.h.t, p.failure(), context.Canceled)
}

// got returns what a call must have given.
func got[T any](h *harness, v T, err error) T {
	h.t.Helper()
	require.NoError(h.t, err)
	return v
}

// lookout notes what a client watches.
type lookout struct {
	mu      sync.Mutex
	watches map[int64]string // protected by mu; by the id that the client gave
	changed chan struct{}    // protected by mu; closed, and made anew, at each change
}

func newLookout() *lookout {
	return &lookout{watches: make(map[int64]string), changed: make(chan struct{})}
}

// config adds the lookout to a client's configuration.
func (l *lookout) config(cfg client.Config) client.Config {
	cfg.DialOptions = append(cfg.DialOptions, grpc.WithStreamInterceptor(
		func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, dial grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := dial(ctx, desc, cc, method, opts...)
			return &lookedOn{s, l}, err
		}))
	return cfg
}

type lookedOn struct {
	grpc.ClientStream
	l *lookout
}

func (s *lookedOn) SendMsg(m any) error {
	if req, ok := m.(*pb.WatchRequest); ok {
		s.l.note(req)
	}
	return s.ClientStream.SendMsg(m)
}

func (l *lookout) note(req *pb.WatchRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := req.GetCreateRequest(); c != nil {
		l.watches[c.WatchId] = string(c.Key)
		if len(c.RangeEnd) > 0 {
			l.watches[c.WatchId] += " to " + string(c.RangeEnd)
		}
	}
	if c := req.GetCancelRequest(); c != nil {
		delete(l.watches, c.WatchId)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// now returns what the client watches, and a channel that is closed when that
// changes.
func (l *lookout) now() (keys []string, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range l.watches {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys, l.changed
}

// watches waits until these are what the client watches. A key can be watched
// twice, once as one's own and once by another of the same client.
func (h *harness) watches(l *lookout, keys ...string) {
	h.t.Helper()
	for i := range keys {
		keys[i] = h.namespace + keys[i]
	}
	slices.Sort(keys)
	for {
		now, changed := l.now()
		if slices.Equal(now, keys) {
			return
		}
		select {
		case <-changed:
		case <-h.ctx.Done():
			h.t.Fatalf("the client watches %q, and not %q", now, keys)
		}
	}
}

// whenWatched returns a channel that is closed when the client watches a key, or
// the case is over.
func (h *harness) whenWatched(l *lookout, key string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			now, changed := l.now()
			if slices.Contains(now, h.namespace+key) {
				return
			}
			select {
			case <-changed:
			case <-h.ctx.Done():
				return
			}
		}
	}()
	return done
}
