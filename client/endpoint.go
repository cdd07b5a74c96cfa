package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/internal/codec/codecgrpc"
)

const (
	// A lost connection is tried again after 20 ms at first, and four times a second at the least: gRPC's own defaults
	// (one second, growing to two minutes) are what makes failover slow in other clients.
	redialDelayMin = 20 * time.Millisecond
	redialDelayMax = 250 * time.Millisecond
	// pingInterval is the shortest that gRPC permits; etcd's servers punish less than 5 s.
	pingInterval = 10 * time.Second
	// unackedTimeout closes a connection whose peer does not acknowledge data for that long (TCP_USER_TIMEOUT on
	// Linux), which is how the loss of a machine or a network shows.
	unackedTimeout = 2 * time.Second
	// A member from which nothing was heard for requestSilence with a request in flight, or for streamSilence with a
	// stream open, is asked for its health, and given up when that has no answer after probeTimeout: this is how a
	// process that hangs shows. It is looked at once in a probeInterval.
	requestSilence = time.Second
	streamSilence  = 2 * time.Second
	probeInterval  = time.Second
	probeTimeout   = time.Second
	// responseBytesMax bounds one answer of a server.
	responseBytesMax = 1 << 30
	// Fixed windows of flow control spare gRPC the pings with which it would measure what they should be.
	streamWindowBytes     = 1 << 20
	connectionWindowBytes = 4 << 20
)

// endpoint is one address of the cluster and its connection, which is kept up all the time: switching to another member
// then costs nothing.
type endpoint struct {
	name string // as in Config.Endpoints
	dial func() (*grpc.ClientConn, error)

	conn     atomic.Pointer[grpc.ClientConn]
	requests atomic.Int64           // in flight
	streams  atomic.Int64           // open
	pipe     atomic.Pointer[pipe]   // nil while there is none
	heardAt  atomic.Int64           // monotonic nanoseconds of the client's clock
	failure  atomic.Pointer[string] // why there is no connection; nil when there is
}

// newEndpoint parses the address and prepares the connection.
func newEndpoint(cfg Config, name string) (*endpoint, error) {
	address, creds, err := parseEndpoint(name, cfg.TLS)
	if err != nil {
		return nil, fmt.Errorf("client: endpoint %q: %w", name, err)
	}
	dialer := func(ctx context.Context, _ string) (net.Conn, error) {
		if cfg.Dialer != nil {
			return cfg.Dialer(ctx, name)
		}
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(dialer),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: redialDelayMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: redialDelayMax,
			},
			MinConnectTimeout: cfg.DialTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: unackedTimeout}),
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connectionWindowBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(responseBytesMax), grpc.ForceCodecV2(codecgrpc.New())),
		// No policy from outside may repeat a request: only the client knows which ones may be.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
	}, cfg.DialOptions...)
	target := "passthrough:///" + address
	if strings.HasPrefix(address, "unix:") {
		target = "passthrough:///localhost"
	}
	ep := &endpoint{name: name}
	ep.dial = func() (*grpc.ClientConn, error) { return grpc.NewClient(target, options...) }
	conn, err := ep.dial()
	if err != nil {
		return nil, fmt.Errorf("client: endpoint %q: %w", name, err)
	}
	ep.conn.Store(conn)
	return ep, nil
}

// parseEndpoint returns what to dial ("host:port" or "unix:path") and with which credentials.
func parseEndpoint(name string, conf *tls.Config) (string, credentials.TransportCredentials, error) {
	secure := func() credentials.TransportCredentials {
		if conf == nil {
			conf = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		return credentials.NewTLS(conf.Clone())
	}
	plain := insecure.NewCredentials()
	if name == "" {
		return "", nil, fmt.Errorf("it is empty")
	}
	if !strings.Contains(name, "://") {
		if conf != nil {
			return name, secure(), nil
		}
		return name, plain, nil
	}
	u, err := url.Parse(name)
	if err != nil {
		return "", nil, err
	}
	switch u.Scheme {
	case "http":
		if conf != nil {
			return "", nil, fmt.Errorf("scheme is http, but Config.TLS is set")
		}
		return u.Host, plain, nil
	case "https":
		return u.Host, secure(), nil
	case "unixs":
		return "unix:" + u.Host + u.Path, secure(), nil
	case "unix":
		address := "unix:" + u.Host + u.Path
		if conf != nil {
			return address, secure(), nil
		}
		return address, plain, nil
	}
	return "", nil, fmt.Errorf("scheme %q is none of http, https, unix, unixs", u.Scheme)
}

// ready says that the connection stands, as far as is known.
func (ep *endpoint) ready() bool { return ep.conn.Load().GetState() == connectivity.Ready }

// heard notes a sign of life.
func (ep *endpoint) heard(now instant) { ep.heardAt.Store(int64(now.mono)) }

// explain finds out why there is no connection: gRPC tells it only to a request that fails.
func (ep *endpoint) explain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := ep.checkHealth(ctx); err != nil {
		why := plainFailure(status.Convert(err).Message())
		ep.failure.Store(&why)
	}
}

// plainFailure takes what gRPC wraps around the reason off it.
func plainFailure(message string) string {
	if quoted, ok := strings.CutPrefix(message, "connection error: desc = "); ok {
		if plain, err := strconv.Unquote(quoted); err == nil {
			message = plain
		}
	}
	message = strings.TrimPrefix(message, "transport: ")
	return strings.TrimPrefix(message, "Error while dialing: ")
}

// hangs asks whether the member still answers, if there is reason to doubt it.
func (ep *endpoint) hangs(ctx context.Context, now instant) bool {
	silent := now.mono - time.Duration(ep.heardAt.Load())
	asked := ep.requests.Load() > 0 && silent >= requestSilence
	waiting := ep.streams.Load() > 0 && silent >= streamSilence
	if !asked && !waiting {
		return false
	}
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := ep.checkHealth(probe)
	if ctx.Err() != nil {
		return false
	}
	if probe.Err() != nil || status.Code(err) == codes.DeadlineExceeded {
		return true
	}
	ep.heard(now) // any answer is a sign of life, also an error
	return false
}

func (ep *endpoint) checkHealth(ctx context.Context) error {
	_, err := healthpb.NewHealthClient(ep.conn.Load()).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

// reset gives up the connection, with everything in flight on it, and starts a new one.
func (ep *endpoint) reset() {
	conn, err := ep.dial()
	if err != nil {
		return // can not be: the same call succeeded in newEndpoint. The old connection stays.
	}
	_ = ep.conn.Swap(conn).Close()
}
