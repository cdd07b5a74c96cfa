package server

import (
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// archive reads for watchers what the event history in memory no longer holds.
type archive struct {
	rows  *checkpoint.Store
	store *store
}

// Scan implements watch.Archive.
func (a archive) Scan(from, to int64, fn func(*state.Version) bool) error {
	return a.rows.Scan(from, to, fn)
}

// At implements watch.Archive.
func (a archive) At(key string, rev int64) (*mvccpb.KeyValue, error) {
	got, err := a.store.view().Range(&pb.RangeRequest{Key: []byte(key), Revision: rev})
	switch {
	case errors.Is(err, state.ErrCompacted):
		return nil, nil
	case err != nil || len(got.Kvs) == 0:
		return nil, err
	default:
		return got.Kvs[0], nil
	}
}
