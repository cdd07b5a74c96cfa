package lock

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

const (
	// markSuffix follows the name in the key of a mark. It stands beside the keys
	// of the queue, not among them.
	markSuffix = ".delay"
	// A mark is renewed as often as this in a TTL of the session.
	markRenewals = 3
	// markRetry is the pause after a request for a mark that has failed.
	markRetry = 100 * time.Millisecond
	// markTimeout bounds one renewal of a mark, and the end of its lease.
	markTimeout = 5 * time.Second
)

// mark says that somebody holds a lock with WithDelay. It is a key with a lease
// that outlives the session's by the delay: after a clean end it is deleted
// together with the holder's key, and otherwise it stays until its lease has
// ended, by the server's clock, whoever is there to see it.
type mark struct {
	lease client.LeaseID // set before left is
	left  atomic.Bool    // the mark has been, or is being, put
}

// markRecord is the value of a mark.
type markRecord struct {
	Token fence.Token    `json:"token"`
	Owner string         `json:"owner,omitempty"` // only if it is an identity
	Lease client.LeaseID `json:"lease"`           // of the holder's session
}

// readMarks reads the marks of the names, if they count.
func (b *bid) readMarks() []client.Op {
	if b.opts.delay == 0 {
		return nil
	}
	ops := make([]client.Op, len(b.names))
	for i, name := range b.names {
		ops[i] = client.OpGet(name + markSuffix)
	}
	return ops
}

// noMarks are the conditions that there are none.
func (b *bid) noMarks() []client.Compare {
	if b.opts.delay == 0 {
		return nil
	}
	conditions := make([]client.Compare, len(b.names))
	for i, name := range b.names {
		conditions[i] = client.Missing(name + markSuffix)
	}
	return conditions
}

// sameMarks are the conditions that the marks are those that were found, or a
// HeldError if one of them is not ours.
func (b *bid) sameMarks(ctx context.Context, found []client.OpResult) ([]client.Compare, error) {
	left, err := b.foreignMark(ctx, found)
	if err != nil {
		return nil, err
	}
	if left != nil {
		return nil, &HeldError{Name: left.Key[:len(left.Key)-len(markSuffix)], Delayed: true}
	}
	conditions := make([]client.Compare, len(found))
	for i, r := range found {
		var rev client.Revision
		if len(r.Get.KVs) > 0 {
			rev = r.Get.KVs[0].ModRevision
		}
		conditions[i] = client.ModRevision(b.names[i] + markSuffix).Equal(rev)
	}
	return conditions, nil
}

// foreignMark returns the first mark that is to be waited for, of those that
// were found when nobody was before us: those of holders that ended without a
// release. One that an earlier life of ours has left is not, if that life's
// lease is gone.
func (b *bid) foreignMark(ctx context.Context, found []client.OpResult) (*client.KV, error) {
	for _, r := range found {
		if len(r.Get.KVs) == 0 {
			continue
		}
		kv := &r.Get.KVs[0]
		var m markRecord
		if json.Unmarshal(kv.Value, &m) != nil || !b.opts.named || m.Owner != b.opts.owner {
			return kv, nil
		}
		switch _, err := b.client.TimeToLive(ctx, m.Lease); {
		case err == nil:
			return kv, nil
		case !errors.Is(err, client.ErrLeaseNotFound):
			return nil, err
		}
	}
	return nil, nil
}

// leaveMark puts the marks; the locks are ours already. From then on they are
// renewed until the hold has ended.
func (h *hold) leaveMark(ctx context.Context) error {
	session := h.claim.Session()
	// The mark must outlive the key by the delay, although its last renewal may
	// be older than that of the session by the time between two, and one more
	// that failed.
	ttl := session.TTL()
	var granted client.LeaseInfo
	err := retry.Do(ctx, func() (err error) {
		granted, err = h.bid.client.Grant(ctx, ttl+h.bid.opts.delay+2*ttl/markRenewals)
		return err
	})
	if err != nil {
		return err
	}
	h.mark.lease = granted.ID
	h.mark.left.Store(true)
	go h.keepMark(ttl / markRenewals)
	m := markRecord{Token: fence.Token(h.claim.Token()), Lease: session.ID()}
	if h.bid.opts.named {
		m.Owner = h.bid.opts.owner
	}
	value, err := json.Marshal(m)
	if err != nil {
		return err
	}
	puts := make([]client.Op, len(h.bid.names))
	for i, name := range h.bid.names {
		puts[i] = client.OpPut(name+markSuffix, value, client.WithLease(granted.ID))
	}
	// It can be repeated: it has no effect once our key is gone.
	return retry.Do(ctx, func() error {
		_, err := h.claim.Txn().Then(puts...).Commit(ctx)
		return err
	})
}

// farewell deletes the marks together with the keys.
func (h *hold) farewell(*contender.Claim) []client.Op {
	if !h.mark.left.Load() {
		return nil
	}
	ops := make([]client.Op, len(h.bid.names))
	for i, name := range h.bid.names {
		ops[i] = client.OpDelete(name + markSuffix)
	}
	return ops
}

// keepMark renews the lease of the marks while the hold lasts. After a clean end
// it ends the lease as well; otherwise that is to run out by itself.
func (h *hold) keepMark(every time.Duration) {
	renew(h.claim.Context(), every, func(ctx context.Context) error {
		_, err := h.bid.client.KeepAliveOnce(ctx, h.mark.lease)
		return err
	})
	session := h.claim.Session().Context()
	if h.claim.Release(session) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(session, markTimeout)
	defer cancel()
	// If this fails, an empty lease runs out a little later.
	_ = h.bid.client.Revoke(ctx, h.mark.lease)
}

// renew calls once at the end of each period, and soon again when that has failed,
// until ctx ends.
func renew(ctx context.Context, every time.Duration, once func(context.Context) error) {
	for next := every; sleep(ctx, next); {
		next = every
		attempt, cancel := context.WithTimeout(ctx, markTimeout)
		if once(attempt) != nil {
			next = min(markRetry, every)
		}
		cancel()
	}
}

// sleep waits for d. It returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
