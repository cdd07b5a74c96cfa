package rpc

import (
	"bytes"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// streamChunkKeys is the number of keys of a stream's first chunk. Later ones
// double or halve toward the byte limit, so that a stream of small values does
// not pay a message for a few keys and one of large values stays within it.
const streamChunkKeys = 10

// streamRange sends the answer to r in chunks of about chunkBytes, all of one
// revision of one view.
func streamRange(view *state.View, r *pb.RangeRequest, chunkBytes int, send func(*pb.RangeResponse) error) error {
	total, err := view.Range(&pb.RangeRequest{
		Key: r.Key, RangeEnd: r.RangeEnd, Revision: r.Revision, CountOnly: true,
	})
	if err != nil {
		return err
	}
	last := &pb.RangeResponse{Header: total.Header, Count: total.Count}
	if r.CountOnly {
		return send(last)
	}
	left := total.Count
	if r.Limit > 0 && r.Limit < left {
		left = r.Limit
		last.More = true
	}
	page := &pb.RangeRequest{
		Key: r.Key, RangeEnd: r.RangeEnd, Revision: r.Revision, KeysOnly: r.KeysOnly,
		Limit:      min(streamChunkKeys, left),
		SortTarget: r.SortTarget, // without an order: like etcd, each chunk is sorted by it, and not the whole
	}
	for left > 0 {
		found, err := view.Range(page)
		if err != nil {
			return err
		}
		left -= int64(len(found.Kvs))
		if left <= 0 || len(found.Kvs) == 0 {
			last.Kvs = found.Kvs
			break
		}
		chunk := &pb.RangeResponse{Kvs: found.Kvs}
		if err := send(chunk); err != nil {
			return err
		}
		page.Limit = min(nextChunk(page.Limit, proto.Size(chunk), chunkBytes), left)
		greatest := slices.MaxFunc(found.Kvs, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
		page.Key = append(bytes.Clone(greatest.Key), 0)
	}
	return send(last)
}

// nextChunk is the number of keys of the chunk after one of keys and size.
func nextChunk(keys int64, size, chunkBytes int) int64 {
	switch {
	case size > chunkBytes:
		return max(keys/2, 1)
	case size < chunkBytes/2:
		return keys * 2
	default:
		return keys
	}
}
