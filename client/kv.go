package client

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
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
	return c.get(ctx, OpGet(key, opts...).get)
}

// GetOne reads one key, or returns [ErrNotFound].
func (c *Client) GetOne(ctx context.Context, key string, opts ...ReadOption) (KV, error) {
	r := OpGet(key).get
	for _, o := range opts {
		o.applyGet(r)
	}
	res, err := c.get(ctx, r)
	if err != nil {
		return KV{}, err
	}
	if len(res.KVs) == 0 {
		return KV{}, fmt.Errorf("get %q: %w", key, ErrNotFound)
	}
	return res.KVs[0], nil
}

func (c *Client) get(ctx context.Context, r *getRequest) (*GetResult, error) {
	req, err := r.wire(c.ns)
	if err != nil {
		return nil, &Error{Op: methodRange.name, Kind: err}
	}
	m := methodRange
	if req.Serializable {
		m = methodRangeLocal
	}
	var resp pb.RangeResponse
	if err := c.core.call(ctx, m, req, &resp); err != nil {
		return nil, err
	}
	return getResult(&resp, c.ns), nil
}

// Put writes a key. Without [WithLease] or [KeepLease], the key loses the lease that it had.
//
// Errors: [ErrLeaseNotFound], [ErrKeyNotFound] with KeepValue or KeepLease, [ErrUncertain], and those of every call.
func (c *Client) Put(ctx context.Context, key string, value []byte, opts ...PutOption) (*PutResult, error) {
	req, err := OpPut(key, value, opts...).put.wire(c.ns)
	if err != nil {
		return nil, &Error{Op: methodPut.name, Kind: err}
	}
	var resp pb.PutResponse
	if err := c.core.call(ctx, methodPut, req, &resp); err != nil {
		return nil, err
	}
	return putResult(&resp, c.ns), nil
}

// Delete deletes a key, or the keys of a range when an option gives one. Deleting nothing is no error.
//
// Errors: [ErrUncertain], and those of every call.
func (c *Client) Delete(ctx context.Context, key string, opts ...DeleteOption) (*DeleteResult, error) {
	req, err := OpDelete(key, opts...).delete.wire(c.ns)
	if err != nil {
		return nil, &Error{Op: methodDelete.name, Kind: err}
	}
	var resp pb.DeleteRangeResponse
	if err := c.core.call(ctx, methodDelete, req, &resp); err != nil {
		return nil, err
	}
	return deleteResult(&resp, c.ns), nil
}

// Compact forgets the history before rev: what was superseded or deleted at or before rev can no longer be read or
// watched. Compacting twice does no harm, so an uncertain outcome is resolved by asking again.
//
// Errors: [ErrCompacted] when rev was compacted already, [ErrFutureRevision], and those of every call.
func (c *Client) Compact(ctx context.Context, rev Revision, opts ...CompactOption) error {
	req := &pb.CompactionRequest{Revision: int64(rev)}
	for _, o := range opts {
		o.applyCompact(req)
	}
	var resp pb.CompactionResponse
	return c.core.callRepeatable(ctx, methodCompact, req, &resp, ErrCompacted)
}

// ---- from the wire

// keyValue returns a key as a client with namespace ns sees it.
func keyValue(kv *mvccpb.KeyValue, ns string) KV {
	return KV{
		Key:            strings.TrimPrefix(string(kv.Key), ns),
		Value:          kv.Value,
		CreateRevision: Revision(kv.CreateRevision),
		ModRevision:    Revision(kv.ModRevision),
		Version:        kv.Version,
		Lease:          LeaseID(kv.Lease),
	}
}

func keyValues(kvs []*mvccpb.KeyValue, ns string) []KV {
	if len(kvs) == 0 {
		return nil
	}
	out := make([]KV, len(kvs))
	for i, kv := range kvs {
		out[i] = keyValue(kv, ns)
	}
	return out
}

func keyValueOrNil(kv *mvccpb.KeyValue, ns string) *KV {
	if kv == nil {
		return nil
	}
	out := keyValue(kv, ns)
	return &out
}

func getResult(r *pb.RangeResponse, ns string) *GetResult {
	return &GetResult{Revision: revisionOf(r.Header), KVs: keyValues(r.Kvs, ns), Count: r.Count, More: r.More}
}

func putResult(r *pb.PutResponse, ns string) *PutResult {
	return &PutResult{Revision: revisionOf(r.Header), Prev: keyValueOrNil(r.PrevKv, ns)}
}

func deleteResult(r *pb.DeleteRangeResponse, ns string) *DeleteResult {
	return &DeleteResult{Revision: revisionOf(r.Header), Deleted: r.Deleted, Prev: keyValues(r.PrevKvs, ns)}
}

func revisionOf(h *pb.ResponseHeader) Revision { return Revision(h.GetRevision()) }
