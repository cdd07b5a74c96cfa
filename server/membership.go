package server

import (
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// ErrRemoved: the member was removed from its cluster. Its data directory is of
// no more use: to come back it is added as a new member, with a new directory.
var ErrRemoved = errors.New("the member has been permanently removed from the cluster")

const (
	// defaultMaxLearners is etcd's.
	defaultMaxLearners = 1
	// farewell is how long a removed member, and its connections, live on after
	// its removal was applied: it still has to hear of it, and to tell the one
	// who asked.
	farewell = time.Second
)

// belonging is who belongs to the cluster, as far as this member knows, and how.
type belonging struct {
	learner  atomic.Bool // this member is one
	acquaint *acquaintance

	expulsion context.Context // ends when a peer has said that this member was removed
	expel     context.CancelFunc
	parting   sync.Once

	rosterMu sync.Mutex // protects roster, and that the transport is told in order
	roster   *roster
}

// roster is who the members are, and who they once were. It is not changed.
type roster struct {
	members []state.Member
	removed []uint64
	vouched []state.Member // that others know of; see acquaintance
}

func (r *roster) all() []state.Member { return append(slices.Clone(r.members), r.vouched...) }

func (r *roster) knows(id uint64) bool {
	return slices.ContainsFunc(r.all(), func(m state.Member) bool { return m.ID == id }) || slices.Contains(r.removed, id)
}

func rosterOf(m *state.Machine) *roster {
	return &roster{members: m.Members(), removed: m.RemovedMembers()}
}

// changesRoster tells whether applying the commands may have changed the roster.
func changesRoster(entries [][]state.Command) bool {
	return slices.ContainsFunc(entries, func(commands []state.Command) bool {
		return slices.ContainsFunc(commands, func(c state.Command) bool {
			return c.Kind == state.KindMember || c.Kind.ChangesMembers()
		})
	})
}

// followMembers brings everything that depends on the members in step with what
// was applied; it is called for one roster after the other.
func (s *Server) followMembers(r *roster) {
	id := s.identity.MemberID
	var elder []uint64
	for _, m := range r.members {
		if !m.Learner && m.ID < id {
			elder = append(elder, m.ID)
		}
		if m.ID == id {
			s.learner.Store(m.Learner)
		}
	}
	s.loop.do(func(*replica.Replica) { s.loop.suspect.elder = elder })
	s.rosterMu.Lock()
	defer s.rosterMu.Unlock()
	before := s.roster
	if before == nil {
		before = &roster{removed: r.removed}
	}
	for _, m := range before.vouched {
		if !r.knows(m.ID) { // the log has not come so far
			r.vouched = append(r.vouched, m)
		}
	}
	s.roster = r
	if len(before.removed) == len(r.removed) {
		s.connectMembers(r)
		return
	}
	// Connections to those who go end a little later.
	parting := &roster{members: slices.Clone(r.members), vouched: r.vouched, removed: before.removed}
	for _, m := range before.all() {
		if slices.Contains(r.removed, m.ID) {
			s.log.Info("member removed", "removed", hex(m.ID), "name", m.Name)
			parting.members = append(parting.members, m)
		}
	}
	s.connectMembers(parting)
	time.AfterFunc(farewell, func() {
		s.rosterMu.Lock()
		defer s.rosterMu.Unlock()
		s.connectMembers(s.roster)
	})
	if slices.Contains(r.removed, id) {
		s.part()
	}
}

// part ends a member that was removed, a little later. If it has heard of that in
// the log by then, it ends with all it has applied, so that its next start knows.
func (s *Server) part() {
	s.parting.Do(func() {
		time.AfterFunc(farewell, func() {
			if s.stopped.Err() != nil {
				return
			}
			s.rosterMu.Lock()
			heard := s.roster != nil && slices.Contains(s.roster.removed, s.identity.MemberID)
			s.rosterMu.Unlock()
			if heard {
				s.graceful.Store(true)
			}
			s.fail(ErrRemoved)
		})
	})
}

// connectMembers tells the transport; rosterMu is held.
func (s *Server) connectMembers(r *roster) {
	urls := make(map[uint64][]string)
	for _, m := range r.all() {
		urls[m.ID] = m.PeerURLs
	}
	s.peers.SetRemoved(r.removed)
	s.peers.SetPeers(urls)
}

// expelled is told by the transport that a peer refuses this member for good.
func (s *Server) expelled(by uint64) {
	if s.stopped.Err() == nil && s.expulsion.Err() == nil {
		s.log.Info("a peer says that this member was removed", "peer", hex(by))
		s.expel()
		s.part()
	}
}

// confChange returns the step of raft's configuration that goes with a command,
// nil for none.
func confChange(c state.Command) *raftpb.ConfChange {
	change, ok := c.Request.(*state.MemberChange)
	if !ok {
		return nil
	}
	typ := raftpb.ConfChangeAddNode
	switch {
	case c.Kind == state.KindMemberUpdate:
		return nil
	case c.Kind == state.KindMemberRemove:
		typ = raftpb.ConfChangeRemoveNode
	case c.Kind == state.KindMemberAdd && change.Learner:
		typ = raftpb.ConfChangeAddLearnerNode
	}
	return &raftpb.ConfChange{Type: typ.Enum(), NodeId: &change.ID}
}

// AddMember implements rpc.Membership.
func (b backend) AddMember(ctx context.Context, urls []string, learner bool) (*pb.Member, []*pb.Member, error) {
	urls, err := peerURLs(urls)
	if err != nil {
		return nil, nil, err
	}
	if err := b.mayAdd(learner); err != nil {
		return nil, nil, err
	}
	c := &state.MemberChange{
		ID: newMemberID(urls, time.Now()), PeerURLs: urls, Learner: learner, MaxLearners: b.cfg.Membership.MaxLearners,
	}
	members, err := b.changeMembers(ctx, state.KindMemberAdd, c)
	return &pb.Member{ID: c.ID, PeerURLs: urls, IsLearner: learner}, members, err
}

// RemoveMember implements rpc.Membership.
func (b backend) RemoveMember(ctx context.Context, id uint64) ([]*pb.Member, error) {
	if err := b.mayRemove(id); err != nil {
		return nil, err
	}
	if id == b.leader.Load() {
		b.deposeLeader(ctx, id)
	}
	if id == b.identity.MemberID {
		return b.removeItself(ctx)
	}
	return b.changeMembers(ctx, state.KindMemberRemove, &state.MemberChange{ID: id})
}

// removeItself removes this member. It need not hear that this was committed: a
// leader tells those who are removed no more, and the last that it told them may be
// older. Then a peer that refuses the next connection says so.
func (b backend) removeItself(ctx context.Context) ([]*pb.Member, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.expulsion, cancel)()
	id := b.identity.MemberID
	members, err := b.changeMembers(ctx, state.KindMemberRemove, &state.MemberChange{ID: id})
	if err == nil || b.expulsion.Err() == nil {
		return members, err
	}
	for _, m := range b.Members() {
		if m.ID != id {
			members = append(members, m.Proto())
		}
	}
	return members, nil
}

// UpdateMember implements rpc.Membership.
func (b backend) UpdateMember(ctx context.Context, id uint64, urls []string) ([]*pb.Member, error) {
	urls, err := peerURLs(urls)
	if err != nil {
		return nil, err
	}
	return b.changeMembers(ctx, state.KindMemberUpdate, &state.MemberChange{ID: id, PeerURLs: urls})
}

func (b backend) changeMembers(ctx context.Context, kind state.Kind, c *state.MemberChange) ([]*pb.Member, error) {
	r, err := b.Propose(ctx, state.Command{Kind: kind, Request: c})
	return membersOf(r, err)
}

func membersOf(r any, err error) ([]*pb.Member, error) {
	if err != nil {
		return nil, err
	}
	list, ok := r.(*pb.MemberListResponse)
	if !ok {
		return nil, fmt.Errorf("change of members was answered with %T", r)
	}
	return list.Members, nil
}

// deposeLeader has another member lead before the leader is removed, so that
// nobody waits for an election. If it does not come to that, the removal goes on
// all the same.
func (s *Server) deposeLeader(ctx context.Context, leader uint64) {
	if s.leading() {
		s.handOver(ctx)
		return
	}
	if s.learner.Load() {
		return
	}
	changed := s.leadership.watch()
	s.loop.do(func(r *replica.Replica) { r.TransferLeader(s.identity.MemberID) })
	ctx, cancel := context.WithTimeout(ctx, 2*s.cfg.ElectionTimeout)
	defer cancel()
	for id := s.leader.Load(); id == leader || id == 0; id = s.leader.Load() {
		select {
		case <-changed:
			changed = s.leadership.watch()
		case <-ctx.Done():
			return
		case <-s.stopped.Done():
			return
		}
	}
}

// newMemberID is different for every call: ids are never reused.
func newMemberID(urls []string, now time.Time) uint64 {
	sum := sha1.Sum(fmt.Appendf(nil, "%s %d", strings.Join(urls, ""), now.UnixNano()))
	return max(1, binary.BigEndian.Uint64(sum[:])&^(1<<63|3)) // the highest are raft's own
}

// peerURLs checks and sorts URLs as etcd does.
func peerURLs(raw []string) ([]string, error) {
	if len(raw) == 0 {
		return nil, rpc.ErrMemberBadURLs
	}
	urls := make([]string, len(raw))
	for i, r := range raw {
		u, err := url.Parse(strings.TrimSpace(r))
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" {
			return nil, rpc.ErrMemberBadURLs
		}
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			return nil, rpc.ErrMemberBadURLs
		}
		urls[i] = u.String()
	}
	slices.Sort(urls)
	return urls, nil
}

// describeMembers answers a member that wants to join and has no id yet. It
// tells of every change that is complete, if a quorum can be reached.
func (s *Server) describeMembers(ctx context.Context) ([]byte, error) {
	if s.HasLeader() {
		if err := s.confirm(ctx); err != nil && ctx.Err() == nil {
			return nil, err
		}
	}
	return encodeMembers(backend{s}.Members())
}
