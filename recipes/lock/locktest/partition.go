package locktest

import (
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// abyss is a network that, from some moment on, takes everything and delivers
// nothing, without telling anybody.
type abyss struct{ opened chan struct{} }

// dial is a client.Config.Dialer.
func (a *abyss) dial(ctx context.Context, endpoint string) (net.Conn, error) {
	address := endpoint
	if u, err := url.Parse(endpoint); err == nil && strings.Contains(endpoint, "://") {
		address = u.Host
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &abyssConn{Conn: conn, opened: a.opened, closed: make(chan struct{})}, nil
}

type abyssConn struct {
	net.Conn
	opened chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (c *abyssConn) Write(b []byte) (int, error) {
	select {
	case <-c.opened:
		return len(b), nil
	default:
		return c.Conn.Write(b)
	}
}

func (c *abyssConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	select {
	case <-c.opened:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *abyssConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// The holder's packets vanish, so it can not be told that its lease ends. It
// stops by itself, before the server gives the lock to the next one. (Consul
// 18271: the holder is told minutes later. etcd's own client counts from the
// arrival of a renewal, and looks once a second: up to a second too late.)
func testBlackhole(t *testing.T, h *harness) {
	const ttl = 3 * time.Second
	a := &abyss{opened: make(chan struct{})}
	c := h.client(client.Config{Dialer: a.dial, SessionTTL: ttl})
	held := h.acquire(lock.New(c, "job"))
	var endedAt time.Time
	ended := make(chan struct{})
	context.AfterFunc(held.Context(), func() {
		endedAt = time.Now()
		close(ended)
	})
	var states []client.State
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for state := range held.States(h.ctx) {
			states = append(states, state)
		}
	}()
	waiter := h.start(h.ctx, lock.New(h.c, "job"))
	h.awaitKeys("job/", 2)
	close(a.opened)
	next := waiter.success()
	granted := time.Now()
	require.False(t, held.Valid(), "before anybody else has the lock, the old holder knows")
	<-ended
	t.Logf("ended %v before the next holder began", granted.Sub(endedAt))
	require.ErrorIs(t, context.Cause(held.Context()), lock.ErrLost)
	require.ErrorIs(t, context.Cause(held.Context()), client.ErrSessionLost)
	<-watched
	require.Equal(t, []client.State{client.Active, client.Suspect, client.Lost}, states, "with a warning")
	require.Greater(t, next.Token(), held.Token())
	h.release(next)
}
