package server

import (
	"fmt"
	"net/url"
	"sync"

	"google.golang.org/grpc"

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
	var endpoints []string
	for _, u := range s.listeners.advertiseClients(Config{}) {
		if parsed, err := url.Parse(u); err == nil {
			endpoints = append(endpoints, parsed.Host)
		}
	}
	c, err := client.New(client.Config{
		Endpoints: endpoints, Logger: s.log,
		DialOptions: []grpc.DialOption{grpc.WithPerRPCCredentials(localToken{s.front.tokens})},
	})
	if err != nil {
		panic(fmt.Sprintf("server: client of %v: %v", endpoints, err)) // the addresses are those it listens on
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
