package lock

import (
	"context"
	"fmt"
	"slices"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// namesMax bounds the names of one AcquireAll: a server takes 128 operations in a
// transaction, and each name needs three.
const namesMax = 40

// AcquireAll waits until all locks with these names are ours, and returns one
// handle for all. One transaction puts a key into all queues, so of any two
// callers one is before the other in every queue that both are in: AcquireAll
// can not deadlock with other calls of it, whatever the order of the names. (It
// can with somebody who holds one lock while waiting for another.) It waits in
// the queues together with those who want a single lock.
//
// A name that is given twice counts once. Everything else is as with
// [Lock.Acquire]; when one of the locks is lost, all are.
//
// Errors: [ErrName] if there are no names, more than 40, or one that can not be
// used, and those of Acquire.
func AcquireAll(ctx context.Context, c *client.Client, names []string, opts ...Option) (*HeldSet, error) {
	b, err := newSetBid(c, names, opts)
	if err != nil {
		return nil, err
	}
	h, err := b.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return &HeldSet{h.handle()}, nil
}

// TryAcquireAll takes all locks if all are free at this moment, and none of them
// if they are not: [ErrHeld]. It never joins a queue.
func TryAcquireAll(ctx context.Context, c *client.Client, names []string, opts ...Option) (*HeldSet, error) {
	b, err := newSetBid(c, names, opts)
	if err != nil {
		return nil, err
	}
	h, err := b.try(ctx)
	if err != nil {
		return nil, err
	}
	return &HeldSet{h.handle()}, nil
}

// DoAll is [Lock.Do] with all locks of these names.
func DoAll(ctx context.Context, c *client.Client, names []string, fn func(ctx context.Context, h *HeldSet) error, opts ...Option) error {
	h, err := AcquireAll(ctx, c, names, opts...)
	if err != nil {
		return err
	}
	return h.do(ctx, func(ctx context.Context) error { return fn(ctx, h) })
}

func newSetBid(c *client.Client, names []string, opts []Option) (*bid, error) {
	names = slices.Sorted(slices.Values(names)) // a copy, in the order in which errors tell them
	names = slices.Compact(names)
	if len(names) == 0 || len(names) > namesMax {
		return nil, fmt.Errorf("acquire %d locks, of 1 to %d: %w", len(names), namesMax, ErrName)
	}
	return newBid(c, names, opts), nil
}

// HeldSet is several locks that were acquired together. Its methods are those of
// [Held], for all of them at once. It is safe for concurrent use.
type HeldSet struct{ *handle }

// Names returns the names of the locks, sorted, each once.
func (h *HeldSet) Names() []string { return slices.Clone(h.hold.bid.names) }

// Key returns the key that stands for one of the locks, without the client's
// namespace; empty if it is not one of the set.
func (h *HeldSet) Key(name string) string {
	i, ok := slices.BinarySearch(h.hold.bid.names, name)
	if !ok {
		return ""
	}
	return h.hold.claim.Key(i)
}

// Token returns the fencing token: the revision at which the keys were created,
// larger than that of every earlier holder of any of the locks.
func (h *HeldSet) Token() fence.Token { return h.hold.token() }

// Guard returns the conditions that hold exactly as long as all locks are held,
// see [Held.Guard].
func (h *HeldSet) Guard() []client.Compare { return h.hold.claim.Guard() }
