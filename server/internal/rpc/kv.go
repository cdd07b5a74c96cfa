package rpc

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// KV serves ranges, puts, deletes, transactions and compaction.
type KV struct {
	store  Store
	guard  *Guard // nil refuses every read while users are needed
	limits Limits
	pb.UnsafeKVServer
}

// NewKV returns the KV service over store.
func NewKV(store Store, limits Limits) *KV {
	return &KV{store: store, limits: limits.WithDefaults()}
}

// Guarded has g decide who may read what.
func (s *KV) Guarded(g *Guard) *KV {
	s.guard = g
	return s
}

var _ pb.KVServer = (*KV)(nil)

// Range answers from a linearizable view, or from this member's own when the
// request says that it may.
func (s *KV) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	view, err := s.view(ctx, r.Serializable, r)
	if err != nil {
		return nil, wireError(err)
	}
	resp, err := view.Range(r)
	if err != nil {
		return nil, wireError(err)
	}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// Put writes one key.
func (s *KV) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	if err := checkPut(r); err != nil {
		return nil, err
	}
	return propose[*pb.PutResponse](ctx, s.store, state.Command{Kind: state.KindPut, Request: r})
}

// DeleteRange deletes the keys of a range.
func (s *KV) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	if err := checkDeleteRange(r); err != nil {
		return nil, err
	}
	return propose[*pb.DeleteRangeResponse](ctx, s.store, state.Command{Kind: state.KindDeleteRange, Request: r})
}

// Txn runs a transaction. One that only reads does not go through the log.
func (s *KV) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := checkTxn(r, s.limits.TxnOps); err != nil {
		return nil, err
	}
	if !state.IsReadOnly(r) {
		return propose[*pb.TxnResponse](ctx, s.store, state.Command{Kind: state.KindTxn, Request: r})
	}
	view, err := s.view(ctx, isSerializable(r), r)
	if err != nil {
		return nil, wireError(err)
	}
	resp, err := view.Txn(r)
	if err != nil {
		return nil, wireError(err)
	}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// Compact drops the history before a revision. With physical set it returns
// when the dropped versions are gone from memory and from the checkpoint.
func (s *KV) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	resp, err := propose[*pb.CompactionResponse](ctx, s.store, state.Command{Kind: state.KindCompact, Request: r})
	if err != nil || !r.Physical {
		return resp, err
	}
	return resp, wireError(s.store.WaitCompacted(ctx, r.Revision))
}

// RangeStream answers a range in chunks of one view. The chunks, merged, are
// the response that Range gives; the last one carries header, count and more.
func (s *KV) RangeStream(r *pb.RangeRequest, stream grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	if err := checkRangeStream(r); err != nil {
		return err
	}
	view, err := s.view(stream.Context(), r.Serializable, r)
	if err != nil {
		return wireError(err)
	}
	err = streamRange(view, r, s.limits.RequestBytes, func(chunk *pb.RangeResponse) error {
		if chunk.Header != nil {
			s.store.FillHeader(chunk.Header)
		}
		return stream.Send(&pb.RangeStreamResponse{RangeResponse: chunk})
	})
	return wireError(err)
}

// view returns a view that the caller may have the answer to r from.
func (s *KV) view(ctx context.Context, serializable bool, r proto.Message) (*state.View, error) {
	if serializable {
		view := s.store.View()
		return view, s.guard.Read(ctx, view.Auth(), r)
	}
	view, err := s.store.Read(ctx)
	if err != nil {
		return nil, err
	}
	return view, s.guard.Read(ctx, view.Auth(), r)
}

// isSerializable reports whether a read-only transaction may be answered by
// this member alone. etcd says yes for one that has compares and no range;
// its answer may then be stale, so here it is linearizable.
func isSerializable(r *pb.TxnRequest) bool {
	ranges := 0
	for op := range rangesOf(r) {
		if op == nil || !op.Serializable {
			return false
		}
		ranges++
	}
	return ranges > 0
}

// errResponseType can only mean a fault of ours: a command was answered by a
// message of another kind.
var errResponseType = errors.New("rpc: response of an unexpected type")

// propose sends a command through the log and completes the header of its
// response.
func propose[R interface {
	proto.Message
	GetHeader() *pb.ResponseHeader
}](ctx context.Context, store Store, c state.Command) (R, error) {
	var none R
	msg, err := store.Propose(ctx, c)
	if err != nil {
		return none, wireError(err)
	}
	resp, ok := msg.(R)
	if !ok {
		return none, wireError(errResponseType)
	}
	store.FillHeader(resp.GetHeader())
	return resp, nil
}
