package main

import (
	"context"
	"errors"
	"net"
	"sync"
)

// wire is one client's network, which can be cut.
type wire struct {
	mu    sync.Mutex // protects both
	conns []net.Conn
	down  bool
}

var errWireCut = errors.New("the network is down")

func newWire() *wire { return &wire{} }

// dial connects to a member, as client.Config.Dialer.
func (w *wire) dial(ctx context.Context, endpoint string) (net.Conn, error) {
	w.mu.Lock()
	down := w.down
	w.mu.Unlock()
	if down {
		return nil, errWireCut
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return nil, errors.Join(errWireCut, conn.Close())
	}
	w.conns = append(w.conns, conn)
	return conn, nil
}

// cut ends all connections and lets nobody connect any more.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	for _, conn := range w.conns {
		_ = conn.Close() // it is meant to break
	}
}
