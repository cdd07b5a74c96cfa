package contention

import (
	"bytes"
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/latchkey-go/latchkey/api/v3electionpb"
	"github.com/latchkey-go/latchkey/server/internal/watch"
)

// Election is the election service.
type Election struct {
	config Config
	v3electionpb.UnsafeElectionServer
}

// NewElection returns the election service.
func NewElection(c Config) *Election { return &Election{config: c} }

var _ v3electionpb.ElectionServer = (*Election)(nil)

// Campaign waits until the caller is elected. The header is that of its entry into the line, as in etcd.
func (e *Election) Campaign(ctx context.Context, r *v3electionpb.CampaignRequest) (*v3electionpb.CampaignResponse, error) {
	p, err := e.config.contend(ctx, r.Name, r.Lease)
	if err != nil {
		return nil, err
	}
	leader := &v3electionpb.LeaderKey{Name: r.Name, Key: p.key, Lease: p.lease}
	first, header, err := e.config.enter(ctx, p, r.Value)
	leader.Rev = p.rev
	if err == nil && !bytes.Equal(p.value, r.Value) {
		_, err = e.proclaim(ctx, leader, r.Value)
	}
	if err == nil && !first {
		_, err = e.config.wait(ctx, p, errCampaignExpired)
	}
	if err != nil {
		e.config.leave(ctx, p)
		return nil, err
	}
	return &v3electionpb.CampaignResponse{Header: header, Leader: leader}, nil
}

// Proclaim replaces the value of a leader, or of a candidate.
func (e *Election) Proclaim(ctx context.Context, r *v3electionpb.ProclaimRequest) (*v3electionpb.ProclaimResponse, error) {
	if r.Leader == nil {
		return nil, errNoLeaderKey
	}
	header, err := e.proclaim(ctx, r.Leader, r.Value)
	if err != nil {
		return nil, err
	}
	return &v3electionpb.ProclaimResponse{Header: header}, nil
}

func (e *Election) proclaim(ctx context.Context, leader *v3electionpb.LeaderKey, value []byte) (*pb.ResponseHeader, error) {
	resp, err := e.config.txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(leader.Key, leader.Rev)},
		Success: []*pb.RequestOp{putOp(&pb.PutRequest{
			Key: leader.Key, Value: value, Lease: leader.Lease, IgnoreLease: leader.Lease == 0,
		})},
	})
	switch {
	case err != nil:
		return nil, err
	case !resp.Succeeded:
		return nil, errNotLeader
	}
	return resp.Header, nil
}

// Resign deletes the key of a leader, or of a candidate. As in etcd, that it is gone is no error.
func (e *Election) Resign(ctx context.Context, r *v3electionpb.ResignRequest) (*v3electionpb.ResignResponse, error) {
	if r.Leader == nil {
		return nil, errNoLeaderKey
	}
	resp, err := e.config.txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(r.Leader.Key, r.Leader.Rev)},
		Success: []*pb.RequestOp{deleteOp(r.Leader.Key)},
	})
	if err != nil {
		return nil, err
	}
	return &v3electionpb.ResignResponse{Header: resp.Header}, nil
}

// Leader returns the leader's key and value.
func (e *Election) Leader(ctx context.Context, r *v3electionpb.LeaderRequest) (*v3electionpb.LeaderResponse, error) {
	resp, err := e.config.read(ctx, firstOf(prefixOf(r.Name)))
	switch {
	case err != nil:
		return nil, err
	case len(resp.Kvs) == 0:
		return nil, errNoLeader
	}
	return &v3electionpb.LeaderResponse{Header: resp.Header, Kv: resp.Kvs[0]}, nil
}

// Observe sends the leader and what follows.
func (e *Election) Observe(r *v3electionpb.LeaderRequest, stream grpc.ServerStreamingServer[v3electionpb.LeaderResponse]) error {
	ctx, prefix := stream.Context(), prefixOf(r.Name)
	if requiresLeader(ctx) && !e.config.Member.HasLeader() {
		return rpctypes.ErrGRPCNoLeader
	}
	o := &observer{Election: e, stream: stream}
	for {
		resp, err := e.config.read(ctx, firstOf(prefix))
		if err != nil {
			return err
		}
		o.leader = nil
		keys := watch.Range{Start: string(prefix), End: string(endOf(prefix))}
		if len(resp.Kvs) > 0 {
			o.leader = resp.Kvs[0].Key
			keys = watch.Range{Start: string(o.leader)}
			err = stream.Send(&v3electionpb.LeaderResponse{Header: resp.Header, Kv: resp.Kvs[0]})
		}
		if err == nil {
			err = o.follow(ctx, keys, resp.Header.Revision+1)
		}
		if err != nil {
			return err
		}
	}
}

// observer is one call of Observe.
type observer struct {
	*Election
	stream grpc.ServerStreamingServer[v3electionpb.LeaderResponse]
	leader []byte // the leader's key; nil while there is none
}

// follow sends the values of the leader until its key is deleted. Without a leader it waits for the first key, whose
// owner leads.
func (o *observer) follow(ctx context.Context, r watch.Range, start int64) error {
	f := follower{config: o.config, start: start}
	return f.follow(ctx, []watch.Range{r}, func(events []*mvccpb.Event, revision int64) (bool, error) {
		for _, ev := range events {
			switch {
			case o.leader != nil && !bytes.Equal(ev.Kv.Key, o.leader):
				continue
			case ev.Type == mvccpb.Event_DELETE && o.leader != nil:
				return true, nil
			case ev.Type == mvccpb.Event_DELETE:
				continue
			}
			o.leader = ev.Kv.Key
			if err := o.send(ctx, ev.Kv, revision); err != nil {
				return false, err
			}
		}
		return false, nil
	})
}

// send hands out a value, if the caller may still read it.
func (o *observer) send(ctx context.Context, kv *mvccpb.KeyValue, revision int64) error {
	_, err := o.config.read(ctx, &pb.RangeRequest{Key: kv.Key, CountOnly: true, Serializable: true})
	if err != nil {
		return err
	}
	header := &pb.ResponseHeader{Revision: revision}
	o.config.Member.FillHeader(header)
	return o.stream.Send(&v3electionpb.LeaderResponse{Header: header, Kv: kv})
}
