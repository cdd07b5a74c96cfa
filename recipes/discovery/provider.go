package discovery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
	"github.com/latchkey-go/latchkey/recipes/internal/view"
)

const (
	// defaultKeepLost is how old what a Provider falls back on can be.
	defaultKeepLost = 5 * time.Minute
	// watchRetry is the time before a watch is made anew that was refused.
	watchRetry = time.Second
)

// ProviderOption is an option of NewProvider.
type ProviderOption interface{ applyProvider(*providerOptions) }

type providerOptions struct {
	watch    watchOptions
	ejection Ejection
}

type providerOption func(*providerOptions)

func (f providerOption) applyProvider(o *providerOptions) { f(o) }

// WithEjection sets when instances that fail are no longer used.
func WithEjection(e Ejection) ProviderOption {
	return providerOption(func(o *providerOptions) { o.ejection = e })
}

// Provider knows the instances of a service and picks one for each request. It is
// safe for concurrent use.
type Provider[M any] struct {
	service  string
	strategy Strategy[M]
	ejection Ejection
	cancel   context.CancelFunc
	ended    chan struct{} // closed when the goroutine is gone
	synced   chan struct{} // closed when the service was read once

	mu       sync.Mutex               // protects what follows, and each conduct
	known    map[string]*Candidate[M] // by id
	pickable []*Candidate[M]          // in the order of their ids; replaced, never changed
	ejecting time.Time                // until then, one of them may be ejected
	stale    bool
	err      error         // why the service can not be watched at the moment
	changed  chan struct{} // closed and replaced when one of these changes
}

// NewProvider starts to watch the service. The caller must Close the Provider.
func NewProvider[M any](c *client.Client, service string, s Strategy[M], opts ...ProviderOption) *Provider[M] {
	o := providerOptions{watch: watchOptions{keepLost: defaultKeepLost}}
	for _, opt := range opts {
		opt.applyProvider(&o)
	}
	return newProvider(c, service, s, o)
}

func newProvider[M any](src view.Source, service string, s Strategy[M], o providerOptions) *Provider[M] {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Provider[M]{
		service: service, strategy: s, ejection: o.ejection.withDefaults(), cancel: cancel,
		ended: make(chan struct{}), synced: make(chan struct{}), changed: make(chan struct{}), known: make(map[string]*Candidate[M]),
	}
	go p.run(ctx, src, o.watch)
	return p
}

// run follows the service until Close.
func (p *Provider[M]) run(ctx context.Context, src view.Source, o watchOptions) {
	defer close(p.ended)
	for ctx.Err() == nil {
		for s, err := range watch[M](ctx, src, p.service, o) {
			if err != nil {
				p.fail(err)
				if o.trouble != nil && ctx.Err() == nil {
					o.trouble(err)
				}
				break
			}
			p.update(s)
		}
		sleep(ctx, watchRetry)
	}
}

// fail notes why nothing is known, for those who wait.
func (p *Provider[M]) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
	p.announceLocked()
}

// announceLocked wakes those who wait.
func (p *Provider[M]) announceLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
	select {
	case <-p.synced:
	default:
		close(p.synced)
	}
}

// update takes over a snapshot. How an instance has behaved stays with it, unless it
// has moved.
func (p *Provider[M]) update(s Snapshot[M]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := make(map[string]*Candidate[M], len(s.Instances))
	var up, draining []*Candidate[M]
	for _, in := range s.Instances {
		c := &Candidate[M]{Instance: in, usage: &usage{}}
		if old := p.known[in.ID]; old != nil && old.Addr == in.Addr {
			c.usage = old.usage
		}
		known[in.ID] = c
		if in.State == Draining {
			draining = append(draining, c)
		} else {
			up = append(up, c)
		}
	}
	if len(up) == 0 {
		up = draining // they still serve what they get
	}
	p.known, p.pickable, p.stale, p.err = known, up, s.Stale, nil
	p.announceLocked()
}

// Pick chooses an instance for a request. done must be called when the request is
// over, with its error: what failed because of the instance counts for its
// ejection. That the caller gave up (context.Canceled) does not. Further calls of
// done do nothing.
//
// Pick waits only until the service is known, within ctx. Afterwards it needs
// nobody: while the cluster can not be reached, and when all instances are lost
// at once, it picks from those that were there last.
//
// Errors: [ErrNoInstance], with the reason if the service can not be read;
// [ErrClosed]; those of ctx.
func (p *Provider[M]) Pick(ctx context.Context) (in Instance[M], done func(error), err error) {
	return p.PickKey(ctx, "")
}

// PickKey is Pick for a strategy that heeds the request's key, such as
// [ConsistentHash].
func (p *Provider[M]) PickKey(ctx context.Context, key string) (in Instance[M], done func(error), err error) {
	select {
	case <-p.ended:
		return in, nil, fmt.Errorf("pick an instance of %q: %w", p.service, ErrClosed)
	default:
	}
	select {
	case <-p.synced:
	case <-p.ended:
		return in, nil, fmt.Errorf("pick an instance of %q: %w", p.service, ErrClosed)
	case <-ctx.Done():
		return in, nil, fmt.Errorf("pick an instance of %q: %w", p.service, retry.Why(ctx))
	}
	candidates, err := p.usable(time.Now())
	if err != nil {
		return in, nil, err
	}
	c := p.strategy.Choose(candidates, key)
	c.usage.inFlight.Add(1)
	var once sync.Once
	return c.Instance, func(err error) { once.Do(func() { p.done(c.usage, err) }) }, nil
}

// usable returns the candidates for a request: those that are not ejected, or all
// if there are no others.
func (p *Provider[M]) usable(now time.Time) ([]*Candidate[M], error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.pickable) == 0 && p.err != nil:
		return nil, fmt.Errorf("pick an instance of %q: %w: %w", p.service, ErrNoInstance, p.err)
	case len(p.pickable) == 0:
		return nil, fmt.Errorf("pick an instance of %q: %w", p.service, ErrNoInstance)
	case !now.Before(p.ejecting):
		return p.pickable, nil
	}
	rest := make([]*Candidate[M], 0, len(p.pickable))
	for _, c := range p.pickable {
		if !c.usage.conduct.ejected(now) {
			rest = append(rest, c)
		}
	}
	if len(rest) == 0 {
		return p.pickable, nil
	}
	return rest, nil
}

// done notes what became of a request.
func (p *Provider[M]) done(u *usage, err error) {
	u.inFlight.Add(-1)
	if errors.Is(err, context.Canceled) {
		return
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		u.conduct.success(now)
		return
	}
	if !u.conduct.failure(now, p.ejection) {
		return
	}
	ejected := 1 // with this one
	for _, c := range p.pickable {
		if c.usage.conduct.ejected(now) {
			ejected++
		}
	}
	if ejected*100 > len(p.pickable)*p.ejection.Share {
		return
	}
	u.conduct.eject(now, p.ejection)
	if u.conduct.until.After(p.ejecting) {
		p.ejecting = u.conduct.until
	}
}

// Instances returns the instances that requests go to, ejected ones as well, in
// the order of their ids. stale says that the service has none, and that these are
// what it had last. It does not wait.
func (p *Provider[M]) Instances() (instances []Instance[M], stale bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.pickable {
		instances = append(instances, c.Instance)
	}
	return instances, p.stale
}

// Wait waits until the instances that requests go to satisfy ok, for example until
// there are enough of them. It returns the error of ctx when that ends first, and
// [ErrClosed] after Close.
func (p *Provider[M]) Wait(ctx context.Context, ok func(instances []Instance[M], stale bool) bool) error {
	for {
		p.mu.Lock()
		changed := p.changed // before looking, so that nothing is missed in between
		p.mu.Unlock()
		if ok(p.Instances()) {
			return nil
		}
		select {
		case <-changed:
		case <-p.ended:
			return fmt.Errorf("wait for instances of %q: %w", p.service, ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("wait for instances of %q: %w", p.service, retry.Why(ctx))
		}
	}
}

// Close ends the Provider; it waits for its goroutine. Picks fail with [ErrClosed]
// from then on.
func (p *Provider[M]) Close() {
	p.cancel()
	<-p.ended
}
