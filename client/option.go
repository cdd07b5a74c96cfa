package client

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Options are typed by the operation that takes them: one that makes no sense for an operation does not compile there.
type (
	// GetOption is an option of Get and OpGet.
	GetOption interface{ applyGet(*getRequest) }
	// PutOption is an option of Put and OpPut.
	PutOption interface{ applyPut(*pb.PutRequest) }
	// DeleteOption is an option of Delete and OpDelete.
	DeleteOption interface{ applyDelete(*deleteRequest) }
	// WatchOption is an option of Watch and WatchBatches.
	WatchOption interface{ applyWatch(*watchRequest) }
	// CompactOption is an option of Compact.
	CompactOption interface {
		applyCompact(*pb.CompactionRequest)
	}

	// ReadOption says how to read, not what: an option of Get, GetOne and the reads of Typed.
	ReadOption interface {
		GetOption
		isReadOption()
	}
	// RangeOption widens an operation from one key to a range: an option of Get, Delete, Watch and of compares.
	RangeOption interface {
		GetOption
		DeleteOption
		WatchOption
		ListOption
		rangeFrom(key string) keyRange
	}
	// ListOption is an option of Tx.List: a RangeOption or Limit.
	ListOption interface{ applyList(*listRequest) }
	// PrevOption asks for what was there before: an option of Put, Delete and Watch.
	PrevOption interface {
		PutOption
		DeleteOption
		WatchOption
	}
)

// getRequest is what the options of a Get make.
type getRequest struct {
	pb   *pb.RangeRequest
	keys keyRange
}

// putRequest is what the options of a Put make.
type putRequest struct {
	pb  *pb.PutRequest
	key string
}

// deleteRequest is what the options of a Delete make.
type deleteRequest struct {
	pb   *pb.DeleteRangeRequest
	keys keyRange
}

// watchRequest is what the options of a Watch make.
type watchRequest struct {
	keys          keyRange
	from          Revision
	prev          bool
	progress      bool
	noPut         bool
	noDelete      bool
	withoutLeader bool
}

// listRequest is what the options of a Tx.List make.
type listRequest struct {
	keys  keyRange
	limit int64
}

// ---- ranges

// spread is the one RangeOption: how to get from the key to the range.
type spread struct{ from func(key string) keyRange }

func (s spread) rangeFrom(key string) keyRange { return s.from(key) }
func (s spread) applyGet(r *getRequest)        { r.keys = s.from(r.keys.key) }
func (s spread) applyDelete(r *deleteRequest)  { r.keys = s.from(r.keys.key) }
func (s spread) applyWatch(r *watchRequest)    { r.keys = s.from(r.keys.key) }
func (s spread) applyList(r *listRequest)      { r.keys = s.from(r.keys.key) }

// Prefix means all keys that start with the key. The empty key with Prefix means all keys (of the namespace).
func Prefix() RangeOption { return spread{prefixRange} }

// Range means all keys from the key up to end, without end itself. An empty range finds nothing; a watch of one fails.
func Range(end string) RangeOption {
	return spread{func(key string) keyRange { return keyRange{key: key, end: end} }}
}

// FromKey means the key and all keys behind it (in the namespace).
func FromKey() RangeOption {
	return spread{func(key string) keyRange { return keyRange{key: key, end: noEnd} }}
}

// ---- reads

type getOption func(*pb.RangeRequest)

func (o getOption) applyGet(r *getRequest) { o(r.pb) }

type readOption struct{ getOption }

func (readOption) isReadOption() {}

// AtRevision reads the store as it was at rev. Zero means now.
func AtRevision(rev Revision) ReadOption {
	return readOption{func(r *pb.RangeRequest) { r.Revision = int64(rev) }}
}

// Serializable lets the member that is asked answer from its own state: cheaper, and possible without a leader, but the
// answer may be old, older than what this client has written, and two such reads may go back in time when the client
// changes members.
func Serializable() ReadOption {
	return readOption{func(r *pb.RangeRequest) { r.Serializable = true }}
}

// limitOption is an option of Get and of Tx.List.
type limitOption int64

func (n limitOption) applyGet(r *getRequest)   { r.pb.Limit = int64(n) }
func (n limitOption) applyList(r *listRequest) { r.limit = int64(n) }

// Limit cuts the answer to the first n keys. Zero means no limit.
func Limit(n int64) interface {
	GetOption
	ListOption
} {
	return limitOption(n)
}

// KeysOnly leaves out the values.
func KeysOnly() GetOption { return getOption(func(r *pb.RangeRequest) { r.KeysOnly = true }) }

// CountOnly leaves out the keys: only Count is filled in.
func CountOnly() GetOption { return getOption(func(r *pb.RangeRequest) { r.CountOnly = true }) }

// MinModRevision leaves out keys that were last changed before rev.
func MinModRevision(rev Revision) GetOption {
	return getOption(func(r *pb.RangeRequest) { r.MinModRevision = int64(rev) })
}

// MaxModRevision leaves out keys that were last changed after rev.
func MaxModRevision(rev Revision) GetOption {
	return getOption(func(r *pb.RangeRequest) { r.MaxModRevision = int64(rev) })
}

// MinCreateRevision leaves out keys that came into being before rev.
func MinCreateRevision(rev Revision) GetOption {
	return getOption(func(r *pb.RangeRequest) { r.MinCreateRevision = int64(rev) })
}

// MaxCreateRevision leaves out keys that came into being after rev.
func MaxCreateRevision(rev Revision) GetOption {
	return getOption(func(r *pb.RangeRequest) { r.MaxCreateRevision = int64(rev) })
}

// SortTarget is what a Get sorts by.
type SortTarget int32

// The fields that a Get can sort by.
const (
	ByKey SortTarget = iota
	ByVersion
	ByCreateRevision
	ByModRevision
	ByValue
)

// Ascending sorts the answer by target, the smallest first. With Limit, it is sorted before it is cut.
func Ascending(target SortTarget) GetOption { return sorted(target, pb.RangeRequest_ASCEND) }

// Descending sorts the answer by target, the largest first. With Limit, it is sorted before it is cut.
func Descending(target SortTarget) GetOption { return sorted(target, pb.RangeRequest_DESCEND) }

func sorted(target SortTarget, order pb.RangeRequest_SortOrder) GetOption {
	return getOption(func(r *pb.RangeRequest) {
		r.SortOrder, r.SortTarget = order, pb.RangeRequest_SortTarget(target)
	})
}

// ---- writes

type putOption func(*pb.PutRequest)

func (o putOption) applyPut(r *pb.PutRequest) { o(r) }

// WithLease attaches the key to a lease: the key is deleted when the lease ends.
func WithLease(id LeaseID) PutOption {
	return putOption(func(r *pb.PutRequest) { r.Lease = int64(id) })
}

// KeepLease leaves the key with the lease that it has. [ErrKeyNotFound] when the key does not exist.
func KeepLease() PutOption { return putOption(func(r *pb.PutRequest) { r.IgnoreLease = true }) }

// KeepValue leaves the key's value as it is, to change only its lease. The value given must be empty.
// [ErrKeyNotFound] when the key does not exist.
func KeepValue() PutOption { return putOption(func(r *pb.PutRequest) { r.IgnoreValue = true }) }

type prevOption struct{}

func (prevOption) applyPut(r *pb.PutRequest)    { r.PrevKv = true }
func (prevOption) applyDelete(r *deleteRequest) { r.pb.PrevKv = true }
func (prevOption) applyWatch(r *watchRequest)   { r.prev = true }

// PrevKV asks for the keys as they were before the change.
func PrevKV() PrevOption { return prevOption{} }

type compactOption func(*pb.CompactionRequest)

func (o compactOption) applyCompact(r *pb.CompactionRequest) { o(r) }

// Physical waits until the member that is asked has removed the compacted history from its disk.
func Physical() CompactOption {
	return compactOption(func(r *pb.CompactionRequest) { r.Physical = true })
}

// ---- watches

type watchOption func(*watchRequest)

func (o watchOption) applyWatch(r *watchRequest) { o(r) }

// FromRevision starts a watch at rev instead of now: the first event is the first change at or after rev. A rev in the
// future waits for it. Zero means now.
func FromRevision(rev Revision) WatchOption {
	return watchOption(func(r *watchRequest) { r.from = rev })
}

// WithProgress makes WatchBatches yield batches without events that only tell the revision that the watch has reached,
// when the server sends them. Watch ignores it.
func WithProgress() WatchOption { return watchOption(func(r *watchRequest) { r.progress = true }) }

// WithoutPuts leaves out events of keys that were written.
func WithoutPuts() WatchOption { return watchOption(func(r *watchRequest) { r.noPut = true }) }

// WithoutDeletes leaves out events of keys that were deleted.
func WithoutDeletes() WatchOption { return watchOption(func(r *watchRequest) { r.noDelete = true }) }

// WithoutLeader keeps a watch on a member that has lost its leader, where it hears nothing new. By default, the watch
// moves to another member.
func WithoutLeader() WatchOption {
	return watchOption(func(r *watchRequest) { r.withoutLeader = true })
}
