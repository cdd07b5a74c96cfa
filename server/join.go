package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
	"github.com/latchkey-go/latchkey/server/internal/peer"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// Errors of a member that has no data directory yet.
var (
	// ErrNotAdded: the running cluster does not expect this member.
	ErrNotAdded = errors.New("the cluster has no such member")
	// ErrStartedBefore: the cluster knows that a member of this id ran already.
	// Without what it had promised it must not come back under that id.
	ErrStartedBefore = errors.New("the member has already been bootstrapped")
)

const (
	// joinTimeout bounds how long a joining member looks for one that answers.
	joinTimeout  = 10 * time.Second
	inquireRetry = 100 * time.Millisecond
	// reunionTimeout bounds how long a member of a new cluster waits for signs
	// that it is not new. Normally the connection is refused: nobody is there yet.
	reunionTimeout = 2 * time.Second
	boundTimeout   = 50 * time.Millisecond
)

// found is what a member of a running cluster says about it.
type found struct {
	cluster uint64
	members []state.Member
}

func encodeMembers(members []state.Member) ([]byte, error) {
	list := &pb.MemberListResponse{}
	for _, m := range members {
		list.Members = append(list.Members, m.Proto())
	}
	return proto.Marshal(list)
}

// inquire asks the member at a peer URL.
func inquire(ctx context.Context, u string, secure peer.Secure) (found, error) {
	cluster, body, err := peer.Inquire(ctx, u, secure)
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", u, err)
	}
	list := &pb.MemberListResponse{}
	if err := proto.Unmarshal(body, list); err != nil {
		return found{}, fmt.Errorf("%s: %w", u, err)
	}
	f := found{cluster: cluster}
	for _, m := range list.Members {
		f.members = append(f.members, state.Member{
			ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner,
		})
	}
	return f, nil
}

// inquireAll asks all the others of the initial cluster and returns the first
// answer, or why there is none.
func (s *Server) inquireAll(ctx context.Context, urls []string) (found, error) {
	type answer struct {
		found
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers, secure := make(chan answer, len(urls)), s.peerSecure()
	for _, u := range urls {
		go func() {
			f, err := inquire(ctx, u, secure)
			answers <- answer{f, err}
		}()
	}
	var first found
	var errs []error
	for range urls {
		a := <-answers
		switch {
		case a.err != nil:
			errs = append(errs, a.err)
		case first.cluster == 0:
			first = a.found
			cancel() // the rest end now, and are waited for
		}
	}
	if first.cluster == 0 {
		return first, errs[0]
	}
	return first, nil
}

// inquireUntil is inquireAll again and again until one answers, or for so long.
func (s *Server) inquireUntil(ctx context.Context, urls []string, patience time.Duration) (found, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		f, err := s.inquireAll(ctx, urls)
		if err == nil {
			return f, nil
		}
		select {
		case <-ctx.Done():
			return f, err
		case <-time.After(inquireRetry):
		}
	}
}

// otherURLs are the peer URLs of all members of the initial cluster but name.
func otherURLs(cluster map[string][]string, name string) (urls []string) {
	for n, u := range cluster {
		if n != name {
			urls = append(urls, u...)
		}
	}
	slices.Sort(urls)
	return urls
}

// birth makes the directory of a member that has none.
func (s *Server) birth(ctx context.Context, dir layout) error {
	advertised := s.listeners.advertisePeers(s.cfg)
	if s.cfg.Membership.DNS.wanted() {
		cfg, mine, err := s.findByDNS(ctx, advertised)
		if err != nil {
			return err
		}
		s.cfg, advertised = cfg, []string{mine}
	}
	here := newPlaces(ctx, s.cfg.resolver())
	if s.cfg.InitialClusterState == "existing" {
		if s.cfg.Membership.Discovery.wanted() {
			return errors.New("discovery is for new clusters: one that joins an existing cluster is given initial-cluster")
		}
		members, id, err := s.introduce(ctx, advertised, here)
		if err != nil {
			return err
		}
		return makeMemberAt(dir, id, &raftpb.ConfState{}, wal.Base{}, func(path string, m checkpoint.Meta) error {
			return checkpoint.Create(path, m, members)
		})
	}
	mayReturn := true
	if s.cfg.Membership.Discovery.wanted() {
		var err error
		// One that the service did not know is new: nobody need be asked.
		if s.cfg, mayReturn, err = s.discover(ctx, advertised); err != nil {
			return err
		}
	}
	members, id, err := initialMembers(s.cfg, advertised, here.sameURLs)
	if err != nil {
		return err
	}
	if s.cfg.Membership.DNS.wanted() {
		for i := range members {
			members[i].Name = "" // all must begin with the same state, and each knows its own name only
		}
	}
	if mayReturn {
		if err := s.refuseReturn(ctx, id); err != nil {
			return err
		}
	}
	return bootstrap(dir, id, members)
}

// refuseReturn keeps a member whose directory was lost from starting anew as if
// nothing had been: it would break promises that it gave.
func (s *Server) refuseReturn(ctx context.Context, id wal.Identity) error {
	cluster, err := parseCluster(s.cfg.InitialCluster)
	if err != nil || len(cluster) < 2 {
		return nil
	}
	patience := reunionTimeout
	if s.cfg.Sockets.Peer != nil { // the others' may be bound already while nobody serves them
		patience = boundTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f, err := s.inquireAll(ctx, otherURLs(cluster, s.cfg.Name))
	if err != nil || f.cluster != id.ClusterID {
		return nil // nobody there yet, or a former cluster at these addresses
	}
	for _, m := range f.members {
		if m.ID == id.MemberID {
			return started(m)
		}
	}
	return fmt.Errorf("%w: member %s is not, or no longer, one of cluster %s; add it with `latchkey member add %s --peer-urls=...` and start it with initial-cluster-state existing",
		ErrNotAdded, hex(id.MemberID), hex(f.cluster), s.cfg.Name)
}

// started refuses to begin with an empty directory as a member that has run.
func started(m state.Member) error {
	if len(m.ClientURLs) == 0 {
		return nil
	}
	return fmt.Errorf("%w: member %s (%s) has run before, but its data directory is empty; remove it with `latchkey member remove %s`, add it again with `latchkey member add %s --peer-urls=%s`, and start it with initial-cluster-state existing",
		ErrStartedBefore, hex(m.ID), m.Name, hex(m.ID), m.Name, strings.Join(m.PeerURLs, ","))
}

// introduce finds out, from the members of a running cluster, who this member is
// among them. Its checks are etcd's: initial-cluster must be what the cluster
// has, this member included.
func (s *Server) introduce(ctx context.Context, advertised []string, p *places) ([]state.Member, wal.Identity, error) {
	fail := func(err error) ([]state.Member, wal.Identity, error) { return nil, wal.Identity{}, err }
	cluster, err := parseCluster(s.cfg.InitialCluster)
	if err != nil {
		return fail(err)
	}
	mine, ok := cluster[s.cfg.Name]
	if !ok {
		return fail(fmt.Errorf("initial-cluster does not name this member, %q", s.cfg.Name))
	}
	if !p.sameURLs(mine, advertised) {
		return fail(fmt.Errorf("initial-cluster says %q is at %s, but initial-advertise-peer-urls is %s",
			s.cfg.Name, strings.Join(mine, ","), strings.Join(advertised, ",")))
	}
	others := otherURLs(cluster, s.cfg.Name)
	if len(others) == 0 {
		return fail(errors.New("initial-cluster names no other member: one that joins names all members, and itself"))
	}
	f, err := s.inquireUntil(ctx, others, joinTimeout)
	if err != nil {
		return fail(fmt.Errorf("cannot fetch cluster info from peer urls: %w", err))
	}
	me, err := match(f.members, cluster, mine, s.cfg.Name, sameURLs)
	if err != nil { // perhaps a host is named here and its address is known there
		me, err = match(f.members, cluster, mine, s.cfg.Name, p.sameURLs)
	}
	if err != nil {
		return fail(fmt.Errorf("initial-cluster does not agree with cluster %s: %w", hex(f.cluster), err))
	}
	return f.members, wal.Identity{ClusterID: f.cluster, MemberID: me.ID}, started(me)
}

// match compares the members that there are with those of the initial cluster,
// and returns the one that has this member's URLs.
func match(members []state.Member, cluster map[string][]string, mine []string, name string, same func(a, b []string) bool) (me state.Member, _ error) {
	for _, m := range members {
		if same(m.PeerURLs, mine) {
			me = m
		}
	}
	if me.ID == 0 {
		return me, fmt.Errorf("%w: none is at %s; run `latchkey member add %s --peer-urls=%s` first",
			ErrNotAdded, strings.Join(mine, ","), name, strings.Join(mine, ","))
	}
	if len(members) != len(cluster) {
		return me, fmt.Errorf("member count is unequal: the cluster has %d members, initial-cluster names %d", len(members), len(cluster))
	}
	for _, m := range members {
		known := false
		for _, urls := range cluster {
			known = known || same(m.PeerURLs, urls)
		}
		if !known {
			return me, fmt.Errorf("PeerURLs: no match found for existing member (%s, %s)", hex(m.ID), strings.Join(m.PeerURLs, ","))
		}
	}
	return me, nil
}
