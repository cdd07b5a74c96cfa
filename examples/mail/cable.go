package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
)

// cable is the network of one process. Once it is cut, nothing gets through any
// more, as if the process had been killed.
type cable struct {
	mu    sync.Mutex // protects what follows
	cut   bool
	conns []net.Conn
}

var errCut = errors.New("the cable is cut")

// dial is a client.Config.Dialer.
func (c *cable) dial(ctx context.Context, endpoint string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return nil, errCut
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(endpoint, "http://"))
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

func (c *cable) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}
