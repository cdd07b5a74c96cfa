package client

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Member is a member of the cluster.
type Member struct {
	ID         uint64
	Name       string // empty while the member has not started yet
	PeerURLs   []string
	ClientURLs []string
	Learner    bool
}

// Status is what one member tells about itself.
type Status struct {
	Endpoint  string
	ClusterID uint64
	MemberID  uint64
	Leader    uint64 // the member that it takes for the leader; zero for none
	Version   string
	Learner   bool
	Revision  Revision
	Term      uint64 // of raft
	Index     uint64 // last committed entry of its raft log
	Applied   uint64 // last applied entry
	Size      int64  // of its data, bytes
	SizeInUse int64  // of which are not free, bytes
	Errors    []string
}

// Members lists the members of the cluster. The answer is linearizable.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	var resp pb.MemberListResponse
	if err := c.core.call(ctx, methodMembers, &pb.MemberListRequest{Linearizable: true}, &resp); err != nil {
		return nil, err
	}
	out := make([]Member, len(resp.Members))
	for i, m := range resp.Members {
		out[i] = Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner}
	}
	return out, nil
}

// Status asks one member, named by its endpoint as in Config.Endpoints, and no other. [ErrUnavailable] when it does not
// answer.
func (c *Client) Status(ctx context.Context, endpoint string) (Status, error) {
	var resp pb.StatusResponse
	name, err := c.core.ask(ctx, endpoint, methodStatus, &pb.StatusRequest{}, &resp)
	if err != nil {
		return Status{}, err
	}
	return Status{
		Endpoint:  name,
		ClusterID: resp.Header.GetClusterId(),
		MemberID:  resp.Header.GetMemberId(),
		Leader:    resp.Leader,
		Version:   resp.Version,
		Learner:   resp.IsLearner,
		Revision:  revisionOf(resp.Header),
		Term:      resp.RaftTerm,
		Index:     resp.RaftIndex,
		Applied:   resp.RaftAppliedIndex,
		Size:      resp.DbSize,
		SizeInUse: resp.DbSizeInUse,
		Errors:    resp.Errors,
	}, nil
}
