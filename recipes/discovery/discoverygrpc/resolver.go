// Package discoverygrpc lets gRPC find the instances of a service that package
// discovery, or etcd's naming package, has registered.
//
//	conn, err := grpc.NewClient("latchkey:///mail/sender",
//		grpc.WithResolvers(discoverygrpc.NewBuilder(c)),
//		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
//		grpc.WithTransportCredentials(creds))
//
// The path of the target is the service's name, in the namespace of the client. The
// builder is given to each connection, and registered nowhere. With
// [Scheme]("etcd"), programs keep the targets that they used with etcd's resolver.
//
// The resolver never blocks a dial, and never gives up: it goes on over lost
// connections to the cluster, lost members and compacted history. It reports the
// instances that are up in the order of their ids; the ones that drain only if
// there are no others; and that there are none, so that a call fails at once unless
// it waits for readiness. With [discovery.KeepLost], a service that has lost all its
// instances at once keeps them for that time.
//
// What else is known of an instance is in the attributes of its endpoint, where
// balancers find it with [FromEndpoint]; a change of them does not break a
// connection.
package discoverygrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/discovery"
)

// DefaultScheme is the scheme of targets unless [Scheme] gives another one.
const DefaultScheme = "latchkey"

// watchRetry is the time before a watch is made anew that was refused.
const watchRetry = time.Second

// Option is an option of NewBuilder.
type Option func(*builder)

// Scheme sets the scheme of the targets that are resolved.
func Scheme(scheme string) Option { return func(b *builder) { b.scheme = scheme } }

// Watching sets how services are watched.
func Watching(opts ...discovery.WatchOption) Option {
	return func(b *builder) { b.watch = append(b.watch, opts...) }
}

// NewBuilder returns a builder for grpc.WithResolvers. The client must live longer
// than the connections that use it.
func NewBuilder(c *client.Client, opts ...Option) resolver.Builder {
	b := &builder{client: c, scheme: DefaultScheme}
	for _, opt := range opts {
		opt(b)
	}
	return b
}

// builder is immutable after NewBuilder.
type builder struct {
	client *client.Client
	scheme string
	watch  []discovery.WatchOption
}

// Scheme implements resolver.Builder.
func (b *builder) Scheme() string { return b.scheme }

// Build implements resolver.Builder: it starts to watch the service.
func (b *builder) Build(target resolver.Target, conn resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	service := target.Endpoint()
	if service == "" || strings.HasSuffix(service, "/") {
		return nil, fmt.Errorf("discoverygrpc: target %s: %w", target.URL.String(), discovery.ErrName)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{service: service, conn: conn, cancel: cancel, ended: make(chan struct{})}
	go w.run(ctx, b)
	return w, nil
}

// watcher is the resolver of one connection.
type watcher struct {
	service string
	conn    resolver.ClientConn
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the goroutine is gone
}

// ResolveNow implements resolver.Resolver. Changes come by themselves.
func (w *watcher) ResolveNow(resolver.ResolveNowOptions) {}

// Close implements resolver.Resolver. It waits for the goroutine.
func (w *watcher) Close() {
	w.cancel()
	<-w.ended
}

// run reports the service until Close.
func (w *watcher) run(ctx context.Context, b *builder) {
	defer close(w.ended)
	known := false
	trouble := func(err error) {
		// Who knows addresses goes on with them.
		if !known && ctx.Err() == nil {
			w.conn.ReportError(fmt.Errorf("discovery of %q: %w", w.service, err))
		}
	}
	opts := append([]discovery.WatchOption{discovery.OnTrouble(trouble)}, b.watch...)
	for ctx.Err() == nil {
		for s, err := range discovery.Watch[json.RawMessage](ctx, b.client, w.service, opts...) {
			if err != nil {
				trouble(err)
				break
			}
			known = true
			// The connection says so when it can not do with it, for example with
			// none; there is nothing else to tell it.
			_ = w.conn.UpdateState(resolver.State{Endpoints: endpoints(s)})
		}
		pause(ctx)
	}
}

func pause(ctx context.Context) {
	timer := time.NewTimer(watchRetry)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// endpoints are the instances to send requests to.
func endpoints(s discovery.Snapshot[json.RawMessage]) []resolver.Endpoint {
	up := make([]resolver.Endpoint, 0, len(s.Instances))
	var draining []resolver.Endpoint
	for _, in := range s.Instances {
		e := resolver.Endpoint{
			Addresses:  []resolver.Address{{Addr: in.Addr}},
			Attributes: attributes.New(instanceKey{}, attribute{in}),
		}
		if in.State == discovery.Draining {
			draining = append(draining, e)
		} else {
			up = append(up, e)
		}
	}
	if len(up) == 0 && len(draining) > 0 {
		return draining
	}
	return up
}

// FromEndpoint returns the instance that an endpoint stands for, and false for one
// that this package's resolver has not made.
func FromEndpoint(e resolver.Endpoint) (discovery.Instance[json.RawMessage], bool) {
	a, ok := e.Attributes.Value(instanceKey{}).(attribute)
	return a.in, ok
}

// ErrMetadata: an instance's metadata is not of the type that was asked for.
var ErrMetadata = errors.New("metadata is of another type")

// Metadata decodes what an instance tells its clients.
func Metadata[M any](e resolver.Endpoint) (M, error) {
	var m M
	in, ok := FromEndpoint(e)
	if !ok || len(in.Meta) == 0 {
		return m, nil
	}
	if err := json.Unmarshal(in.Meta, &m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrMetadata, err)
	}
	return m, nil
}

type instanceKey struct{}

// attribute is an instance as gRPC compares it.
type attribute struct {
	in discovery.Instance[json.RawMessage]
}

// Equal is what gRPC asks whether something has changed.
func (a attribute) Equal(other any) bool {
	b, ok := other.(attribute)
	if !ok || string(a.in.Meta) != string(b.in.Meta) {
		return false
	}
	x, y := a.in, b.in
	return x.Service == y.Service && x.ID == y.ID && x.Addr == y.Addr && x.Zone == y.Zone &&
		x.Version == y.Version && x.Weight == y.Weight && x.State == y.State
}
