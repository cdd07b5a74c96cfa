package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
)

// member is a cluster of one in this process.
type member struct {
	server   *server.Server
	endpoint string
}

// startMember starts a member with its data in dir.
func startMember(ctx context.Context, dir string) (*member, error) {
	cfg := server.Config{Name: "m0", DataDir: dir}
	var err, perr error
	cfg.Sockets.Client, err = net.Listen("tcp", "127.0.0.1:0")
	cfg.Sockets.Peer, perr = net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(err, perr); err != nil {
		return nil, err
	}
	m := &member{endpoint: "http://" + cfg.Sockets.Client.Addr().String()}
	cfg.ListenClientURLs = []string{m.endpoint}
	cfg.ListenPeerURLs = []string{"http://" + cfg.Sockets.Peer.Addr().String()}
	cfg.InitialCluster = "m0=" + cfg.ListenPeerURLs[0]
	if m.server, err = server.Start(ctx, cfg); err != nil {
		return nil, fmt.Errorf("start member: %w", err)
	}
	select {
	case <-m.server.Ready():
		return m, nil
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), m.stop())
	}
}

// connect returns a client on a cable of its own, with short sessions.
func (m *member) connect(c *cable) (*client.Client, error) {
	return client.New(client.Config{Endpoints: []string{m.endpoint}, SessionTTL: 2 * time.Second, Dialer: c.dial})
}

func (m *member) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return m.server.Stop(ctx)
}
