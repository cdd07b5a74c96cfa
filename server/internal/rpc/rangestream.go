package rpc

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
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
	key, keys := r.Key, int64(streamChunkKeys)
	for {
		page, err := view.Page(key, r.RangeEnd, r.Revision, min(keys, left), r.KeysOnly)
		if err != nil {
			return err
		}
		left -= int64(len(page))
		if left <= 0 || len(page) == 0 {
			last.Kvs = page
			return send(last)
		}
		chunk := &pb.RangeResponse{Kvs: page}
		if err := send(chunk); err != nil {
			return err
		}
		if size := proto.Size(chunk); size > chunkBytes {
			keys = max(keys/2, 1)
		} else if size < chunkBytes/2 {
			keys *= 2
		}
		key = append(append([]byte(nil), page[len(page)-1].Key...), 0)
	}
}
