package contention

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/watch"
)

const (
	// sessionTTL is the time to live, in seconds, of a lease that the server makes for a caller without one; as in etcd.
	sessionTTL = 60
	// renewInterval is how often such a lease is renewed while the call waits.
	renewInterval = sessionTTL * time.Second / 3
	// cleanUpTimeout bounds the removal of what a failed call put into the store.
	cleanUpTimeout = 5 * time.Second
)

// Errors with etcd's texts, where etcd has one. It gives no code to them.
var (
	errLockExpired     = status.Error(codes.Unknown, "mutex: session is expired")
	errCampaignExpired = status.Error(codes.Unknown, "election: session is expired")
	errNotLeader       = status.Error(codes.Unknown, "election: not leader")
	errNoLeader        = status.Error(codes.Unknown, "election: no leader")
	errNoLeaderKey     = status.Error(codes.Unknown, `"leader" field must be provided`)
)

// KV reads and writes as the caller of the context may.
type KV interface {
	Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error)
	DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error)
	Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error)
}

// Leases makes and ends leases as the caller of the context may.
type Leases interface {
	LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error)
	LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error)
}

// Renewer gives a lease its full time to live again. state.ErrLeaseNotFound: it has ended.
type Renewer interface {
	Renew(ctx context.Context, id int64) (ttl int64, err error)
}

// Member is the member that serves the calls.
type Member interface {
	Hub() *watch.Hub
	// FillHeader sets the cluster id, member id and term of a response header.
	FillHeader(h *pb.ResponseHeader)
	// HasLeader reports whether this member knows a leader now.
	HasLeader() bool
	// Leaderless returns a channel that is closed once this member has known no leader for long.
	Leaderless() <-chan struct{}
	// Stopping returns a channel that is closed when the member begins to stop.
	Stopping() <-chan struct{}
}

// Config is what the services work with. All fields are required.
type Config struct {
	KV      KV
	Leases  Leases
	Renewer Renewer
	Member  Member
	Logger  *slog.Logger
}

// contender is one call's place in the line for a name.
type contender struct {
	lease  int64
	own    bool   // the lease was made for this call
	prefix []byte // "<name>/"
	key    []byte
	rev    int64 // at which the key was created; 0 while it is not known to exist
	made   bool  // the key was made by this call
	value  []byte
}

// prefixOf returns what the keys of all contenders for a name begin with.
func prefixOf(name []byte) []byte { return fmt.Appendf(nil, "%s/", name) }

// contend gets a lease for the caller if it has none.
func (c Config) contend(ctx context.Context, name []byte, lease int64) (*contender, error) {
	p := &contender{lease: lease, prefix: prefixOf(name)}
	if lease == 0 {
		granted, err := c.Leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: sessionTTL})
		if err != nil {
			return nil, plain(err)
		}
		p.lease, p.own = granted.ID, true
	}
	p.key = fmt.Appendf(nil, "%s%x", p.prefix, p.lease)
	return p, nil
}

// enter puts the contender at the end of the line, unless it stands there already, and reports whether it is the first.
func (c Config) enter(ctx context.Context, p *contender, value []byte) (first bool, h *pb.ResponseHeader, err error) {
	front := rangeOp(firstOf(p.prefix))
	resp, err := c.txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(p.key, 0)},
		Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: p.key, Value: value, Lease: p.lease}), front},
		Failure: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: p.key}), front},
	})
	if err != nil {
		return false, nil, err
	}
	p.rev, p.made, p.value = resp.Header.Revision, resp.Succeeded, value
	if !resp.Succeeded {
		own := resp.Responses[0].GetResponseRange().Kvs[0]
		p.rev, p.value = own.CreateRevision, own.Value
	}
	owner := resp.Responses[1].GetResponseRange().Kvs
	return len(owner) == 0 || owner[0].CreateRevision == p.rev, resp.Header, nil
}

// wait returns once the contender is the first, with the header of the answer that said so, or with expired once its
// key is gone.
func (c Config) wait(ctx context.Context, p *contender, expired error) (*pb.ResponseHeader, error) {
	for {
		resp, err := c.txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
			rangeOp(&pb.RangeRequest{Key: p.key, KeysOnly: true}),
			rangeOp(&pb.RangeRequest{
				Key: p.prefix, RangeEnd: endOf(p.prefix), MaxCreateRevision: p.rev - 1, Limit: 1, KeysOnly: true,
				SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_DESCEND,
			}),
		}})
		if err != nil {
			return nil, err
		}
		own := resp.Responses[0].GetResponseRange().Kvs
		if len(own) == 0 || own[0].CreateRevision != p.rev {
			return nil, expired
		}
		inFront := resp.Responses[1].GetResponseRange().Kvs
		if len(inFront) == 0 {
			return resp.Header, nil
		}
		f := follower{config: c, start: resp.Header.Revision + 1, noPut: true}
		if p.own {
			f.renew = func() error { return c.renew(ctx, p, expired) }
		}
		err = f.follow(ctx, []watch.Range{{Start: string(inFront[0].Key)}, {Start: string(p.key)}},
			func([]*mvccpb.Event, int64) (bool, error) { return true, nil })
		if err != nil {
			return nil, err
		}
	}
}

// renew keeps the lease that was made for the call. That it got no answer is no reason to give up: the key tells when
// it is too late.
func (c Config) renew(ctx context.Context, p *contender, expired error) error {
	ctx, cancel := context.WithTimeout(ctx, renewInterval/2)
	defer cancel()
	if _, err := c.Renewer.Renew(ctx, p.lease); errors.Is(err, state.ErrLeaseNotFound) {
		return expired
	}
	return nil
}

// leave removes what the call put into the store, after it failed. The caller may be gone already, and its rights are
// still those that count; that it wants to be refused without a leader is not meant for this.
func (c Config) leave(ctx context.Context, p *contender) {
	md, _ := metadata.FromIncomingContext(ctx)
	md = md.Copy()
	md.Delete(rpctypes.MetadataRequireLeaderKey)
	ctx = metadata.NewIncomingContext(context.WithoutCancel(ctx), md)
	ctx, cancel := context.WithTimeout(ctx, cleanUpTimeout)
	defer cancel()
	var err error
	switch {
	case p.own:
		_, err = c.Leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: p.lease})
		if errors.Is(err, rpctypes.ErrGRPCLeaseNotFound) {
			err = nil
		}
	case p.made:
		_, err = c.KV.Txn(ctx, &pb.TxnRequest{
			Compare: []*pb.Compare{createdAt(p.key, p.rev)},
			Success: []*pb.RequestOp{deleteOp(p.key)},
		})
	}
	if err != nil {
		c.Logger.Warn("the key of a contender who gave up is left to its lease", "lease", p.lease, "err", err)
	}
}

// ---- requests

func (c Config) txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp, err := c.KV.Txn(ctx, r)
	return resp, plain(err)
}

func (c Config) read(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	resp, err := c.KV.Range(ctx, r)
	return resp, plain(err)
}

// plain gives etcd's errors the code that they have when they come out of its lock and election services: these are
// clients of their own server, and a client's errors have none. Clients match the pair.
func plain(err error) error {
	if e, ok := rpctypes.Error(err).(rpctypes.EtcdError); ok { //nolint:errorlint // it is the value itself, never wrapped
		return status.Error(codes.Unknown, e.Error())
	}
	return err
}

// firstOf asks for the first in the line below prefix.
func firstOf(prefix []byte) *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: prefix, RangeEnd: endOf(prefix), Limit: 1,
		SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND,
	}
}

// endOf returns the key behind all that begin with prefix, which ends in "/".
func endOf(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

func createdAt(key []byte, rev int64) *pb.Compare {
	return &pb.Compare{
		Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev},
	}
}

func putOp(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func deleteOp(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
}

// Refusal is the error of a call of these services that is refused, for want of rights, before they are asked.
func Refusal(err error) error {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument:
		return plain(err)
	default:
		return err
	}
}
