package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// Defaults and bounds of Config.
const (
	defaultDialTimeout    = 2 * time.Second
	defaultRequestTimeout = 5 * time.Second
	defaultSessionTTL     = 10 * time.Second
	endpointsMax          = 64
	// closeTimeout bounds the revocation of sessions in Close.
	closeTimeout = time.Second
)

// Config says how to reach a cluster. Only Endpoints is required; the zero value of every other field means its default.
type Config struct {
	// Endpoints are the client addresses of the members: "host:port", "http://host:port", "https://host:port",
	// "unix:///path", or "unixs:///path" for TLS on that. One is enough to work; all of them let the client survive the loss of a member. At most 64.
	Endpoints []string
	// Namespace is put in front of every key, and taken off every key that comes back. See [Client.Namespace].
	Namespace string
	// Username and Password, if the first is not empty, are whose calls these are on a cluster that needs users. Where it
	// does not, or not yet, they have no effect.
	Username, Password string
	// Token returns the token that is sent with each request, for who has it from elsewhere, such as a JWT of an identity
	// provider. It is called for each request and stream, with their contexts, so it must be fast and is to return a new
	// token before the old one ends; "" sends none. Its error, as one of [ErrUnauthenticated], fails the request, which is
	// not sent. Not with Username.
	Token func(ctx context.Context) (string, error)
	// TLS is used for every endpoint when it is set; [TLSFiles] makes one. An "https" endpoint without it uses the system's
	// roots. Each server must have a certificate for the host of its own endpoint, or localhost at a unix socket, unless
	// ServerName says otherwise.
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
	// DialOptions are added to those of every connection, so interceptors see every RPC of the client: with any of them
	// each request is an RPC of its own, also where the server would take many on one stream.
	DialOptions []grpc.DialOption
}

// withDefaults checks the configuration and fills in what is not set.
func (cfg Config) withDefaults() (Config, error) {
	if len(cfg.Endpoints) == 0 {
		return cfg, fmt.Errorf("client: Config.Endpoints is empty")
	}
	if len(cfg.Endpoints) > endpointsMax {
		return cfg, fmt.Errorf("client: Config.Endpoints has %d elements, at most %d are allowed", len(cfg.Endpoints), endpointsMax)
	}
	if cfg.Token != nil && cfg.Username != "" {
		return cfg, fmt.Errorf("client: Config.Token and Config.Username are both set")
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"DialTimeout", &cfg.DialTimeout, defaultDialTimeout},
		{"RequestTimeout", &cfg.RequestTimeout, defaultRequestTimeout},
		{"SessionTTL", &cfg.SessionTTL, defaultSessionTTL},
	} {
		if *d.value < 0 {
			return cfg, fmt.Errorf("client: Config.%s is negative: %v", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, nil
}

// Client talks to one cluster. It is safe for concurrent use, and meant to be shared: a program needs one.
//
// A Client made by [Client.Namespace] is a view of the same client with its own prefix.
type Client struct {
	core *core  // shared by all views
	ns   string // immutable
}

// core is what all views of a client share. Every goroutine of the client is started by start and waited for by close.
type core struct {
	cfg       Config
	log       *slog.Logger
	pool      *pool
	guide     *guide
	transport transport
	clock     clock
	keeper    *keeper
	watches   [2]*watchHub // with and without a leader required
	own       ownSession
	markers   markers
	seen      atomic.Int64 // see Seen

	ctx    context.Context // done, with ErrClosed, when the client is closed; parent of the background work only
	cancel context.CancelCauseFunc

	mu      sync.Mutex // protects closing
	closing bool
	closed  chan struct{} // closed when Close is through
	wg      sync.WaitGroup
}

// New checks the configuration and starts to connect in the background. It does not wait for a connection: a cluster
// that is down shows in the first call. The caller must Close the client.
func New(cfg Config) (*Client, error) {
	co, err := newCore(cfg, pipeTransport{}, systemClock())
	if err != nil {
		return nil, err
	}
	return &Client{core: co, ns: cfg.Namespace}, nil
}

func newCore(cfg Config, tr transport, cl clock) (*core, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	_, piped := tr.(pipeTransport)
	switch {
	case cfg.Username != "":
		tr = newAuthenticated(tr, cfg.Username, cfg.Password)
	case cfg.Token != nil:
		tr = tokened{tr, cfg.Token}
	}
	co := &core{cfg: cfg, log: cfg.Logger, transport: tr, clock: cl, closed: make(chan struct{})}
	co.ctx, co.cancel = context.WithCancelCause(context.Background())
	co.keeper = newKeeper(co)
	co.guide = newGuide(co)
	co.watches = [2]*watchHub{newWatchHub(co, true), newWatchHub(co, false)}
	for _, h := range co.watches {
		h.user = cfg.Username != "" || cfg.Token != nil
	}
	co.own.init()
	if co.pool, err = newPool(co); err != nil {
		return nil, err
	}
	for _, ep := range co.pool.endpoints {
		co.start(func() { co.pool.supervise(co.ctx, ep) })
		if piped && len(cfg.DialOptions) == 0 {
			co.start(func() { co.keepPipe(co.ctx, ep) })
		}
	}
	return co, nil
}

// start runs f on a goroutine that close waits for, unless the client is closing already. f must end when co.ctx does.
func (co *core) start(f func()) bool {
	co.mu.Lock()
	defer co.mu.Unlock()
	if co.closing {
		return false
	}
	co.wg.Go(f)
	return true
}

// Close ends the client and all its views: its sessions are revoked (for at most a second, if no member answers), its
// watches and waiting calls end with [ErrClosed]. When it returns, nothing of the client runs any more. Further calls
// of Close do nothing but wait for the first.
func (c *Client) Close() error {
	co := c.core
	co.mu.Lock()
	first := !co.closing
	co.closing = true
	co.mu.Unlock()
	if !first {
		<-co.closed
		return nil
	}
	defer close(co.closed)
	// Sessions end first for this process, so that nobody relies on keys that the revocation is about to delete.
	ids := co.keeper.closeAll()
	ctx, cancel := context.WithTimeout(co.ctx, closeTimeout)
	for _, id := range ids {
		if err := co.revoke(ctx, id); err != nil {
			co.log.Warn("session was not revoked; its lease ends by itself", "lease", id.String(), "error", err)
		}
	}
	cancel()
	co.cancel(ErrClosed)
	co.pool.close() // ends what is in flight
	co.wg.Wait()
	co.pool.close() // a connection that was made anew meanwhile
	return nil
}

// Namespace returns a view of the client in which every key has the prefix in front of it: keys in requests, ranges,
// compares and transactions get it, keys in results and events lose it. Namespaces nest. Leases and sessions have none.
func (c *Client) Namespace(prefix string) *Client { return &Client{core: c.core, ns: c.ns + prefix} }

// Prefix returns what the view puts in front of keys; empty for a client without a namespace.
func (c *Client) Prefix() string { return c.ns }

// Endpoints returns the endpoints of the client, as configured.
func (c *Client) Endpoints() []string { return append([]string(nil), c.core.cfg.Endpoints...) }
