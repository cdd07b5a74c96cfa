package rpc

import (
	"context"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// Custodian looks after what the member has on its disk.
type Custodian interface {
	// HashKV hashes the versions up to a revision, 0 for the current one, as
	// etcd does. state.ErrCompacted, state.ErrFutureRevision.
	HashKV(ctx context.Context, rev int64) (KVHash, error)
	// Hash hashes everything that members have in common, and tells the
	// revision.
	Hash(ctx context.Context) (sum uint32, rev int64, err error)
	// Save returns when all that was applied before the call is in the
	// checkpoint.
	Save(ctx context.Context) error
	// Snapshot begins a copy of the checkpoint, with all that was applied
	// before the call. The caller closes it.
	Snapshot(ctx context.Context) (Snapshot, error)
}

// Snapshot is a copy of the checkpoint file that is being read.
type Snapshot interface {
	io.WriterTo
	io.Closer
	Size() int64 // bytes that WriteTo writes
}

// KVHash is the hash of the versions between two revisions.
type KVHash struct {
	Hash                       uint32
	Compact, Revision, Current int64
}

// Maintenance serves status, alarms, hashes, snapshots and the announcement of
// a downgrade.
type Maintenance struct {
	store     Store
	node      Node
	custodian Custodian
	mover     Mover
	copies    chan struct{} // holds a value for each snapshot that is being sent
	pb.UnimplementedMaintenanceServer
}

// NewMaintenance returns the Maintenance service.
func NewMaintenance(store Store, node Node, custodian Custodian, mover Mover) *Maintenance {
	return &Maintenance{store: store, node: node, custodian: custodian, mover: mover, copies: make(chan struct{}, snapshotsMax)}
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
		DbSizeInUse:      st.LiveBytes,
		IsLearner:        st.Learner,
		StorageVersion:   st.DataVersion,
		DbSizeQuota:      st.QuotaBytes,
		DowngradeInfo:    &pb.DowngradeInfo{Enabled: st.Downgrade != "", TargetVersion: st.Downgrade},
	}
	if st.Leader == 0 {
		resp.Errors = append(resp.Errors, "etcdserver: "+ErrNoLeader.Error())
	}
	for _, a := range st.Alarms {
		resp.Errors = append(resp.Errors, a.Message().String())
	}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// Alarm lists, activates or deactivates alarms. A list has every change that
// was answered before it.
func (s *Maintenance) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if r.Action != pb.AlarmRequest_GET {
		return propose[*pb.AlarmResponse](ctx, s.store, state.Command{Kind: state.KindAlarm, Request: r})
	}
	if _, err := s.store.Read(ctx); err != nil {
		return nil, wireError(err)
	}
	resp := &pb.AlarmResponse{Header: &pb.ResponseHeader{}}
	for _, a := range s.node.Status().Alarms {
		if r.Alarm == pb.AlarmType_NONE || r.Alarm == a.Type {
			resp.Alarms = append(resp.Alarms, a.Message())
		}
	}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// Defragment answers when the checkpoint holds everything applied. There is
// nothing else to do: the file is not what requests are served from, its free
// pages are used again and do not count for the quota.
func (s *Maintenance) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	if err := s.custodian.Save(ctx); err != nil {
		return nil, wireError(err)
	}
	return &pb.DefragmentResponse{}, nil
}

// Hash hashes all of the checkpoint.
func (s *Maintenance) Hash(ctx context.Context, _ *pb.HashRequest) (*pb.HashResponse, error) {
	sum, rev, err := s.custodian.Hash(ctx)
	if err != nil {
		return nil, wireError(err)
	}
	resp := &pb.HashResponse{Header: &pb.ResponseHeader{Revision: rev}, Hash: sum}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// HashKV hashes the versions of all keys up to a revision.
func (s *Maintenance) HashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	h, err := s.custodian.HashKV(ctx, r.Revision)
	if err != nil {
		return nil, wireError(err)
	}
	resp := &pb.HashKVResponse{
		Header: &pb.ResponseHeader{Revision: h.Current}, Hash: h.Hash, CompactRevision: h.Compact, HashRevision: h.Revision,
	}
	s.store.FillHeader(resp.Header)
	return resp, nil
}
