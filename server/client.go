package server

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/latchkey-go/latchkey/client"
)

// lazyClient is the member's own client, made when it is first asked for.
type lazyClient struct {
	mu     sync.Mutex // protects the fields below
	client *client.Client
	closed bool
}

// Client returns a client of this member alone, for a program that embeds it.
// It is closed with the member; the caller need not. It is nil once the member
// has ended. While users are needed it acts as root.
func (s *Server) Client() *client.Client {
	l := &s.inProcess
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil || l.closed {
		return l.client
	}
	conf := client.Config{Logger: s.log}
	for i, u := range s.listeners.advertiseClients(Config{ListenClientURLs: s.cfg.ListenClientURLs}) {
		if !isSecure(u) {
			conf.Endpoints = append(conf.Endpoints, urlOf(s.listeners.client[i]))
		}
	}
	if len(conf.Endpoints) == 0 { // the member can not tell which certificate its own listener wants
		conf.Endpoints = []string{"in-process"}
		conf.Dialer = func(context.Context, string) (net.Conn, error) { return s.front.clients.Pipe(), nil }
	}
	// Whoever has the Server in his hands has its data as well, so these calls are root's.
	conf.Token = func(context.Context) (string, error) { return s.front.tokens.Local(), nil }
	c, err := client.New(conf)
	if err != nil {
		panic(fmt.Sprintf("server: client of %v: %v", conf.Endpoints, err)) // the addresses are those it listens on
	}
	l.client = c
	return c
}

func (l *lazyClient) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.client != nil {
		_ = l.client.Close()
		l.client = nil
	}
}
