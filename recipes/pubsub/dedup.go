package pubsub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

// dedupConfig is the window in which dedup ids are remembered.
type dedupConfig struct{ window time.Duration }

// dedupWindow is the window unless told otherwise.
const dedupWindow = 2 * time.Minute

// WithDedupWindow sets for how long at least the dedup ids of messages that are
// published through this object are remembered. Default 2 minutes.
func WithDedupWindow(d time.Duration) Option {
	return func(o *options) { o.dedup.window = max(d, time.Second) }
}

// dedup has the lease that dedup ids end with. One lease serves for half a window,
// so that the ids of a process are on few leases; each id lives for a window at
// least.
type dedup struct {
	client *client.Client
	conf   dedupConfig

	mu    sync.Mutex // protects what follows
	id    client.LeaseID
	until time.Time
}

// lease returns a lease that lives for a window from now at least.
func (d *dedup) lease(ctx context.Context) (client.LeaseID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id != 0 && time.Now().Before(d.until) {
		return d.id, nil
	}
	half := d.conf.window / 2
	made, err := d.client.Grant(ctx, d.conf.window+half+time.Second)
	if err != nil {
		return 0, err
	}
	d.id, d.until = made.ID, time.Now().Add(half)
	return d.id, nil
}

// forget makes the next one take another lease.
func (d *dedup) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.id = 0
}

// dedupHash makes a part of a key of an id, which may have any length.
func dedupHash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

// duplicate makes the error for an id whose key exists.
func duplicate(id string, kv client.KV) error {
	at := Offset{Revision: kv.CreateRevision}
	if first, err := sequence.ParseID(string(kv.Value)); err == nil {
		at.Index = first.Count
	}
	return &DuplicateError{ID: id, Offset: at}
}
