package rpc

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Cluster serves the member list.
type Cluster struct {
	store Store
	node  Node
	pb.UnimplementedClusterServer
}

// NewCluster returns the Cluster service.
func NewCluster(store Store, node Node) *Cluster {
	return &Cluster{store: store, node: node}
}

// MemberList lists the members; a linearizable one sees every change that
// completed before it.
func (s *Cluster) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if r.Linearizable {
		if _, err := s.store.Read(ctx); err != nil {
			return nil, wireError(err)
		}
	}
	resp := &pb.MemberListResponse{Header: &pb.ResponseHeader{}}
	for _, m := range s.node.Members() {
		resp.Members = append(resp.Members, &pb.Member{
			ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.Learner,
		})
	}
	s.store.FillHeader(resp.Header)
	resp.Header.Revision = 0 // etcd's cluster responses carry none
	return resp, nil
}
