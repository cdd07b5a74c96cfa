package rpc

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// Lease serves grants, revocations, renewals and questions about leases.
type Lease struct {
	store  Store
	lessor Lessor
	node   Node
	guard  *Guard // nil for a member without users

	receivers sync.WaitGroup
	pb.UnsafeLeaseServer
}

// NewLease returns the Lease service.
func NewLease(store Store, lessor Lessor, node Node) *Lease {
	return &Lease{store: store, lessor: lessor, node: node}
}

// Guarded has g decide who may know which keys a lease has.
func (s *Lease) Guarded(g *Guard) *Lease {
	s.guard = g
	return s
}

// Wait returns when no goroutine of the service runs any more. They end when gRPC ends their streams, so Wait is for
// after the server has stopped.
func (s *Lease) Wait() { s.receivers.Wait() }

var _ pb.LeaseServer = (*Lease)(nil)

// LeaseGrant creates a lease. Its TTL is raised to the least one that survives
// an election, and an id is chosen when none is given: both before the request
// enters the log, so that every member applies the same.
func (s *Lease) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	grant := &pb.LeaseGrantRequest{ID: r.ID, TTL: r.TTL}
	if err := s.complete(grant); err != nil {
		return nil, wireError(err)
	}
	return propose[*pb.LeaseGrantResponse](ctx, s.store, state.Command{Kind: state.KindLeaseGrant, Request: grant})
}

// complete fills in what is left to the member. It fails when there are too many
// leases.
func (s *Lease) complete(grant *pb.LeaseGrantRequest) error {
	if s.lessor.Full() {
		return ErrTooManyLeases
	}
	grant.TTL = max(grant.TTL, s.lessor.MinTTL())
	for grant.ID == 0 {
		grant.ID = rand.Int64()
	}
	return nil
}

// LeaseRevoke ends a lease and deletes its keys in one revision.
func (s *Lease) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	return propose[*pb.LeaseRevokeResponse](ctx, s.store, state.Command{Kind: state.KindLeaseRevoke, Request: r})
}

// keepAliveStream is a call of LeaseKeepAlive.
type keepAliveStream = grpc.BidiStreamingServer[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]

// LeaseKeepAlive renews the leases that the stream names, each answered in
// turn. A lease that has ended is answered with a TTL of 0, not with an error.
func (s *Lease) LeaseKeepAlive(stream keepAliveStream) error {
	next := stream.Recv
	if requiresLeader(stream.Context()) {
		leaderless := s.node.Leaderless()
		if !s.node.HasLeader() {
			return wireError(ErrNoLeader)
		}
		next = s.nextUnless(stream, leaderless)
	}
	for {
		r, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// The header is read before the renewal, so that its revision can not be
		// later than a revocation that the renewal did not see.
		resp := &pb.LeaseKeepAliveResponse{ID: r.ID, Header: &pb.ResponseHeader{}}
		s.store.FillHeader(resp.Header)
		resp.TTL, err = s.lessor.Renew(stream.Context(), r.ID)
		if err != nil && !errors.Is(err, state.ErrLeaseNotFound) {
			return wireError(err)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// nextUnless returns a function that receives a stream's next request, and fails with ErrNoLeader once leaderless is
// closed: a client that waits between two renewals is told, too.
func (s *Lease) nextUnless(stream keepAliveStream, leaderless <-chan struct{}) func() (*pb.LeaseKeepAliveRequest, error) {
	type received struct {
		r   *pb.LeaseKeepAliveRequest
		err error
	}
	requests := make(chan received)
	s.receivers.Go(func() {
		for {
			r, err := stream.Recv()
			select {
			case requests <- received{r, err}:
			case <-stream.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	return func() (*pb.LeaseKeepAliveRequest, error) {
		select {
		case got := <-requests:
			return got.r, got.err
		case <-leaderless:
			return nil, wireError(ErrNoLeader)
		case <-stream.Context().Done():
			return nil, wireError(stream.Context().Err())
		}
	}
}

// LeaseTimeToLive tells what is left of a lease; -1 for one that is unknown.
func (s *Lease) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	resp := &pb.LeaseTimeToLiveResponse{Header: &pb.ResponseHeader{}, ID: r.ID, TTL: -1}
	st, err := s.lessor.TimeToLive(ctx, r.ID, r.Keys)
	switch {
	case errors.Is(err, state.ErrLeaseNotFound):
	case err != nil:
		return nil, wireError(err)
	default:
		resp.TTL, resp.GrantedTTL = st.Remaining, st.Granted
		for _, key := range st.Keys {
			resp.Keys = append(resp.Keys, []byte(key))
		}
		if err := s.guard.Keys(ctx, resp.Keys); err != nil {
			return nil, wireError(err)
		}
	}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// LeaseLeases lists the leases.
func (s *Lease) LeaseLeases(context.Context, *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	resp := &pb.LeaseLeasesResponse{Header: &pb.ResponseHeader{}}
	for _, id := range s.lessor.Leases() {
		resp.Leases = append(resp.Leases, &pb.LeaseStatus{ID: id})
	}
	s.store.FillHeader(resp.Header)
	return resp, nil
}
