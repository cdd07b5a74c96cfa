package client

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Compare is a condition of a transaction. Made by the methods of a [Field], or by [Exists] and [Missing].
type Compare struct {
	keys   keyRange
	target pb.Compare_CompareTarget
	result pb.Compare_CompareResult
	number int64
	value  []byte
}

// Field is a field of a key, or of all keys of a range, that a transaction can compare. Over a range, the condition
// must hold for every key of it. A key that does not exist compares as zero in every field but its value, of which no
// comparison is true; so does a range without keys.
type Field[V any] struct {
	keys   keyRange
	target pb.Compare_CompareTarget
	set    func(*Compare, V)
}

// ModRevision is the revision of a key's last change.
func ModRevision(key string, over ...RangeOption) Field[Revision] {
	return field(key, over, pb.Compare_MOD, func(c *Compare, v Revision) { c.number = int64(v) })
}

// CreateRevision is the revision at which a key came into being.
func CreateRevision(key string, over ...RangeOption) Field[Revision] {
	return field(key, over, pb.Compare_CREATE, func(c *Compare, v Revision) { c.number = int64(v) })
}

// Version is the number of changes since a key came into being.
func Version(key string, over ...RangeOption) Field[int64] {
	return field(key, over, pb.Compare_VERSION, func(c *Compare, v int64) { c.number = v })
}

// Lease is the lease that a key is attached to.
func Lease(key string, over ...RangeOption) Field[LeaseID] {
	return field(key, over, pb.Compare_LEASE, func(c *Compare, v LeaseID) { c.number = int64(v) })
}

// Value is a key's value, compared byte by byte.
func Value(key string, over ...RangeOption) Field[[]byte] {
	return field(key, over, pb.Compare_VALUE, func(c *Compare, v []byte) { c.value = v })
}

// Exists holds when the key exists.
func Exists(key string) Compare { return CreateRevision(key).Greater(0) }

// Missing holds when the key, or every key of the range, does not exist.
func Missing(key string, over ...RangeOption) Compare { return CreateRevision(key, over...).Equal(0) }

// Equal holds when the field is v.
func (f Field[V]) Equal(v V) Compare { return f.compare(pb.Compare_EQUAL, v) }

// NotEqual holds when the field is not v.
func (f Field[V]) NotEqual(v V) Compare { return f.compare(pb.Compare_NOT_EQUAL, v) }

// Less holds when the field is less than v.
func (f Field[V]) Less(v V) Compare { return f.compare(pb.Compare_LESS, v) }

// Greater holds when the field is greater than v.
func (f Field[V]) Greater(v V) Compare { return f.compare(pb.Compare_GREATER, v) }

func field[V any](key string, over []RangeOption, target pb.Compare_CompareTarget, set func(*Compare, V)) Field[V] {
	keys := keyRange{key: key}
	for _, o := range over {
		keys = o.rangeFrom(key)
	}
	return Field[V]{keys: keys, target: target, set: set}
}

func (f Field[V]) compare(result pb.Compare_CompareResult, v V) Compare {
	c := Compare{keys: f.keys, target: f.target, result: result}
	f.set(&c, v)
	return c
}

// wire returns the condition as the server must see it for a client with namespace ns.
func (c Compare) wire(ns string) *pb.Compare {
	keys := c.keys.in(ns)
	out := &pb.Compare{Key: []byte(keys.key), RangeEnd: []byte(keys.end), Target: c.target, Result: c.result}
	switch c.target {
	case pb.Compare_MOD:
		out.TargetUnion = &pb.Compare_ModRevision{ModRevision: c.number}
	case pb.Compare_CREATE:
		out.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: c.number}
	case pb.Compare_VERSION:
		out.TargetUnion = &pb.Compare_Version{Version: c.number}
	case pb.Compare_LEASE:
		out.TargetUnion = &pb.Compare_Lease{Lease: c.number}
	default:
		out.TargetUnion = &pb.Compare_Value{Value: c.value}
	}
	return out
}

func wireCompares(compares []Compare, ns string) ([]*pb.Compare, error) {
	out := make([]*pb.Compare, len(compares))
	for i, c := range compares {
		if c.keys.single() && c.keys.key == "" {
			return nil, ErrEmptyKey
		}
		out[i] = c.wire(ns)
	}
	return out, nil
}
