package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// Permit is some permits of a semaphore that were acquired together. It is safe
// for concurrent use.
//
// It has no fencing token: several have permits at once, so the order in which
// they got them says nothing about who is stale.
type Permit struct {
	sem   *Semaphore
	claim *contender.Claim

	mu      sync.Mutex
	permits int64 // protected by mu
}

// Name returns the semaphore's name.
func (p *Permit) Name() string { return p.sem.lock.name }

// Key returns the key that stands for this acquisition, without the client's
// namespace.
func (p *Permit) Key() string { return p.claim.Key(0) }

// Permits returns how many they are.
func (p *Permit) Permits() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.permits
}

// Context returns a context that lives as long as the permits are held. Its end
// has the causes of [Held.Context].
func (p *Permit) Context() context.Context { return p.claim.Context() }

// Valid says whether the permits can be relied on at this moment. See
// [Held.Valid].
func (p *Permit) Valid() bool { return p.Remaining() > 0 }

// Remaining returns for how long the permits can be relied on if the cluster can
// not be reached from now on. See [Held.Remaining].
func (p *Permit) Remaining() time.Duration { return p.claim.Remaining() }

// Guard returns the condition that holds exactly as long as the permits are held.
// See [Held.Guard].
func (p *Permit) Guard() client.Compare { return p.claim.Guard()[0] }

// Txn starts a transaction that is executed only while the permits are held. See
// [Held.Txn].
func (p *Permit) Txn() *client.GuardedTxn { return p.claim.Txn() }

// Shrink gives permits back, all but n, which is from 1 to what they are.
//
// Errors: [ErrPermits]; [ErrLost]; those of ctx, with [client.ErrUncertain] when it
// is not known whether the permits were given back: then call it again.
func (p *Permit) Shrink(ctx context.Context, n int64) error {
	if n < 1 || n > p.Permits() {
		return fmt.Errorf("keep %d of semaphore %q: %w", n, p.Name(), ErrPermits)
	}
	if err := p.claim.Rewrite(ctx, 0, p.sem.record(n, false).encode()); err != nil {
		return fmt.Errorf("keep %d of semaphore %q: %w", n, p.Name(), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.permits = min(p.permits, n)
	return nil
}

// Release gives the permits back. See [Held.Release].
func (p *Permit) Release(ctx context.Context) error {
	err := p.claim.Release(ctx)
	if err != nil && !errors.Is(err, ErrLost) {
		return fmt.Errorf("release semaphore %q: %w", p.Name(), err)
	}
	return err
}
