package clienttest

import (
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
)

// Link is a network whose connections can be cut, and kept from coming back.
type Link struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{} // protected by mu
	up    chan struct{}         // protected by mu; closed while connections can be made
}

// NewLink returns a link that works.
func NewLink() *Link {
	l := &Link{conns: make(map[net.Conn]struct{}), up: make(chan struct{})}
	close(l.up)
	return l
}

// Dial is a client.Config.Dialer.
func (l *Link) Dial(ctx context.Context, endpoint string) (net.Conn, error) {
	l.mu.Lock()
	up := l.up
	l.mu.Unlock()
	select {
	case <-up:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	network, address := "tcp", endpoint
	if u, err := url.Parse(endpoint); err == nil && strings.Contains(endpoint, "://") {
		address = u.Host
		if u.Scheme == "unix" {
			network, address = "unix", u.Host+u.Path
		}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[conn] = struct{}{}
	return conn, nil
}

// Cut closes all connections and returns how many there were.
func (l *Link) Cut() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cutLocked()
}

func (l *Link) cutLocked() int {
	n := len(l.conns)
	for conn := range l.conns {
		_ = conn.Close()
	}
	clear(l.conns)
	return n
}

// Down cuts all connections, and lets new ones wait for restore.
func (l *Link) Down() (restore func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	up := make(chan struct{})
	l.up = up
	l.cutLocked()
	return func() { close(up) }
}
