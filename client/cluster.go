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
	return membersOf(resp.Members), nil
}

func membersOf(list []*pb.Member) []Member {
	out := make([]Member, len(list))
	for i, m := range list {
		out[i] = Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner}
	}
	return out
}

// AddMember adds a member that will listen to the others at peerURLs, as a voter, or as a learner that gets all data but
// does not vote until it is promoted. It returns the new member and all members, which is what the new one must be told
// when it starts. [ErrUnavailable] without [ErrUncertain] when the cluster refuses because too few members are healthy.
func (c *Client) AddMember(ctx context.Context, peerURLs []string, learner bool) (added Member, all []Member, err error) {
	var resp pb.MemberAddResponse
	req := &pb.MemberAddRequest{PeerURLs: peerURLs, IsLearner: learner}
	if err := c.core.call(ctx, methodAddMember, req, &resp); err != nil {
		return Member{}, nil, err
	}
	return membersOf([]*pb.Member{resp.Member})[0], membersOf(resp.Members), nil
}

// RemoveMember removes a member for ever and returns those that are left. The member stops, and its id is not used again.
func (c *Client) RemoveMember(ctx context.Context, id uint64) ([]Member, error) {
	var resp pb.MemberRemoveResponse
	if err := c.core.call(ctx, methodRemove, &pb.MemberRemoveRequest{ID: id}, &resp); err != nil {
		return nil, err
	}
	return membersOf(resp.Members), nil
}

// UpdateMember tells the cluster where a member listens to the others from now on.
func (c *Client) UpdateMember(ctx context.Context, id uint64, peerURLs []string) ([]Member, error) {
	var resp pb.MemberUpdateResponse
	if err := c.core.call(ctx, methodUpdate, &pb.MemberUpdateRequest{ID: id, PeerURLs: peerURLs}, &resp); err != nil {
		return nil, err
	}
	return membersOf(resp.Members), nil
}

// PromoteMember makes a learner a voter. [ErrNotSupported] while it has not caught up with the leader, or is none.
func (c *Client) PromoteMember(ctx context.Context, id uint64) ([]Member, error) {
	var resp pb.MemberPromoteResponse
	if err := c.core.call(ctx, methodPromote, &pb.MemberPromoteRequest{ID: id}, &resp); err != nil {
		return nil, err
	}
	return membersOf(resp.Members), nil
}

// MoveLeader has member id lead the cluster, and returns when it does. The endpoints must include the present leader's,
// which alone can do it: the others are asked in vain.
func (c *Client) MoveLeader(ctx context.Context, id uint64) error {
	return c.core.call(ctx, methodMoveLeader, &pb.MoveLeaderRequest{TargetID: id}, &pb.MoveLeaderResponse{})
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
