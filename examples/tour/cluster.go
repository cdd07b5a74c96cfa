package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/server"
)

// cluster is a few members in this process, each with sockets and a disk
// folder of its own. It is used by one goroutine.
type cluster struct {
	configs []server.Config
	members []*server.Server // nil while a member is down
}

// startTimeout bounds how long a member may take to join.
const startTimeout = 10 * time.Second

// startCluster starts a member for each name, with its data below dir, and
// returns once all of them have joined.
func startCluster(ctx context.Context, dir string, names ...string) (*cluster, error) {
	c := &cluster{members: make([]*server.Server, len(names))}
	var initial []string
	for _, name := range names {
		// A socket that is bound now keeps its port until the member has it:
		// everybody has to be told the addresses of all before the start.
		cfg := server.Config{Name: name, DataDir: filepath.Join(dir, name)}
		var err, perr error
		cfg.Sockets.Client, err = net.Listen("tcp", "127.0.0.1:0")
		cfg.Sockets.Peer, perr = net.Listen("tcp", "127.0.0.1:0")
		if err := errors.Join(err, perr); err != nil {
			return nil, err
		}
		cfg.ListenClientURLs = []string{"http://" + cfg.Sockets.Client.Addr().String()}
		cfg.ListenPeerURLs = []string{"http://" + cfg.Sockets.Peer.Addr().String()}
		initial = append(initial, name+"="+cfg.ListenPeerURLs[0])
		c.configs = append(c.configs, cfg)
	}
	for i := range c.configs {
		c.configs[i].InitialCluster = strings.Join(initial, ",")
		if err := c.start(ctx, i); err != nil {
			return nil, errors.Join(err, c.stop())
		}
	}
	for i := range c.members {
		if err := c.joined(ctx, i); err != nil {
			return nil, errors.Join(err, c.stop())
		}
	}
	return c, nil
}

// start starts member i, on the addresses and the data that it had before.
func (c *cluster) start(ctx context.Context, i int) error {
	m, err := server.Start(ctx, c.configs[i])
	if err != nil {
		return fmt.Errorf("start member %s: %w", c.configs[i].Name, err)
	}
	c.configs[i].Sockets = server.Sockets{} // served, and closed with the member
	c.members[i] = m
	return nil
}

// joined waits until member i has found its cluster.
func (c *cluster) joined(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	m := c.members[i]
	select {
	case <-m.Ready():
		return nil
	case <-m.Done():
		return fmt.Errorf("member %s ended: %w", c.configs[i].Name, m.Err())
	case <-ctx.Done():
		return fmt.Errorf("member %s did not join: %w", c.configs[i].Name, ctx.Err())
	}
}

// leader returns the number of the member that leads, as member i sees it.
func (c *cluster) leader(ctx context.Context, i int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	id, err := c.members[i].WaitLeader(ctx)
	if err != nil {
		return 0, fmt.Errorf("wait for a leader: %w", err)
	}
	for j, m := range c.members {
		if m != nil && m.ID() == id {
			return j, nil
		}
	}
	return 0, fmt.Errorf("the leader %x is none of the members", id)
}

// kill ends member i as the end of its process would: nothing is handed over,
// nothing is written, and nobody is told.
func (c *cluster) kill(i int) {
	c.members[i].Kill()
	c.members[i] = nil
}

// stop ends the members that run, in order, and returns when they are gone.
func (c *cluster) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var errs []error
	for i, m := range c.members {
		if m != nil {
			errs = append(errs, m.Stop(ctx))
			c.members[i] = nil
		}
	}
	return errors.Join(errs...)
}

// endpoints are where clients connect, member by member.
func (c *cluster) endpoints() []string {
	var endpoints []string
	for _, cfg := range c.configs {
		endpoints = append(endpoints, strings.TrimPrefix(cfg.ListenClientURLs[0], "http://"))
	}
	return endpoints
}
