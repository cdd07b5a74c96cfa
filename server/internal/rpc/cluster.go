package rpc

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Errors of changes of members.
var (
	// ErrMemberBadURLs: a peer URL is none.
	ErrMemberBadURLs = errors.New("given member URLs are invalid")
	// ErrNotEnoughStarted: with the change, the started members would be no quorum.
	ErrNotEnoughStarted = errors.New("re-configuration failed due to not enough started members")
	// ErrUnhealthy: with the change, the connected members might be no quorum.
	ErrUnhealthy = errors.New("unhealthy cluster")
	// ErrLearnerNotReady: the learner is too far behind to be promoted.
	ErrLearnerNotReady = errors.New("can only promote a learner member which is in sync with leader")
	// ErrNotForLearner: learners do not serve this.
	ErrNotForLearner = errors.New("rpc not supported for learner")
)

// Membership changes who the members are. Each method returns the members as
// they are after the change, ascending by id.
type Membership interface {
	// AddMember adds a voter or learner that will listen on the peer URLs; it
	// also returns the new member, with the id that it will have.
	AddMember(ctx context.Context, peerURLs []string, learner bool) (*pb.Member, []*pb.Member, error)
	RemoveMember(ctx context.Context, id uint64) ([]*pb.Member, error)
	UpdateMember(ctx context.Context, id uint64, peerURLs []string) ([]*pb.Member, error)
	// PromoteMember makes a learner a voter, if it is in sync with the leader.
	PromoteMember(ctx context.Context, id uint64) ([]*pb.Member, error)
}

// Cluster serves the member list and its changes.
type Cluster struct {
	store      Store
	node       Node
	membership Membership
	pb.UnimplementedClusterServer
}

// NewCluster returns the Cluster service.
func NewCluster(store Store, node Node, membership Membership) *Cluster {
	return &Cluster{store: store, node: node, membership: membership}
}

// MemberList lists the members; a linearizable one sees every change that
// completed before it.
func (s *Cluster) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if r.Linearizable {
		if _, err := s.store.Read(ctx); err != nil {
			return nil, wireError(err)
		}
	}
	resp := &pb.MemberListResponse{Header: s.header()}
	for _, m := range s.node.Members() {
		resp.Members = append(resp.Members, m.Proto())
	}
	return resp, nil
}

// MemberAdd adds a member, which then starts with initial-cluster-state existing.
func (s *Cluster) MemberAdd(ctx context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	added, members, err := s.membership.AddMember(ctx, r.PeerURLs, r.IsLearner)
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.MemberAddResponse{Header: s.header(), Member: added, Members: members}, nil
}

// MemberRemove removes a member for ever.
func (s *Cluster) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	members, err := s.membership.RemoveMember(ctx, r.ID)
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.MemberRemoveResponse{Header: s.header(), Members: members}, nil
}

// MemberUpdate changes a member's peer URLs.
func (s *Cluster) MemberUpdate(ctx context.Context, r *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	members, err := s.membership.UpdateMember(ctx, r.ID, r.PeerURLs)
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.MemberUpdateResponse{Header: s.header(), Members: members}, nil
}

// MemberPromote makes a learner a voter.
func (s *Cluster) MemberPromote(ctx context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	members, err := s.membership.PromoteMember(ctx, r.ID)
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.MemberPromoteResponse{Header: s.header(), Members: members}, nil
}

// header is what etcd's cluster responses have: no revision.
func (s *Cluster) header() *pb.ResponseHeader {
	h := &pb.ResponseHeader{}
	s.store.FillHeader(h)
	h.Revision = 0
	return h
}
