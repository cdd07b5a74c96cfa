package contention

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/api/v3lockpb"
)

// Lock is the lock service.
type Lock struct {
	config Config
	v3lockpb.UnsafeLockServer
}

// NewLock returns the lock service.
func NewLock(c Config) *Lock { return &Lock{config: c} }

var _ v3lockpb.LockServer = (*Lock)(nil)

// Lock waits until the caller has the lock.
func (l *Lock) Lock(ctx context.Context, r *v3lockpb.LockRequest) (*v3lockpb.LockResponse, error) {
	p, err := l.config.contend(ctx, r.Name, r.Lease)
	if err != nil {
		return nil, err
	}
	first, header, err := l.config.enter(ctx, p, nil)
	if err == nil && !first {
		header, err = l.config.wait(ctx, p, errLockExpired)
	}
	if err != nil {
		l.config.leave(ctx, p)
		return nil, err
	}
	return &v3lockpb.LockResponse{Header: header, Key: p.key}, nil
}

// Unlock deletes the caller's key.
func (l *Lock) Unlock(ctx context.Context, r *v3lockpb.UnlockRequest) (*v3lockpb.UnlockResponse, error) {
	resp, err := l.config.KV.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: r.Key})
	if err != nil {
		return nil, plain(err)
	}
	return &v3lockpb.UnlockResponse{Header: resp.Header}, nil
}
