package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/connectivity"
)

// pool holds a connection to every endpoint and uses one of them at a time, until it fails.
//
// The order is shuffled once, so that many clients do not all use the same member.
type pool struct {
	core      *core
	endpoints []*endpoint  // immutable
	current   atomic.Int32 // index of the one in use

	mu      sync.Mutex    // protects changed
	changed chan struct{} // closed and replaced whenever an endpoint becomes ready
}

func newPool(co *core) (*pool, error) {
	p := &pool{core: co, changed: make(chan struct{})}
	seen := make(map[string]bool)
	for _, name := range co.cfg.Endpoints {
		if seen[name] {
			continue
		}
		seen[name] = true
		ep, err := newEndpoint(co.cfg, name)
		if err != nil {
			p.close()
			return nil, err
		}
		p.endpoints = append(p.endpoints, ep)
	}
	rand.Shuffle(len(p.endpoints), func(i, j int) {
		p.endpoints[i], p.endpoints[j] = p.endpoints[j], p.endpoints[i]
	})
	return p, nil
}

// close closes all connections, which fails everything in flight.
func (p *pool) close() {
	for _, ep := range p.endpoints {
		_ = ep.conn.Load().Close()
	}
}

// supervise keeps one endpoint connected and notices when it hangs. It runs until ctx is done.
func (p *pool) supervise(ctx context.Context, ep *endpoint) {
	log := p.core.log.With("endpoint", ep.name)
	for up := false; ctx.Err() == nil; {
		conn := ep.conn.Load()
		state := conn.GetState()
		if up && state != connectivity.Ready {
			up = false
			log.Info("connection lost")
		}
		switch state {
		case connectivity.Idle:
			conn.Connect()
		case connectivity.Ready:
			if !up {
				up = true
				log.Debug("connected")
				ep.failure.Store(nil)
				ep.heard(p.core.clock.now())
			}
			p.announce() // also when a loss in between was too short to be seen here
		case connectivity.TransientFailure:
			ep.explain(ctx)
		}
		wait, cancel := context.WithTimeout(ctx, probeInterval)
		changed := conn.WaitForStateChange(wait, state)
		cancel()
		if !changed && state == connectivity.Ready && ep.hangs(ctx, p.core.clock.now()) {
			log.Warn("endpoint does not answer; giving up its connection")
			p.leave(ep)
			ep.reset()
		}
	}
}

// announce wakes all that wait for an endpoint.
func (p *pool) announce() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pool) changes() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// pick returns the endpoint in use, or switches to another that is ready, or waits for one.
func (p *pool) pick(ctx context.Context) (*endpoint, error) {
	if ep := p.ready(); ep != nil {
		return ep, nil
	}
	for {
		changed := p.changes() // before looking, so that nothing is missed in between
		if ep := p.ready(); ep != nil {
			return ep, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, p.unreachable(ctx)
		case <-p.core.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// ready returns a connected endpoint, by preference the current one, or nil.
func (p *pool) ready() *endpoint {
	at := p.current.Load()
	if ep := p.endpoints[at]; ep.ready() {
		return ep
	}
	return p.switchFrom(at)
}

// leave stops using an endpoint, if another is connected.
func (p *pool) leave(ep *endpoint) {
	p.core.guide.forget(ep)
	if at := p.current.Load(); p.endpoints[at] == ep {
		p.switchFrom(at)
	}
}

// switchFrom makes the next connected endpoint behind the one at index at the current one, and returns it.
func (p *pool) switchFrom(at int32) *endpoint {
	n := int32(len(p.endpoints))
	for i := int32(1); i < n; i++ {
		to := (at + i) % n
		if !p.endpoints[to].ready() {
			continue
		}
		if p.current.CompareAndSwap(at, to) {
			p.core.log.Debug("using another endpoint", "from", p.endpoints[at].name, "to", p.endpoints[to].name)
		}
		return p.endpoints[to]
	}
	return nil
}

// named returns the endpoint with that name, or nil.
func (p *pool) named(name string) *endpoint {
	for _, ep := range p.endpoints {
		if ep.name == name {
			return ep
		}
	}
	return nil
}

// unreachable is the error of a wait for an endpoint that has ended: why it ended, and why no endpoint was connected.
func (p *pool) unreachable(ctx context.Context) error {
	var why []string
	for _, ep := range p.endpoints {
		if failure := ep.failure.Load(); failure != nil {
			why = append(why, ep.name+": "+*failure)
		}
	}
	if len(why) == 0 {
		return ctxError(ctx)
	}
	slices.Sort(why) // the order of the endpoints is random
	return fmt.Errorf("%w (%s)", ctxError(ctx), strings.Join(why, "; "))
}
