package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
)

const (
	pipedPut   = latchkeyv1.Method_METHOD_PUT
	pipedRange = latchkeyv1.Method_METHOD_RANGE
)

// onPipes is inBubble with members that serve pipes.
func onPipes(t *testing.T, n int, change func(cfg *Config), f func(ctx context.Context, fake *fakeCluster, c *Client)) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeCluster(n)
		defer fake.stop()
		for _, m := range fake.members {
			m.stop()
			m.set(func(m *fakeMember) { m.pipes = newFakePipes() })
			m.start()
		}
		cfg := fake.config()
		if change != nil {
			change(&cfg)
		}
		c, err := New(cfg)
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		synctest.Wait() // all connections and pipes stand
		f(t.Context(), fake, c)
	})
}

// puts returns how often a key was put.
func (f *fakeCluster) puts(key string) (n int) {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	for _, ev := range f.store.events {
		if string(ev.Kv.Key) == key {
			n++
		}
	}
	return n
}

func TestPipeCarriesRequests(t *testing.T) {
	onPipes(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		pipes := fake.members["a"].pipes
		_, err := c.Put(ctx, "k", []byte("v"))
		require.NoError(t, err)
		kv, err := c.GetOne(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, "v", string(kv.Value))
		_, err = c.Delete(ctx, "k")
		require.NoError(t, err)
		l, err := c.Grant(ctx, time.Minute)
		require.NoError(t, err)
		require.NoError(t, c.Revoke(ctx, l.ID))
		require.ErrorIs(t, c.Revoke(ctx, l.ID), ErrLeaseNotFound)
		for method, want := range map[latchkeyv1.Method]int{
			pipedPut: 1, pipedRange: 1, latchkeyv1.Method_METHOD_DELETE_RANGE: 1, latchkeyv1.Method_METHOD_LEASE_GRANT: 1,
			latchkeyv1.Method_METHOD_LEASE_REVOKE: 2,
		} {
			n, _ := pipes.got(method)
			require.Equal(t, want, n, method)
		}
		_, err = c.Put(ctx, "k", make([]byte, pipeRequestBytesMax+1))
		require.NoError(t, err)
		n, _ := pipes.got(pipedPut)
		require.Equal(t, 1, n, "a large request is an RPC")
	})
}

func TestPipeWhereThereIsNone(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		m := fake.members["a"]
		put := func() {
			_, err := c.Put(ctx, "k", nil)
			require.NoError(t, err)
		}
		put()
		require.Equal(t, 1, m.called("Put"))
		m.stop() // and another comes up at its address
		pipes := newFakePipes()
		m.set(func(m *fakeMember) { m.pipes = pipes })
		m.start()
		pass(2 * time.Second)
		put()
		n, _ := pipes.got(pipedPut)
		require.Equal(t, 1, n)
		m.stop()
		m.set(func(m *fakeMember) { m.pipes = nil })
		m.start()
		pass(2 * time.Second)
		put()
		n, _ = pipes.got(pipedPut)
		require.Equal(t, 1, n)
	})
}

// TestPipeBreaks: what was on a stream that broke has an unknown fate, whatever the end of the stream says.
func TestPipeBreaks(t *testing.T) {
	onPipes(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		m := fake.members["a"]
		var begun atomic.Int32
		m.set(func(m *fakeMember) {
			m.slow = func(method string) time.Duration {
				if (method == "Put" || method == "Range") && begun.Add(1) <= 2 {
					return time.Minute
				}
				return 0
			}
		})
		results := make(chan error, 2)
		go func() { _, err := c.Put(ctx, "k", nil); results <- err }()
		synctest.Wait()
		m.breakStreams() // which says that there is no leader: of the stream, not of the request
		err := <-results
		require.ErrorIs(t, err, ErrUncertain)
		require.Equal(t, 1, m.called("Put"))
		pass(2 * time.Second)
		go func() { _, err := c.Get(ctx, "k"); results <- err }()
		synctest.Wait()
		m.breakStreams()
		require.NoError(t, <-results) // a read is repeated
		require.Equal(t, 2, m.called("Range"))
	})
}

// TestPipeNotSent: requests that did not get on the stream are executed elsewhere, and none of them twice.
func TestPipeNotSent(t *testing.T) {
	onPipes(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		first := fake.using(c)
		hang := make(chan struct{})
		first.set(func(m *fakeMember) { m.hang = hang })
		const calls = 60
		results := make([]error, calls)
		var wg sync.WaitGroup
		for i := range calls {
			wg.Go(func() { _, results[i] = c.Put(ctx, fmt.Sprint(i), make([]byte, 20<<10)) })
			synctest.Wait()
		}
		first.stop()
		wg.Wait()
		certain := 0
		for i, err := range results {
			n := fake.puts(fmt.Sprint(i))
			if err == nil {
				certain++
				require.Equal(t, 1, n)
			} else {
				require.ErrorIs(t, err, ErrUncertain)
				require.LessOrEqual(t, n, 1)
			}
		}
		require.Positive(t, certain)
		require.Less(t, certain, calls)
	})
}

func TestPipeUnserved(t *testing.T) {
	onPipes(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		first := fake.using(c)
		answer := &latchkeyv1.Response{Code: uint32(codes.Unavailable), Message: "too many", Unserved: true}
		first.pipes.set(func(f *fakePipes) { f.answer = func(*latchkeyv1.Request) *latchkeyv1.Response { return answer } })
		_, err := c.Put(ctx, "k", nil)
		require.NoError(t, err)
		require.Equal(t, 1, fake.puts("k"))
		require.Zero(t, first.called("Put"))
		second := fake.using(c)
		require.NotSame(t, first, second)
		// A method that a server has not on its pipes it may have as an RPC.
		second.pipes.set(func(f *fakePipes) {
			f.answer = func(*latchkeyv1.Request) *latchkeyv1.Response {
				return &latchkeyv1.Response{Code: uint32(codes.Unimplemented), Unserved: true}
			}
		})
		before := second.called("Put")
		_, err = c.Put(ctx, "l", nil)
		require.NoError(t, err)
		require.Equal(t, before+1, second.called("Put"))
	})
}

func TestPipeCancel(t *testing.T) {
	onPipes(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		m := fake.members["a"]
		release := make(chan struct{})
		m.pipes.set(func(f *fakePipes) {
			f.answer = func(*latchkeyv1.Request) *latchkeyv1.Response { <-release; return nil }
		})
		cancelled, cancel := context.WithCancelCause(ctx)
		failed := make(chan error, 1)
		go func() { _, err := c.Put(cancelled, "k", nil); failed <- err }()
		synctest.Wait()
		why := errors.New("enough")
		require.Zero(t, took(func() {
			cancel(why)
			err := <-failed
			require.ErrorIs(t, err, ErrUncertain)
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, why)
		}))
		synctest.Wait()
		_, n := m.pipes.got(pipedPut)
		require.Equal(t, 1, n)
		m.pipes.set(func(f *fakePipes) { f.answer = nil })
		close(release)
		synctest.Wait() // the answer comes late
		_, err := c.Put(ctx, "k", nil)
		require.NoError(t, err)
		require.Equal(t, 2, fake.puts("k"))
		// What is over before it begins is not sent.
		before, _ := m.pipes.got(pipedPut)
		for range 20 {
			_, err = c.Put(cancelled, "k", nil)
			require.ErrorIs(t, err, context.Canceled)
			require.NotErrorIs(t, err, ErrUncertain)
		}
		synctest.Wait()
		after, _ := m.pipes.got(pipedPut)
		require.Equal(t, before, after)
	})
}

// TestPipeHung: a member that reads nothing keeps nobody for longer than his context allows.
func TestPipeHung(t *testing.T) {
	onPipes(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		fake.members["a"].set(func(m *fakeMember) { m.hang = make(chan struct{}) })
		const patience = 10 * time.Millisecond
		for range 50 {
			ctx, cancel := context.WithTimeout(ctx, patience)
			require.LessOrEqual(t, took(func() {
				_, err := c.Put(ctx, "k", make([]byte, 20<<10))
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}), patience)
			cancel()
		}
	})
}

// stuckStream is a stream that takes, as gRPC's, what comes while it has room, and then nothing until it is released.
type stuckStream struct {
	grpc.ClientStream
	room     *atomic.Int64
	released chan struct{}
}

func (s stuckStream) SendMsg(m any) error {
	if s.room.Load() > 0 {
		s.room.Add(-int64(len(m.([]byte))))
		return nil
	}
	<-s.released
	return errors.New("too late")
}

// TestPipeDirectNeverBlocks: who sends by himself does not count as read what others gave up.
func TestPipeDirectNeverBlocks(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, _ *fakeCluster, c *Client) {
		stream := stuckStream{room: new(atomic.Int64), released: make(chan struct{})}
		stream.room.Store(64 << 10)
		p := &pipe{core: c.core, ep: c.core.pool.endpoints[0], stream: stream, calls: make(map[uint64]*pipeCall), max: 1000}
		timer := time.AfterFunc(time.Second, func() { close(stream.released) })
		for range 10 {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			require.Equal(t, 10*time.Millisecond, took(func() {
				_, _, err := p.do(ctx, request{body: &pb.PutRequest{Value: make([]byte, 20<<10)}}, pipedPut, new(pb.PutResponse))
				require.Error(t, err)
			}))
			cancel()
		}
		require.True(t, timer.Stop())
		close(stream.released)
	})
}

// TestPipeHungQueue: what waits for a member that reads nothing is bounded.
func TestPipeHungQueue(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, _ *fakeCluster, c *Client) {
		stream := stuckStream{room: new(atomic.Int64), released: make(chan struct{})}
		defer close(stream.released)
		p := &pipe{core: c.core, ep: c.core.pool.endpoints[0], stream: stream, calls: make(map[uint64]*pipeCall), max: 1000}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		var declined atomic.Int32
		for range 200 {
			wg.Go(func() {
				r := request{body: &pb.PutRequest{Value: make([]byte, 50<<10)}}
				if taken, _, _ := p.do(ctx, r, pipedPut, new(pb.PutResponse)); !taken {
					declined.Add(1)
				}
			})
		}
		wg.Wait()
		require.Positive(t, declined.Load())
		p.mu.Lock()
		defer p.mu.Unlock()
		// Whoever sends may have taken a message meanwhile.
		require.Greater(t, p.queued, pipeQueueBytes-pipeBatchBytes-pipeRequestBytesMax)
		require.LessOrEqual(t, p.queued, pipeQueueBytes+pipeRequestBytesMax)
		require.Empty(t, p.calls)
	})
}

// TestPipeCloses: a server that wants no more still answers what it has; what is new is an RPC until there is another
// pipe.
func TestPipeCloses(t *testing.T) {
	onPipes(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		m := fake.members["a"]
		release := make(chan struct{})
		m.pipes.set(func(f *fakePipes) {
			f.answer = func(*latchkeyv1.Request) *latchkeyv1.Response { <-release; return nil }
		})
		results := make(chan error, 10)
		for range cap(results) {
			go func() { _, err := c.Put(ctx, "k", nil); results <- err }()
		}
		synctest.Wait()
		m.pipes.set(func(f *fakePipes) {
			close(f.closing)
			f.closing, f.answer = make(chan struct{}), nil
		})
		synctest.Wait()
		_, err := c.Put(ctx, "l", nil)
		require.NoError(t, err)
		n, _ := m.pipes.got(pipedPut)
		require.Equal(t, cap(results), n)
		close(release)
		for range cap(results) {
			require.NoError(t, <-results)
		}
		pass(2 * pipeRetry)
		_, err = c.Put(ctx, "l", nil)
		require.NoError(t, err)
		n, _ = m.pipes.got(pipedPut)
		require.Equal(t, cap(results)+1, n)
		require.Equal(t, 2, m.pipes.opened)
	})
}

func TestPipeTokens(t *testing.T) {
	users := func(cfg *Config) { cfg.Username, cfg.Password = "u", "p" }
	onPipes(t, 1, users, func(ctx context.Context, fake *fakeCluster, c *Client) {
		pipes := fake.members["a"].pipes
		invalid := ""
		pipes.set(func(f *fakePipes) {
			f.answer = func(r *latchkeyv1.Request) *latchkeyv1.Response {
				if r.GetToken() != invalid {
					return nil
				}
				return &latchkeyv1.Response{Code: uint32(codes.Unauthenticated), Message: rpctypes.ErrGRPCInvalidAuthToken.Error()[len("rpc error: code = Unauthenticated desc = "):]}
			}
		})
		for range 2 {
			_, err := c.Put(ctx, "k", nil)
			require.NoError(t, err)
		}
		pipes.set(func(*fakePipes) { invalid = "token 1" })
		_, err := c.Put(ctx, "k", nil)
		require.NoError(t, err)
		require.Equal(t, []string{"token 1", "token 1", "token 1", "token 2"}, pipes.tokens)
	})
}

func TestTokenFromElsewhere(t *testing.T) {
	var token string
	var failure error
	give := func(cfg *Config) {
		cfg.Token = func(context.Context) (string, error) { return token, failure }
	}
	for name, run := range map[string]func(*testing.T, int, func(*Config), func(context.Context, *fakeCluster, *Client)){
		"pipes": onPipes, "RPCs": inBubble,
	} {
		t.Run(name, func(t *testing.T) {
			run(t, 1, give, func(ctx context.Context, fake *fakeCluster, c *Client) {
				m := fake.members["a"]
				for _, token = range []string{"", "one", "two"} {
					_, err := c.Put(ctx, "k", nil)
					require.NoError(t, err)
				}
				if m.pipes != nil {
					require.Equal(t, []string{"", "one", "two"}, m.pipes.tokens)
				}
				failure = errors.New("the provider is down")
				defer func() { failure = nil }()
				before := m.called("Put")
				_, err := c.Put(ctx, "k", nil)
				require.ErrorIs(t, err, ErrUnauthenticated)
				require.NotErrorIs(t, err, ErrUncertain)
				require.ErrorContains(t, err, "the provider is down")
				require.Equal(t, before, m.called("Put"))
			})
		})
	}
	_, err := New(Config{Endpoints: []string{"x"}, Username: "u", Token: func(context.Context) (string, error) { return "", nil }})
	require.ErrorContains(t, err, "both")
}

func TestPipeIsNotForAll(t *testing.T) {
	t.Run("metadata of the caller's own", func(t *testing.T) {
		onPipes(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
			_, err := c.Put(metadata.AppendToOutgoingContext(ctx, "a", "b"), "k", nil)
			require.NoError(t, err)
			n, _ := fake.members["a"].pipes.got(pipedPut)
			require.Zero(t, n)
		})
	})
	t.Run("DialOptions", func(t *testing.T) {
		seen := 0
		options := func(cfg *Config) {
			cfg.DialOptions = []grpc.DialOption{grpc.WithUnaryInterceptor(func(
				ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption,
			) error {
				if strings.HasSuffix(method, "/Put") {
					seen++
				}
				return next(ctx, method, req, reply, cc, opts...)
			})}
		}
		onPipes(t, 1, options, func(ctx context.Context, fake *fakeCluster, c *Client) {
			_, err := c.Put(ctx, "k", nil)
			require.NoError(t, err)
			require.Equal(t, 1, seen)
			require.Zero(t, fake.members["a"].pipes.opened)
		})
	})
}

// TestPipeManyAtOnce: callers that give up at any moment, streams that break, and nothing that is done twice.
func TestPipeManyAtOnce(t *testing.T) {
	onPipes(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		for _, m := range fake.members {
			m.set(func(m *fakeMember) { m.slow = func(string) time.Duration { return rand.N(2 * time.Millisecond) } })
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		outcomes := make(map[string]int)
		for i := range 40 {
			wg.Go(func() {
				for k := range 30 {
					ctx, cancel := context.WithTimeout(ctx, rand.N(4*time.Millisecond))
					key := fmt.Sprint(i, "/", k)
					_, err := c.Put(ctx, key, make([]byte, rand.N(5000)))
					cancel()
					n := fake.puts(key)
					mu.Lock()
					switch {
					case err == nil && n == 1:
						outcomes["done"]++
					case errors.Is(err, ErrUncertain) && n <= 1:
						outcomes["uncertain"]++
					case err != nil && n == 0:
						outcomes["not done"]++
					default:
						t.Errorf("%d times, %v", n, err)
					}
					mu.Unlock()
				}
			})
		}
		for range 5 {
			pass(3 * time.Millisecond)
			fake.using(c).breakStreams()
		}
		wg.Wait()
		require.Greater(t, outcomes["done"], 50)
		require.Greater(t, outcomes["uncertain"], 50)
	})
}

// TestPipeWhileClosing: a session is revoked though many calls are under way on the pipe.
func TestPipeWhileClosing(t *testing.T) {
	onPipes(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		_, err := c.Session(ctx)
		require.NoError(t, err)
		fake.members["a"].set(func(m *fakeMember) {
			m.slow = func(method string) time.Duration {
				if method == "Put" {
					return time.Minute
				}
				return 0
			}
		})
		const calls = 20
		results := make(chan error, calls)
		for range calls {
			go func() { _, err := c.Put(ctx, "k", nil); results <- err }()
		}
		synctest.Wait()
		require.Less(t, took(func() { require.NoError(t, c.Close()) }), closeTimeout)
		for range calls {
			err := <-results
			require.ErrorIs(t, err, ErrClosed)
			require.ErrorIs(t, err, ErrUncertain)
		}
		fake.store.mu.Lock()
		defer fake.store.mu.Unlock()
		require.Empty(t, fake.store.leases)
	})
}

// FuzzPipeResponses: the client understands answers as the generated code does.
func FuzzPipeResponses(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0x06, 0x08, 0x01, 0x12, 0x00, 0x28, 0x01, 0x10, 0x05, 0x18, 0x01})
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &pipe{core: new(core), ep: new(endpoint), calls: make(map[uint64]*pipeCall), sending: true}
		var want latchkeyv1.Responses
		wantErr := proto.Unmarshal(data, &want)
		for _, r := range want.GetResponses() {
			p.calls[r.GetId()] = &pipeCall{done: make(chan struct{}, 1)}
		}
		calls := make(map[uint64]*pipeCall)
		for id, call := range p.calls {
			calls[id] = call
		}
		err := p.received(data)
		if wantErr != nil {
			return // it may be laxer, as text need not be valid
		}
		require.NoError(t, err)
		require.Equal(t, want.GetClosing(), p.closing)
		seen := make(map[uint64]bool)
		for _, r := range want.GetResponses() {
			if seen[r.GetId()] {
				continue
			}
			seen[r.GetId()] = true
			require.Equal(t, !r.GetUnserved(), calls[r.GetId()].sent)
			require.Equal(t, string(r.GetBody()), string(calls[r.GetId()].body))
		}
	})
}
