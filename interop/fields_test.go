package interop_test

import (
	"cmp"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

type kv = mvccpb.KeyValue

// compareField compares two keys by the field that a range sorts by.
func compareField(target pb.RangeRequest_SortTarget, a, b *kv) int {
	switch target {
	case pb.RangeRequest_VERSION:
		return cmp.Compare(a.Version, b.Version)
	case pb.RangeRequest_CREATE:
		return cmp.Compare(a.CreateRevision, b.CreateRevision)
	case pb.RangeRequest_MOD:
		return cmp.Compare(a.ModRevision, b.ModRevision)
	case pb.RangeRequest_VALUE:
		return slices.Compare(a.Value, b.Value)
	default:
		return slices.Compare(a.Key, b.Key)
	}
}

// sortFieldOnly keeps of a key what a range sorts by.
func sortFieldOnly(target pb.RangeRequest_SortTarget, k *kv) *kv {
	switch target {
	case pb.RangeRequest_VERSION:
		return &kv{Version: k.Version}
	case pb.RangeRequest_CREATE:
		return &kv{CreateRevision: k.CreateRevision}
	case pb.RangeRequest_MOD:
		return &kv{ModRevision: k.ModRevision}
	case pb.RangeRequest_VALUE:
		return &kv{Value: k.Value}
	default:
		return &kv{Key: k.Key}
	}
}
