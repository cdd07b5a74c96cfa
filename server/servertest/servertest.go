// Package servertest runs members inside a Go test: on free loopback ports,
// with real sockets and real disks, ended with the test.
//
//	func TestOrders(t *testing.T) {
//		c := servertest.One(t).Client()   // or Three(t), for a cluster
//		...
//	}
//
// A cluster can lose a member ([Cluster.Kill], [Cluster.Stop]) and get it back
// ([Cluster.Restart]), so a user's test can show what his program does then.
package servertest

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
)

// startTimeout bounds how long a member may take to join.
const startTimeout = 30 * time.Second

// Option changes the configuration that every member of a cluster gets.
type Option func(*server.Config)

// WithConfig lets f change what it likes but names, addresses and directories.
func WithConfig(f func(*server.Config)) Option { return f }

// WithLog sends the members' logs to the test's log.
func WithLog(t testing.TB) Option {
	return func(c *server.Config) {
		c.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
}

// Cluster is a running cluster. It may be used from several goroutines, but one
// member must not be stopped and restarted at the same time, and no member be
// added meanwhile.
type Cluster struct {
	t       testing.TB
	dir     string
	opts    []Option
	configs []server.Config // grows when a member is added, which is done alone

	mu      sync.Mutex // protects the fields below
	members []*server.Server
	client  *client.Client
	tls     *tls.Config
}

// One returns a cluster of one member that is ready.
func One(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	return New(t, 1, opts...)
}

// Three returns a cluster of three members that are ready.
func Three(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	return New(t, 3, opts...)
}

// New returns a cluster of n members that are ready. The test fails if they do
// not come up.
func New(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t, dir: t.TempDir(), opts: opts, members: make([]*server.Server, n)}
	c.configure(n)
	t.Cleanup(c.stopAll)
	for i := range n {
		if err := c.start(i); err != nil {
			t.Fatalf("start member %d: %v", i, err)
		}
	}
	for i := range n {
		c.WaitReady(i)
	}
	return c
}

// configure binds the sockets first, because every member must be told the
// addresses of all.
func (c *Cluster) configure(n int) {
	c.t.Helper()
	var initial []string
	for i := range n {
		cfg := server.Config{Name: fmt.Sprintf("m%d", i), DataDir: filepath.Join(c.dir, fmt.Sprintf("m%d", i))}
		for _, opt := range c.opts {
			opt(&cfg)
		}
		cfg.Sockets = server.Sockets{Client: c.bind("127.0.0.1:0"), Peer: c.bind("127.0.0.1:0")}
		cfg.ListenClientURLs = []string{scheme(cfg.ClientTLS) + cfg.Sockets.Client.Addr().String()}
		cfg.ListenPeerURLs = []string{scheme(cfg.PeerTLS) + cfg.Sockets.Peer.Addr().String()}
		initial = append(initial, cfg.Name+"="+cfg.ListenPeerURLs[0])
		c.configs = append(c.configs, cfg)
	}
	for i := range c.configs {
		c.configs[i].InitialCluster = strings.Join(initial, ",")
	}
}

// scheme is that of the URLs of connections which t secures.
func scheme(t server.TLS) string {
	if t.CertFile != "" || t.Auto {
		return "https://"
	}
	return "http://"
}

// UseTLS sets what Client connects with, for members whose ClientTLS is set. It
// is called before Client.
func (c *Cluster) UseTLS(conf *tls.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tls = conf
}

func (c *Cluster) bind(addr string) net.Listener {
	c.t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		c.t.Fatalf("listen: %v", err)
	}
	return l
}

func (c *Cluster) start(i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	m, err := server.Start(ctx, c.configs[i])
	// The sockets that were bound ahead serve one start; a restart listens on
	// their addresses again.
	c.configs[i].Sockets = server.Sockets{}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members[i] = m
	return nil
}

// Client returns a client of all members, closed with the test.
func (c *Cluster) Client() *client.Client {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		cl, err := client.New(client.Config{Endpoints: c.Endpoints(), TLS: c.tls})
		if err != nil {
			c.t.Fatalf("connect: %v", err)
		}
		c.t.Cleanup(func() { _ = cl.Close() })
		c.client = cl
	}
	return c.client
}

// Endpoints returns the members' client addresses, in order: "host:port", or
// "https://host:port" where ClientTLS is set.
func (c *Cluster) Endpoints() []string {
	var endpoints []string
	for _, cfg := range c.configs {
		endpoints = append(endpoints, strings.TrimPrefix(cfg.ListenClientURLs[0], "http://"))
	}
	return endpoints
}

// Member returns member i, nil while it is down.
func (c *Cluster) Member(i int) *server.Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members[i]
}

// Leader returns the number of the member that leads, once there is one. The
// test fails if there is none in time.
func (c *Cluster) Leader() int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for i := range c.configs {
		m := c.Member(i)
		if m == nil {
			continue
		}
		id, err := m.WaitLeader(ctx)
		if err != nil {
			continue
		}
		for j := range c.configs {
			if other := c.Member(j); other != nil && other.ID() == id {
				return j
			}
		}
	}
	c.t.Fatalf("no leader within %s", startTimeout)
	return -1
}

// WaitReady returns once member i has joined. The test fails if it does not.
func (c *Cluster) WaitReady(i int) {
	c.t.Helper()
	m := c.Member(i)
	select {
	case <-m.Ready():
	case <-m.Done():
		c.t.Fatalf("member %d ended: %v", i, m.Err())
	case <-time.After(startTimeout):
		c.t.Fatalf("member %d has not joined within %s", i, startTimeout)
	}
}

// Kill ends member i abruptly, as a crash would.
func (c *Cluster) Kill(i int) {
	if m := c.take(i); m != nil {
		m.Kill()
	}
}

// Stop ends member i in order: a leader hands over first.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	if m := c.take(i); m != nil {
		if err := m.Stop(context.Background()); err != nil {
			c.t.Errorf("stop member %d: %v", i, err)
		}
	}
}

// Restart starts member i again on its old address and data, and returns once
// it has joined.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	if err := c.start(i); err != nil {
		c.t.Fatalf("restart member %d: %v", i, err)
	}
	c.WaitReady(i)
}

func (c *Cluster) take(i int) *server.Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.members[i]
	c.members[i] = nil
	return m
}

// stopAll ends what still runs, all at once: the last members of a cluster have
// nobody to hand over to.
func (c *Cluster) stopAll() {
	var wg sync.WaitGroup
	for i := range c.configs {
		wg.Go(func() { c.Kill(i) })
		for _, l := range []net.Listener{c.configs[i].Sockets.Client, c.configs[i].Sockets.Peer} {
			if l != nil {
				_ = l.Close()
			}
		}
	}
	wg.Wait()
}
