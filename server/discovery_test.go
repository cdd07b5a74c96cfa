package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/internal/certtest"
	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// founding is a cluster that is founded by discovery.
type founding struct {
	t       *testing.T
	service client.Config // how to reach the service
	token   string
	dir     string
}

func newFounding(t *testing.T, service *servertest.Cluster, size string) *founding {
	f := &founding{t: t, service: client.Config{Endpoints: service.Endpoints()}, token: "token-of-" + t.Name(), dir: t.TempDir()}
	if size != "" {
		_, err := service.Client().Put(testContext(t), "/_etcd/registry/"+f.token+"/_config/size", []byte(size))
		require.NoError(t, err)
	}
	return f
}

// config returns that of the member with a name, on sockets of its own.
func (f *founding) config(name string) server.Config {
	f.t.Helper()
	cfg := server.Config{Name: name, DataDir: filepath.Join(f.dir, name)}
	cfg.Membership.Discovery = server.Discovery{Token: f.token, Endpoints: f.service.Endpoints}
	bindSockets(f.t, &cfg)
	return cfg
}

// start starts members beside each other, as each waits for the others.
func (f *founding) start(configs ...server.Config) []*server.Server {
	f.t.Helper()
	return startAll(f.t, configs...)
}

// bindSockets gives a member sockets that are bound already.
func bindSockets(t *testing.T, cfg *server.Config) {
	t.Helper()
	for _, s := range []struct {
		l    *net.Listener
		urls *[]string
	}{{&cfg.Sockets.Client, &cfg.ListenClientURLs}, {&cfg.Sockets.Peer, &cfg.ListenPeerURLs}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		*s.l, *s.urls = l, []string{"http://" + l.Addr().String()}
	}
}

// startAll starts members beside each other, and returns when they have joined.
func startAll(t *testing.T, configs ...server.Config) []*server.Server {
	t.Helper()
	members, errs := make([]*server.Server, len(configs)), make([]error, len(configs))
	var group sync.WaitGroup
	for i, cfg := range configs {
		group.Go(func() { members[i], errs[i] = server.Start(testContext(t), cfg) })
	}
	group.Wait()
	for i, err := range errs {
		require.NoError(t, err)
		t.Cleanup(members[i].Kill)
	}
	for _, m := range members {
		select {
		case <-m.Ready():
		case <-m.Done():
			require.NoError(t, m.Err())
		case <-testContext(t).Done():
			t.Fatal("the members did not find each other")
		}
	}
	return members
}

// Three members that know nothing of each other found one cluster, each with the id
// that etcd would give it; a fourth comes too late. Those who have data need no
// discovery any more, and one who lost its data is told so.
func TestDiscovery(t *testing.T) {
	service := servertest.One(t)
	f := newFounding(t, service, "3")
	configs := []server.Config{f.config("a"), f.config("b"), f.config("c")}
	members := f.start(configs...)
	ctx := testContext(t)
	list, err := members[0].Client().Members(ctx)
	require.NoError(t, err)
	require.Len(t, list, 3)
	for _, m := range list {
		res, err := service.Client().GetOne(ctx, fmt.Sprintf("/_etcd/registry/%s/members/%x", f.token, m.ID))
		require.NoError(t, err)
		require.Equal(t, m.Name+"="+m.PeerURLs[0], string(res.Value))
	}
	_, err = members[1].Client().Put(ctx, "a", []byte("1"))
	require.NoError(t, err)

	_, err = server.Start(ctx, f.config("d"))
	require.ErrorIs(t, err, server.ErrDiscovery)
	require.ErrorContains(t, err, "cluster is full")
	require.NoDirExists(t, filepath.Join(f.dir, "d", "member"))

	members[2].Kill()
	again := configs[2]
	again.Sockets = server.Sockets{}
	require.NoError(t, os.Rename(again.DataDir, again.DataDir+".old"))
	_, err = server.Start(ctx, again)
	require.ErrorIs(t, err, server.ErrStartedBefore)
	require.NoError(t, os.RemoveAll(again.DataDir))
	require.NoError(t, os.Rename(again.DataDir+".old", again.DataDir))
	service.Kill(0)
	got, err := f.start(again)[0].Client().GetOne(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, "1", string(got.Value))
}

// A member that waits for others goes on waiting while the service is away, ends when
// its start is given up, and counts once when it is started again.
func TestDiscoveryWaits(t *testing.T) {
	service := servertest.One(t)
	f := newFounding(t, service, "2")
	var log logBuffer
	cfg := f.config("a")
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(testContext(t))
	ended := make(chan error, 1)
	go func() {
		_, err := server.Start(ctx, cfg)
		ended <- err
	}()
	log.await(t, "waiting for members to come")
	service.Kill(0)
	service.Restart(0)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.NoDirExists(t, filepath.Join(f.dir, "a", "member"))

	again := cfg
	again.Sockets = server.Sockets{}
	members := f.start(again, f.config("b"))
	list, err := members[0].Client().Members(testContext(t))
	require.NoError(t, err)
	require.Len(t, list, 2)
}

// What is wrong at the service is said, and nothing is founded.
func TestDiscoveryRefuses(t *testing.T) {
	service := servertest.One(t)
	for size, want := range map[string]string{
		"": "size key not found", "many": `size key is bad: "many"`, "0": "size key is bad", "1001": "size key is bad",
	} {
		f := newFounding(t, service, "")
		f.token += "-" + size
		if size != "" {
			_, err := service.Client().Put(testContext(t), "/_etcd/registry/"+f.token+"/_config/size", []byte(size))
			require.NoError(t, err)
		}
		_, err := server.Start(testContext(t), f.config("a"))
		require.ErrorIs(t, err, server.ErrDiscovery)
		require.ErrorContains(t, err, want)
		require.NoDirExists(t, filepath.Join(f.dir, "a", "member"))
	}
	f := newFounding(t, service, "1")
	existing := f.config("a")
	existing.InitialClusterState = "existing"
	_, err := server.Start(testContext(t), existing)
	require.ErrorContains(t, err, "discovery is for new clusters")
	for _, tt := range []struct {
		change func(*server.Config)
		want   string
	}{
		{func(c *server.Config) { c.Membership.Discovery.Token = "" }, "both --discovery-token and --discovery-endpoints must be set"},
		{func(c *server.Config) { c.Membership.Discovery.Endpoints = nil }, "both --discovery-token and --discovery-endpoints must be set"},
		{func(c *server.Config) { c.Membership.Discovery.Endpoints = []string{" "} }, "must not contain empty endpoints"},
		{func(c *server.Config) { c.InitialCluster = "a=http://127.0.0.1:1" }, "multiple discovery or bootstrap flags are set"},
		{func(c *server.Config) { c.Membership.Discovery.Username = "u" }, "needs a password"},
		{func(c *server.Config) { c.Membership.Discovery.TLS.CA = "/no/such/file" }, "no such file"},
	} {
		cfg := f.config("a")
		tt.change(&cfg)
		_, err := server.Start(testContext(t), cfg)
		require.ErrorContains(t, err, tt.want)
	}
}

// The service may ask for TLS with certificates of both sides, and for a user.
func TestDiscoveryIsSecure(t *testing.T) {
	authority := certtest.New(t)
	pair := authority.Issue("service", "127.0.0.1", "localhost")
	service := servertest.One(t, servertest.WithConfig(func(c *server.Config) {
		cheap(c)
		c.ClientTLS = mutual(authority, pair)
	}))
	service.UseTLS(knows(authority, pair))
	f := newFounding(t, service, "1")
	ctx, c := testContext(t), service.Client()
	for _, err := range []error{
		c.AddUser(ctx, "root", rootPassword), c.AddRole(ctx, "root"), c.GrantRole(ctx, "root", "root"), c.EnableAuth(ctx),
	} {
		require.NoError(t, err)
	}
	cfg := f.config("a")
	d := &cfg.Membership.Discovery
	d.Endpoints = []string{hostOf(d.Endpoints[0])}
	d.TLS = client.TLSFiles{CA: authority.File(), Cert: pair.Cert, Key: pair.Key}
	d.Username, d.Password = "root", "wrong"
	_, err := server.Start(ctx, cfg)
	require.ErrorIs(t, err, client.ErrUnauthenticated)
	good := f.config("a")
	d.Password = rootPassword
	good.Membership.Discovery = *d
	require.Len(t, f.start(good), 1)
}
