package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Tx is an optimistic transaction, as [Client.Update] runs it. Reads see the store at one revision and the transaction's
// own writes; what was read becomes a condition of the commit; writes are staged and executed together by the commit.
// It belongs to the function that it was given to, and to one goroutine.
type Tx struct {
	run *txRun
	ns  string // of the keys that this view's methods are given
}

// txRun is one run of a transaction: what it has read and what it will write. Keys in it have their namespace.
type txRun struct {
	client *Client // without a namespace
	ctx    context.Context
	ended  bool
	begun  bool  // by Begin: its holder commits it
	err    error // a read failed, or a call can not be carried out: nothing may be committed
	stale  bool  // the revision that the run reads at is compacted: it must run again

	rev      Revision                  // that all reads see; 0 before the first
	read     map[string]KV             // by key; ModRevision is 0 when the key does not exist
	readKeys []string                  // the keys of read, in order
	ranges   []keyRange                // read in whole
	written  map[string]*pb.PutRequest // by key; nil for a deletion
	order    []string                  // the keys of written, in the order of their first write
	staged   []*Staged
	ifs      []*pb.Compare
	guards   []txGuard
	before   []func() error
	after    []func(Revision)
}

// txGuard is what Require adds.
type txGuard struct {
	lost     error
	compares []*pb.Compare
}

// Staged is an operation that a transaction executes as it is, and afterwards its result.
type Staged struct {
	op     *pb.RequestOp
	ns     string
	result OpResult
}

// Result returns what the operation answered, once the transaction has committed. It is the zero value before, and if
// the answer of the commit was lost and [ExactlyOnce] found out that it was executed.
func (s *Staged) Result() OpResult { return s.result }

func newTx(ctx context.Context, c *Client) *Tx {
	return &Tx{ns: c.ns, run: &txRun{
		client: &Client{core: c.core}, ctx: ctx,
		read: make(map[string]KV), written: make(map[string]*pb.PutRequest),
	}}
}

// Context returns the context of the Update.
func (tx *Tx) Context() context.Context { return tx.run.ctx }

// Revision returns the revision that all reads of this run see; zero before the first read.
func (tx *Tx) Revision() Revision { return tx.run.rev }

// In returns the same transaction for keys of another view of the client, with its namespace: for recipes, whose client
// need not have the namespace of the caller's. A client of another cluster makes the transaction fail.
func (tx *Tx) In(c *Client) *Tx {
	if c.core != tx.run.client.core {
		tx.run.fail(errors.New("transaction of another client"))
	}
	return &Tx{run: tx.run, ns: c.ns}
}

// Get reads one key, or returns [ErrNotFound]. The commit fails if the key is changed before it. Of a key that the
// transaction has written, the staged value is returned, with the revisions from before it as far as they are known.
func (tx *Tx) Get(key string) (KV, error) {
	if key == "" {
		return KV{}, fmt.Errorf("get: %w", ErrEmptyKey)
	}
	kv, ok, err := tx.run.get(tx.ns + key)
	if err != nil {
		return KV{}, fmt.Errorf("get %q: %w", key, err)
	}
	if !ok {
		return KV{}, fmt.Errorf("get %q: %w", key, ErrNotFound)
	}
	kv.Key = key
	return kv, nil
}

// List reads the keys of a range, in ascending order: all of them, or the first ones with [Limit]. The commit fails if
// one of them is changed or deleted, or if another appears in the range (with Limit: before the last one read).
//
// Each key read becomes a compare, so that a server's limit (128 by default) bounds what a transaction can list.
func (tx *Tx) List(key string, opts ...ListOption) ([]KV, error) {
	req := listRequest{keys: keyRange{key: key}}
	for _, o := range opts {
		o.applyList(&req)
	}
	if req.keys.single() {
		req.keys.end = afterKey(key) // the range of this one key
	}
	kvs, err := tx.run.list(req.keys.in(tx.ns), req.limit)
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", key, err)
	}
	for i := range kvs {
		kvs[i].Key = strings.TrimPrefix(kvs[i].Key, tx.ns)
	}
	return kvs, nil
}

// Put stages a write; the last one of a key counts. It does not read: two transactions that only put do not conflict.
// The value must not be changed before Update has returned.
func (tx *Tx) Put(key string, value []byte, opts ...PutOption) {
	put, err := OpPut(key, value, opts...).put.wire(tx.ns)
	if err != nil {
		tx.run.fail(fmt.Errorf("put: %w", err))
		return
	}
	tx.run.write(tx.ns+key, put)
}

// Delete stages the deletion of a key. A key that does not exist is no error.
func (tx *Tx) Delete(key string) {
	if key == "" {
		tx.run.fail(fmt.Errorf("delete: %w", ErrEmptyKey))
		return
	}
	tx.run.write(tx.ns+key, nil)
}

// If adds conditions to the commit. One that does not hold is a conflict: the transaction is run again.
func (tx *Tx) If(compares ...Compare) {
	tx.run.ifs = append(tx.run.ifs, tx.wire(compares)...)
}

// Require adds a guard to the commit. If it does not hold, Update ends with an error that wraps lost and
// [ErrGuardFailed], and does not run again.
func (tx *Tx) Require(lost error, guard ...Compare) {
	tx.run.guards = append(tx.run.guards, txGuard{lost: lost, compares: tx.wire(guard)})
}

func (tx *Tx) wire(compares []Compare) []*pb.Compare {
	out, err := wireCompares(compares, tx.ns)
	if err != nil {
		tx.run.fail(err)
	}
	return out
}

// Stage adds an operation that is executed as it is, after the staged writes. Reads of the transaction do not see it;
// it may not touch keys that Put and Delete stage.
func (tx *Tx) Stage(op Op) *Staged {
	wire, err := op.wire(tx.ns)
	if err != nil {
		tx.run.fail(fmt.Errorf("stage: %w", err))
	}
	s := &Staged{op: wire, ns: tx.ns}
	tx.run.staged = append(tx.run.staged, s)
	return s
}

// BeforeCommit runs f after the Update's function has returned without error, in the order of the calls. It may read
// and stage more; an error ends the Update.
func (tx *Tx) BeforeCommit(f func() error) { tx.run.before = append(tx.run.before, f) }

// AfterCommit runs f once the transaction is known to have been committed, with its revision, in the order of the calls.
// Hooks of a run that was not committed are forgotten.
func (tx *Tx) AfterCommit(f func(rev Revision)) { tx.run.after = append(tx.run.after, f) }

// ---- the run

// fail makes sure that the run is not committed.
func (r *txRun) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// get returns a key as the run sees it, and whether it exists.
func (r *txRun) get(key string) (KV, bool, error) {
	put, written := r.written[key]
	if written && put == nil {
		return KV{}, false, nil
	}
	if written && !put.IgnoreValue {
		return overlay(r.read[key], put), true, nil
	}
	kv, err := r.snapshot(key)
	if written {
		return overlay(kv, put), true, err
	}
	return kv, kv.ModRevision > 0, err
}

// overlay returns a key as it will be after a staged write, with what is known of it from before.
func overlay(kv KV, put *pb.PutRequest) KV {
	kv.Key = string(put.Key)
	if !put.IgnoreValue {
		kv.Value = put.Value
	}
	if !put.IgnoreLease {
		kv.Lease = LeaseID(put.Lease)
	}
	return kv
}

// snapshot returns a key as it was at the run's revision. A key that did not exist has a ModRevision of zero.
func (r *txRun) snapshot(key string) (KV, error) {
	if kv, ok := r.read[key]; ok {
		return kv, nil
	}
	if slices.ContainsFunc(r.ranges, func(k keyRange) bool { return k.holds(key) }) {
		return KV{}, nil // it would be in read
	}
	res, err := r.fetch(keyRange{key: key}, 0)
	if err != nil {
		return KV{}, err
	}
	var kv KV
	if len(res.KVs) > 0 {
		kv = res.KVs[0]
	}
	r.note(key, kv)
	return kv, nil
}

// list returns the first keys of a range as the run sees them; all for a limit of zero.
func (r *txRun) list(keys keyRange, limit int64) ([]KV, error) {
	// Each staged deletion may take one key from the answer, which others behind it replace.
	fetch := limit
	for _, key := range r.order {
		if limit > 0 && r.written[key] == nil && keys.holds(key) {
			fetch++
		}
	}
	res, err := r.fetch(keys, fetch)
	if err != nil {
		return nil, err
	}
	seen := keys
	if res.More {
		seen.end = afterKey(res.KVs[len(res.KVs)-1].Key)
	}
	if !slices.Contains(r.ranges, seen) {
		r.ranges = append(r.ranges, seen)
	}
	out := make([]KV, 0, len(res.KVs))
	for _, kv := range res.KVs {
		r.note(kv.Key, kv)
		if put, written := r.written[kv.Key]; !written {
			out = append(out, kv)
		} else if put != nil {
			out = append(out, overlay(kv, put))
		}
	}
	for _, key := range r.order {
		// A new key behind what was read is left out: there may be others before it that were not read.
		if put := r.written[key]; put != nil && seen.holds(key) && r.read[key].ModRevision == 0 {
			out = append(out, overlay(KV{}, put))
		}
	}
	slices.SortFunc(out, func(a, b KV) int { return strings.Compare(a.Key, b.Key) })
	if limit > 0 && int64(len(out)) > limit {
		out = out[:limit]
	}
	return out, nil
}

// fetch reads from the server at the run's revision, which the first read sets.
func (r *txRun) fetch(keys keyRange, limit int64) (*GetResult, error) {
	if r.ended {
		return nil, errors.New("transaction has ended")
	}
	if r.err != nil {
		return nil, r.err
	}
	res, err := r.client.get(r.ctx, &getRequest{
		pb: &pb.RangeRequest{Revision: int64(r.rev), Limit: limit}, keys: keys,
	})
	if err != nil {
		r.stale = errors.Is(err, ErrCompacted)
		r.fail(err)
		return nil, err
	}
	if r.rev == 0 {
		r.rev = res.Revision
	}
	return res, nil
}

// note remembers a key as it was read.
func (r *txRun) note(key string, kv KV) {
	if _, ok := r.read[key]; !ok {
		r.readKeys = append(r.readKeys, key)
	}
	r.read[key] = kv
}

// write stages a write, or a deletion if put is nil.
func (r *txRun) write(key string, put *pb.PutRequest) {
	if _, ok := r.written[key]; !ok {
		r.order = append(r.order, key)
	}
	r.written[key] = put
}
