package client

import (
	"context"
	"strconv"
)

// Revision is a point in the store's history: every transaction that changes something adds one. Zero means none.
type Revision int64

// LeaseID names a lease. Zero means none.
type LeaseID int64

// String returns the id in hexadecimal without padding, as recipes put it into keys.
func (id LeaseID) String() string { return strconv.FormatInt(int64(id), 16) }

// KV is one key as it was at one revision.
type KV struct {
	Key   string
	Value []byte
	// CreateRevision is the revision at which the key last came into being; it stays while the key lives.
	CreateRevision Revision
	// ModRevision is the revision of the last change.
	ModRevision Revision
	// Version counts the changes since the key came into being, from 1.
	Version int64
	// Lease is the lease that the key ends with; zero when there is none. Not filled in by KeysOnly on every server.
	Lease LeaseID
}

// GetResult is the answer of Get.
type GetResult struct {
	// Revision is the store's revision when the read was served, also for a read at an older revision. A watch from
	// Revision+1 misses nothing after this read.
	Revision Revision
	// KVs are the keys that were found, in ascending order of keys unless the request said otherwise.
	KVs []KV
	// Count is the number of keys in the range at that revision, whatever the limit and the revision filters left out.
	Count int64
	// More says that the limit cut the answer short.
	More bool
}

// PutResult is the answer of Put.
type PutResult struct {
	Revision Revision // at which the key was written
	Prev     *KV      // what it replaced; only with PrevKV, and nil when there was nothing
}

// DeleteResult is the answer of Delete.
type DeleteResult struct {
	Revision Revision // at which the keys were deleted, or the current one when there was nothing to delete
	Deleted  int64    // how many keys there were
	Prev     []KV     // what was deleted; only with PrevKV
}

// Get reads a key, or the keys of a range when an option gives one. The read is linearizable unless [Serializable] is
// given: it sees every write that was acknowledged before it began. Nothing found is no error: KVs is empty.
//
// Errors: [ErrCompacted] and [ErrFutureRevision] for a read at a revision, and those of every call.
func (c *Client) Get(ctx context.Context, key string, opts ...GetOption) (*GetResult, error) {
	panic("not yet")
}

// GetOne reads one key, or returns [ErrNotFound].
func (c *Client) GetOne(ctx context.Context, key string, opts ...ReadOption) (KV, error) {
	panic("not yet")
}

// Put writes a key. Without [WithLease] or [KeepLease], the key loses the lease that it had.
//
// Errors: [ErrLeaseNotFound], [ErrKeyNotFound] with KeepValue or KeepLease, [ErrUncertain], and those of every call.
func (c *Client) Put(ctx context.Context, key string, value []byte, opts ...PutOption) (*PutResult, error) {
	panic("not yet")
}

// Delete deletes a key, or the keys of a range when an option gives one. Deleting nothing is no error.
func (c *Client) Delete(ctx context.Context, key string, opts ...DeleteOption) (*DeleteResult, error) {
	panic("not yet")
}

// Compact forgets the history before rev: what was superseded or deleted at or before rev can no longer be read or
// watched. Errors: [ErrCompacted] when rev was compacted already, [ErrFutureRevision].
func (c *Client) Compact(ctx context.Context, rev Revision, opts ...CompactOption) error {
	panic("not yet")
}
