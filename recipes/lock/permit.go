package lock

import (
	"context"
	"fmt"
	"sync"

	"github.com/latchkey-go/latchkey/client"
)

// Permit is some permits of a semaphore that were acquired together. Its methods
// are those of [Held], but that it has no fencing token: several have permits at
// once, so the order in which they got them says nothing about who is stale. It is
// safe for concurrent use.
type Permit struct {
	*handle
	sem *Semaphore

	mu      sync.Mutex
	permits int64 // protected by mu
}

// Name returns the semaphore's name.
func (p *Permit) Name() string { return p.sem.Name() }

// Key returns the key that stands for this acquisition, without the client's
// namespace.
func (p *Permit) Key() string { return p.hold.claim.Key(0) }

// Guard returns the condition that holds exactly as long as the permits are held.
// See [Held.Guard].
func (p *Permit) Guard() client.Compare { return p.hold.claim.Guard()[0] }

// Permits returns how many they are.
func (p *Permit) Permits() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.permits
}

// Shrink gives permits back, all but n, which is from 1 to what they are.
//
// Errors: [ErrPermits]; [ErrLost]; those of ctx, with [client.ErrUncertain] when it
// is not known whether the permits were given back: then call it again.
func (p *Permit) Shrink(ctx context.Context, n int64) error {
	if n < 1 || n > p.Permits() {
		return fmt.Errorf("keep %d permits of semaphore %q: %w", n, p.Name(), ErrPermits)
	}
	if err := p.hold.claim.Rewrite(ctx, 0, p.sem.record(n, false).encode()); err != nil {
		return fmt.Errorf("keep %d permits of semaphore %q: %w", n, p.Name(), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.permits = min(p.permits, n)
	return nil
}
