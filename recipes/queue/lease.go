package queue

import (
	"context"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

const (
	// reloadTimeout bounds the reads that a background task needs to go on.
	reloadTimeout = 10 * time.Second
	// bookMax bounds the leases that are kept for reuse.
	bookMax = 32
)

// leaseBook has leases for keys that end by themselves. A lease is shared by what
// is written within a tenth of its time, so there are few of them, and a key lives
// a tenth longer than asked at most.
type leaseBook struct {
	core *core

	mu   sync.Mutex // protects leases; held while one is made, so that it is one
	open map[time.Duration]openLease
}

type openLease struct {
	id    client.LeaseID
	until time.Time // it has the whole time left until then
}

// get returns a lease that ends no sooner than ttl from now.
func (b *leaseBook) get(ctx context.Context, ttl time.Duration) (client.LeaseID, error) {
	ttl = (ttl + time.Second - 1).Truncate(time.Second)
	b.mu.Lock()
	defer b.mu.Unlock()
	if l, ok := b.open[ttl]; ok && time.Now().Before(l.until) {
		return l.id, nil
	}
	share := ttl/10 + time.Second
	now := time.Now()
	l, err := b.core.client.Grant(ctx, ttl+share)
	if err != nil {
		return 0, err
	}
	if b.open == nil || len(b.open) >= bookMax {
		b.open = make(map[time.Duration]openLease)
	}
	b.open[ttl] = openLease{id: l.ID, until: now.Add(share)}
	return l.ID, nil
}

// forget drops all leases, as one of them turned out to be gone.
func (b *leaseBook) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = nil
}
