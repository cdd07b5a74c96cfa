package client

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
)

// Config says how to reach a cluster. Only Endpoints is required; the zero value of every other field means its default.
type Config struct {
	// Endpoints are the client addresses of the members: "host:port", "http://host:port", "https://host:port" or
	// "unix:///path". One is enough to work; all of them let the client survive the loss of a member. At most 64.
	Endpoints []string
	// Namespace is put in front of every key, and taken off every key that comes back. See [Client.Namespace].
	Namespace string
	// TLS is used for every endpoint when it is set. An "https" endpoint without it uses the system's roots.
	TLS *tls.Config
	// DialTimeout bounds one attempt to connect to one endpoint, handshakes included. Default 2 s.
	DialTimeout time.Duration
	// RequestTimeout bounds a call whose context has no deadline, so that no call waits for ever. A context that has a
	// deadline is obeyed as it is. Default 5 s.
	RequestTimeout time.Duration
	// SessionTTL is the TTL of the client's sessions when none is asked for. Rounded up to whole seconds; the server
	// may raise it. Default 10 s.
	SessionTTL time.Duration
	// Logger receives endpoint changes and session losses. Default: nothing is logged.
	Logger *slog.Logger
	// Dialer replaces the network: it gets the endpoint as it stands in Endpoints. For in-process connections and tests.
	Dialer func(ctx context.Context, endpoint string) (net.Conn, error)
	// DialOptions are added to those of every connection, so interceptors see every RPC of the client.
	DialOptions []grpc.DialOption
}

// Client talks to one cluster. It is safe for concurrent use, and meant to be shared: a program needs one.
//
// A Client made by [Client.Namespace] is a view of the same client with its own prefix.
type Client struct {
	core *core  // shared by all views
	ns   string // immutable
}

// core is what all views of a client share.
type core struct{}

// New checks the configuration and starts to connect in the background. It does not wait for a connection: a cluster
// that is down shows in the first call. The caller must Close the client.
func New(cfg Config) (*Client, error) { panic("not yet") }

// Close ends the client and all its views: its sessions are revoked (for at most a second, if no member answers), its
// watches and waiting calls end with [ErrClosed]. When it returns, nothing of the client runs any more. Further calls
// of Close do nothing.
func (c *Client) Close() error { panic("not yet") }

// Namespace returns a view of the client in which every key has the prefix in front of it: keys in requests, ranges,
// compares and transactions get it, keys in results and events lose it. Namespaces nest. Leases and sessions have none.
func (c *Client) Namespace(prefix string) *Client { return &Client{core: c.core, ns: c.ns + prefix} }

// Prefix returns what the view puts in front of keys; empty for a client without a namespace.
func (c *Client) Prefix() string { return c.ns }
