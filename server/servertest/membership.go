package servertest

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
)

// Add adds a member to the running cluster, as a voter or as a learner, starts
// it and returns its number once it has joined. Clients made before do not know
// it.
func (c *Cluster) Add(learner bool) int {
	c.t.Helper()
	i := c.Announce(learner)
	if err := c.start(i); err != nil {
		c.t.Fatalf("start added member %d: %v", i, err)
	}
	c.WaitReady(i)
	return i
}

// Announce adds a member to the running cluster and does not start it, which
// Restart does. It returns its number.
func (c *Cluster) Announce(learner bool) int {
	c.t.Helper()
	i := len(c.configs)
	name := fmt.Sprintf("m%d", i)
	cfg := server.Config{Name: name, DataDir: filepath.Join(c.dir, name), InitialClusterState: "existing"}
	for _, opt := range c.opts {
		opt(&cfg)
	}
	cfg.Sockets = server.Sockets{Client: c.bind("127.0.0.1:0"), Peer: c.bind("127.0.0.1:0")}
	cfg.ListenClientURLs = []string{"http://" + cfg.Sockets.Client.Addr().String()}
	cfg.ListenPeerURLs = []string{"http://" + cfg.Sockets.Peer.Addr().String()}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	added, all, err := c.Client().AddMember(ctx, cfg.ListenPeerURLs, learner)
	if err != nil {
		c.t.Fatalf("add member %d: %v", i, err)
	}
	cfg.InitialCluster = initialCluster(all, added.ID, name)
	c.configs = append(c.configs, cfg)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = append(c.members, nil)
	return i
}

// initialCluster says who the members are, in the words of Config.
func initialCluster(all []client.Member, id uint64, name string) string {
	var parts []string
	for _, m := range all {
		for _, u := range m.PeerURLs {
			if m.ID == id {
				parts = append(parts, name+"="+u)
			} else {
				parts = append(parts, fmt.Sprintf("%s=%s", orID(m), u))
			}
		}
	}
	return strings.Join(parts, ",")
}

func orID(m client.Member) string {
	if m.Name == "" {
		return fmt.Sprintf("unstarted-%x", m.ID)
	}
	return m.Name
}

// Config returns the configuration that member i is started with the next time,
// for a test to change.
func (c *Cluster) Config(i int) *server.Config { return &c.configs[i] }

// Start starts member i, which is down, and does not wait until it has joined.
// It returns what server.Start returns.
func (c *Cluster) Start(i int) (*server.Server, error) {
	if err := c.start(i); err != nil {
		return nil, err
	}
	return c.Member(i), nil
}

// Move gives member i, which is down, another peer address to listen on from its
// next start, and returns its URL. The cluster is not told.
func (c *Cluster) Move(i int) []string {
	c.t.Helper()
	l := c.bind("127.0.0.1:0")
	c.configs[i].Sockets = server.Sockets{Peer: l}
	c.configs[i].ListenPeerURLs = []string{"http://" + l.Addr().String()}
	return c.configs[i].ListenPeerURLs
}
