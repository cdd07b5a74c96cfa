package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

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
	if h, ok := b.keeper.given.at(rev); ok && rev == b.compacted.Load() {
		h.Current = b.revision.Load()
		return h, nil
	}
	found, err := b.hashKV(ctx, rev)
	h := rpc.KVHash{Hash: found.Hash, Compact: found.Compact, Revision: found.Revision, Current: found.Current}
	if err == nil {
		b.keeper.given.add(h)
	}
	return h, err
}

// givenHashes are the newest hashes that were given out. One of them is given
// again once history was compacted at its revision, as etcd does: it is of more
// than what is left.
type givenHashes struct {
	mu   sync.Mutex // protects list
	list []rpc.KVHash
}

// givenHashesMax is how many are remembered, as in etcd.
const givenHashesMax = 10

func (g *givenHashes) add(h rpc.KVHash) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list = slices.DeleteFunc(g.list, func(old rpc.KVHash) bool { return old.Revision == h.Revision })
	if len(g.list) == givenHashesMax {
		g.list = slices.Delete(g.list, 0, 1)
	}
	g.list = append(g.list, h)
}

func (g *givenHashes) at(rev int64) (rpc.KVHash, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.list, func(h rpc.KVHash) bool { return h.Revision == rev })
	if i < 0 {
		return rpc.KVHash{}, false
	}
	return g.list[i], true
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
