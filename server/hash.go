package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// hashTriesMax is how often a hash is begun again because a compaction was
// applied in the middle of it.
const hashTriesMax = 10

// errHashMoved: a compaction overtook the hash.
var errHashMoved = errors.New("compacted meanwhile")

// hashKV hashes this member's versions up to a revision, or all for 0, as etcd
// does. It saves the checkpoint first, which it then reads.
func (s *Server) hashKV(ctx context.Context, rev int64) (checkpoint.KVHash, error) {
	for range hashTriesMax {
		if err := s.keeper.saveNow(ctx); err != nil {
			return checkpoint.KVHash{}, err
		}
		h, err := s.keeper.store.HashKV(rev, s.keptAt)
		if !errors.Is(err, errHashMoved) {
			return h, err
		}
	}
	return checkpoint.KVHash{}, fmt.Errorf("%w: history is compacted faster than it can be hashed", rpc.ErrTooManyRequests)
}

// keptAt tells which versions at or below the compact revision etcd hashes:
// those that can be read at rev, and if nothing can be, all that the
// compaction has left.
func (s *Server) keptAt(compact, rev int64) (checkpoint.Kept, error) {
	view := s.store.view()
	if view.CompactRevision() != compact {
		return nil, errHashMoved
	}
	at := rev
	if view.EmptyAt(rev) {
		at = compact
	}
	return func(key string, r state.Revision) bool {
		found, ok := view.At(key, at)
		return ok && found == r
	}, nil
}

// HashKV implements rpc.Custodian.
func (b backend) HashKV(ctx context.Context, rev int64) (rpc.KVHash, error) {
	h, err := b.hashKV(ctx, rev)
	return rpc.KVHash{Hash: h.Hash, Compact: h.Compact, Revision: h.Revision, Current: h.Current}, err
}

// Hash implements rpc.Custodian.
func (b backend) Hash(ctx context.Context) (sum uint32, rev int64, err error) {
	if err := b.keeper.saveNow(ctx); err != nil {
		return 0, 0, err
	}
	rev = b.revision.Load()
	sum, err = b.keeper.store.Hash()
	return sum, rev, err
}

// Save implements rpc.Custodian.
func (b backend) Save(ctx context.Context) error { return b.keeper.saveNow(ctx) }

// Snapshot implements rpc.Custodian: what was acknowledged before the call is
// in the copy.
func (b backend) Snapshot(ctx context.Context) (rpc.Snapshot, error) {
	if err := b.keeper.saveNow(ctx); err != nil {
		return nil, err
	}
	return b.keeper.snapshot()
}
