package rpc

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Maintenance serves the member's status.
type Maintenance struct {
	store Store
	node  Node
	mover Mover
	pb.UnimplementedMaintenanceServer
}

// NewMaintenance returns the Maintenance service.
func NewMaintenance(store Store, node Node, mover Mover) *Maintenance {
	return &Maintenance{store: store, node: node, mover: mover}
}

// Status tells what this member knows of itself and of the leader; it asks
// nobody and always answers.
func (s *Maintenance) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	st := s.node.Status()
	resp := &pb.StatusResponse{
		Header:           &pb.ResponseHeader{},
		Version:          st.EtcdVersion,
		DbSize:           st.FileBytes,
		Leader:           st.Leader,
		RaftIndex:        st.Commit,
		RaftTerm:         st.Term,
		RaftAppliedIndex: st.Applied,
		Errors:           st.Errors,
		DbSizeInUse:      st.LiveBytes,
		IsLearner:        st.Learner,
		StorageVersion:   st.DataVersion,
		DbSizeQuota:      st.QuotaBytes,
		DowngradeInfo:    &pb.DowngradeInfo{},
	}
	if st.Leader == 0 {
		resp.Errors = append(resp.Errors, "etcdserver: "+ErrNoLeader.Error())
	}
	s.store.FillHeader(resp.Header)
	return resp, nil
}
