package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

const (
	// healthInterval is how long a member must have been connected to count as
	// healthy when members change, as in etcd.
	healthInterval = 5 * time.Second
	// readyPercent of the leader's log is what a learner must have before it is
	// promoted, as in etcd.
	readyPercent = 90
)

// voters returns the voting members, and how many of them have ever started.
func voters(members []state.Member) (voting []state.Member, started int) {
	for _, m := range members {
		if m.Learner {
			continue
		}
		voting = append(voting, m)
		if m.Name != "" {
			started++
		}
	}
	return voting, started
}

func quorum(n int) int { return n/2 + 1 }

// healthy counts the members that this one is connected to for long enough,
// itself included.
func (s *Server) healthy(members []state.Member) int {
	n := 0
	for _, m := range members {
		since, ok := s.peers.Active(m.ID)
		if m.ID == s.identity.MemberID || ok && time.Since(since) > healthInterval {
			n++
		}
	}
	return n
}

// mayAdd refuses, as etcd does, an addition that could cost the quorum: the new
// member counts as one that is down.
func (b backend) mayAdd(learner bool) error {
	if b.cfg.Membership.LooseReconfigCheck {
		return nil
	}
	voting, started := voters(b.Members())
	// One member may get a second: that is how a lost cluster is rebuilt.
	if !learner && started < quorum(len(voting)+1) && (started != 1 || len(voting) != 1) {
		return rpc.ErrNotEnoughStarted
	}
	if len(voting) > 1 && b.healthy(voting) < quorum(len(voting)+1) {
		return rpc.ErrUnhealthy
	}
	return nil
}

// mayRemove refuses, as etcd does, a removal after which the healthy members
// would be no quorum.
func (b backend) mayRemove(id uint64) error {
	if b.cfg.Membership.LooseReconfigCheck {
		return nil
	}
	members := b.Members()
	rest := members[:0:0]
	for _, m := range members {
		if m.ID == id && m.Learner {
			return nil
		}
		if m.ID != id {
			rest = append(rest, m)
		}
	}
	left, started := voters(rest)
	if started < quorum(len(left)) {
		return rpc.ErrNotEnoughStarted
	}
	if id != b.identity.MemberID && !b.alive(id) {
		return nil // it is not part of the quorum that there is
	}
	voting, _ := voters(members)
	if b.healthy(voting)-1 < quorum(len(voting)-1) {
		return rpc.ErrUnhealthy
	}
	return nil
}

// callPromote is the question of a member that was asked to promote a learner:
// only the leader knows whether it is ready. Id -> code, members.
const callPromote byte = 3

// promoteErrors are what the leader may say, by code; 0 is success.
var promoteErrors = []error{
	nil, errNotLeading, state.ErrMemberNotFound, state.ErrMemberRemoved, state.ErrMemberNotLearner,
	rpc.ErrLearnerNotReady, rpc.ErrNotEnoughStarted, rpc.ErrTimeout, rpc.ErrTimeoutLeaderFailed, rpc.ErrTooManyRequests,
}

// PromoteMember implements rpc.Membership.
func (b backend) PromoteMember(ctx context.Context, id uint64) ([]*pb.Member, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.requestTimeout, rpc.ErrTimeout)
	defer cancel()
	body := protowire.AppendVarint(nil, id)
	for {
		answer, err := b.promoteOnce(ctx, body)
		if err == nil && len(answer) > 0 && int(answer[0]) < len(promoteErrors) {
			list := &pb.MemberListResponse{}
			if err = promoteErrors[answer[0]]; err == nil {
				err = proto.Unmarshal(answer[1:], list)
			}
			if !errors.Is(err, errNotLeading) {
				return list.Members, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-b.stopped.Done():
			return nil, rpc.ErrStopped
		case <-time.After(leaderRetry):
		}
	}
}

func (b backend) promoteOnce(ctx context.Context, body []byte) ([]byte, error) {
	switch leader := b.leader.Load(); leader {
	case 0:
		return nil, rpc.ErrNoLeader
	case b.identity.MemberID:
		return b.servePromote(ctx, body)
	default:
		return b.peers.Call(ctx, leader, callPromote, body)
	}
}

// servePromote answers callPromote.
func (s *Server) servePromote(ctx context.Context, body []byte) ([]byte, error) {
	args, err := parseVarints(body, 1)
	if err != nil || len(args) != 1 {
		return nil, errors.New("malformed call")
	}
	response, err := s.promote(ctx, args[0])
	for code, known := range promoteErrors {
		if code > 0 && errors.Is(err, known) {
			return []byte{byte(code)}, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("promote: %w", err)
	}
	return proto.MarshalOptions{}.MarshalAppend([]byte{0}, response)
}

// promote promotes a learner if this member leads and the learner is ready. The
// decision is bound to the term in which it was made.
func (s *Server) promote(ctx context.Context, id uint64) (proto.Message, error) {
	if err := s.confirm(ctx); err != nil {
		return nil, err
	}
	st, err := s.status(ctx)
	if err != nil {
		return nil, err
	}
	if st.Role != replica.Leader {
		return nil, errNotLeading
	}
	match, found := st.LastIndex, id == s.identity.MemberID
	for _, p := range st.Peers {
		if p.ID == id {
			match, found = p.Match, true
		}
	}
	voting, started := voters(backend{s}.Members())
	switch {
	case !found:
		return nil, state.ErrMemberNotFound
	case match*100 < st.LastIndex*readyPercent:
		return nil, rpc.ErrLearnerNotReady
	case !s.cfg.Membership.LooseReconfigCheck && started+1 < quorum(len(voting)+1):
		return nil, rpc.ErrNotEnoughStarted
	}
	c := state.Command{Kind: state.KindMemberPromote, Request: &state.MemberChange{ID: id}}
	data, err := c.AppendTo(nil)
	if err != nil {
		return nil, err
	}
	w := newWaiter(c, data, nil)
	w.once, w.proposal.Term, w.proposal.Change = true, st.Term, confChange(c)
	if err := s.loop.propose(w); err != nil {
		return nil, err
	}
	if err := w.await(ctx); err != nil {
		w.gone.Store(true)
		if errors.Is(err, errStale) {
			err = errNotLeading
		}
		return nil, err
	}
	return w.response, nil
}

// status asks the replica.
func (s *Server) status(ctx context.Context) (replica.Status, error) {
	answer := make(chan replica.Status, 1)
	s.loop.do(func(r *replica.Replica) { answer <- r.Status() })
	select {
	case st := <-answer:
		return st, nil
	case <-ctx.Done():
		return replica.Status{}, context.Cause(ctx)
	case <-s.stopped.Done():
		return replica.Status{}, rpc.ErrStopped
	}
}

// Learner implements rpc.Node.
func (b backend) Learner() bool { return b.learner.Load() }

// MoveLeader implements rpc.Mover.
func (b backend) MoveLeader(ctx context.Context, to uint64) error {
	if !b.leading() {
		return rpc.ErrNotLeader
	}
	voting, _ := voters(b.Members())
	known := false
	for _, m := range voting {
		known = known || m.ID == to
	}
	if !known {
		return rpc.ErrBadLeaderTransferee
	}
	ctx, cancel := context.WithTimeout(ctx, b.requestTimeout)
	defer cancel()
	again := time.NewTicker(b.cfg.ElectionTimeout) // raft has given up by then
	defer again.Stop()
	changed := b.leadership.watch()
	b.loop.do(func(r *replica.Replica) { r.TransferLeader(to) })
	for b.leader.Load() != to {
		select {
		case <-changed:
			changed = b.leadership.watch()
		case <-again.C:
			b.loop.do(func(r *replica.Replica) {
				if st := r.Status(); st.Role == replica.Leader && st.Transferee == 0 {
					r.TransferLeader(to)
				}
			})
		case <-ctx.Done():
			return rpc.ErrTimeoutLeaderTransfer
		case <-b.stopped.Done():
			return rpc.ErrStopped
		}
	}
	return nil
}
