package state

import (
	"cmp"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// The commands that change who the members are; 16 to 23 are theirs. Those of the first three travel in an entry that is
// also raft's own change of configuration: both are applied at the same index, and if the machine refuses the one, the
// caller sees to it that raft does not carry out the other.
const (
	KindMemberAdd     Kind = 16 // *MemberChange: ID, PeerURLs, Learner, MaxLearners
	KindMemberRemove  Kind = 17 // *MemberChange: ID
	KindMemberPromote Kind = 18 // *MemberChange: ID
	KindMemberUpdate  Kind = 19 // *MemberChange: ID, PeerURLs
	// KindMemberReset makes ID the only member, a voter. It is never in a log: one survivor of a lost cluster applies it
	// to itself.
	KindMemberReset Kind = 20 // *MemberChange: ID
)

// MemberChange is the request of the kinds that change the members. They answer with a MemberListResponse that has the
// members as they are afterwards.
type MemberChange struct {
	ID       uint64
	PeerURLs []string
	Learner  bool
	// MaxLearners is how many learners the cluster may have with this one. It is part of the request because all members
	// must decide alike, whatever each is configured to.
	MaxLearners int
}

const (
	fieldChangeID          = 1
	fieldChangePeerURL     = 2
	fieldChangeLearner     = 3
	fieldChangeMaxLearners = 4
)

// roster is who the members are, and were.
type roster struct {
	members []Member // ascending by ID
	removed []uint64 // ids of former members, ascending; replaced, never written to
}

// ChangesMembers tells whether a command of this kind is a MemberChange.
func (k Kind) ChangesMembers() bool { return k >= KindMemberAdd && k <= KindMemberReset }

func (c *MemberChange) appendTo(b []byte) []byte {
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldChangeID, protowire.VarintType), c.ID)
	for _, u := range c.PeerURLs {
		b = protowire.AppendString(protowire.AppendTag(b, fieldChangePeerURL, protowire.BytesType), u)
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldChangeLearner, protowire.VarintType), protowire.EncodeBool(c.Learner))
	return protowire.AppendVarint(protowire.AppendTag(b, fieldChangeMaxLearners, protowire.VarintType), uint64(c.MaxLearners))
}

func (c *MemberChange) decode(b []byte) error {
	return fields(b, func(num protowire.Number, n uint64, bytes []byte) error {
		switch num {
		case fieldChangeID:
			c.ID = n
		case fieldChangePeerURL:
			c.PeerURLs = append(c.PeerURLs, string(bytes))
		case fieldChangeLearner:
			c.Learner = protowire.DecodeBool(n)
		case fieldChangeMaxLearners:
			c.MaxLearners = int(min(n, 1<<31-1))
		}
		return nil
	})
}

// changeMembers carries out a change, or refuses it as etcd does and in the same order.
func (m *Machine) changeMembers(kind Kind, c *MemberChange) (*pb.MemberListResponse, error) {
	if c == nil || c.ID == 0 || !kind.ChangesMembers() {
		return nil, fmt.Errorf("change members by kind %d: %w", kind, ErrCommand)
	}
	if kind == KindMemberReset {
		m.resetMembers(c.ID)
		return m.memberList(), nil
	}
	if _, removed := slices.BinarySearch(m.removed, c.ID); removed {
		return nil, ErrMemberRemoved
	}
	at, found := m.findMember(c.ID)
	if kind == KindMemberAdd {
		if err := m.checkAdd(c, found); err != nil {
			return nil, err
		}
		m.changedMember(Member{ID: c.ID, PeerURLs: slices.Clone(c.PeerURLs), Learner: c.Learner})
		return m.memberList(), nil
	}
	if !found {
		return nil, ErrMemberNotFound
	}
	member := m.members[at]
	switch kind {
	case KindMemberRemove:
		if voters, _ := m.Voters(); !member.Learner && len(voters) == 1 {
			return nil, ErrLastVoter
		}
		m.removeMember(at)
	case KindMemberPromote:
		if !member.Learner {
			return nil, ErrMemberNotLearner
		}
		member.Learner = false
		m.changedMember(member)
	case KindMemberUpdate:
		if m.usesPeerURL(c.ID, c.PeerURLs) {
			return nil, ErrPeerURLExists
		}
		member.PeerURLs = slices.Clone(c.PeerURLs)
		m.changedMember(member)
	}
	return m.memberList(), nil
}

func (m *Machine) checkAdd(c *MemberChange, found bool) error {
	learners := 1
	for _, member := range m.members {
		if member.Learner {
			learners++
		}
	}
	switch {
	case found:
		return ErrMemberExists
	case m.usesPeerURL(c.ID, c.PeerURLs):
		return ErrPeerURLExists
	case c.Learner && learners > c.MaxLearners:
		return ErrTooManyLearners
	}
	return nil
}

// usesPeerURL tells whether a member other than id has one of the URLs.
func (m *Machine) usesPeerURL(id uint64, urls []string) bool {
	return slices.ContainsFunc(m.members, func(member Member) bool {
		return member.ID != id && slices.ContainsFunc(member.PeerURLs, func(u string) bool { return slices.Contains(urls, u) })
	})
}

func (m *Machine) changedMember(member Member) {
	m.setMember(member)
	m.pending.members = append(m.pending.members, member.ID)
}

// removeMember takes a member away for ever: its id is never given again.
func (m *Machine) removeMember(at int) {
	id := m.members[at].ID
	m.members = slices.Delete(slices.Clone(m.members), at, at+1)
	m.setRemoved(id)
	m.pending.members = append(m.pending.members, id)
	m.forgetAlarms(id)
}

// forgetAlarms ends the alarms that concern a former member and that members raised: nobody is left who could find that
// the reason has passed.
func (m *Machine) forgetAlarms(id uint64) {
	n := &m.notices
	gone := func(a Alarm) bool { return a.Member == id && a.Raised }
	if slices.ContainsFunc(n.Alarms, gone) {
		n.Alarms = slices.DeleteFunc(slices.Clone(n.Alarms), gone)
		n.judge()
		m.pending.notices = true
	}
}

func (m *Machine) setRemoved(id uint64) {
	if i, found := slices.BinarySearch(m.removed, id); !found {
		m.removed = slices.Insert(slices.Clone(m.removed), i, id)
	}
}

// resetMembers removes all members but one, which becomes a voter.
func (m *Machine) resetMembers(id uint64) {
	for at := len(m.members) - 1; at >= 0; at-- {
		if m.members[at].ID != id {
			m.removeMember(at)
		}
	}
	survivor := Member{ID: id}
	if at, found := m.findMember(id); found {
		survivor = m.members[at]
	}
	survivor.Learner = false
	m.changedMember(survivor)
}

func (m *Machine) findMember(id uint64) (at int, found bool) {
	return slices.BinarySearchFunc(m.members, id, func(a Member, id uint64) int { return cmp.Compare(a.ID, id) })
}

func (m *Machine) memberList() *pb.MemberListResponse {
	r := &pb.MemberListResponse{Header: m.header()}
	for _, member := range m.members {
		r.Members = append(r.Members, member.Proto())
	}
	return r
}

// Proto returns the member as etcd's message. It shares the URLs.
func (m Member) Proto() *pb.Member {
	return &pb.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.Learner}
}

// Voters returns the ids of the members, ascending: those that vote and those that only learn. Raft's configuration at
// the index applied is exactly this.
func (m *Machine) Voters() (voters, learners []uint64) {
	for _, member := range m.members {
		if member.Learner {
			learners = append(learners, member.ID)
		} else {
			voters = append(voters, member.ID)
		}
	}
	return voters, learners
}

// RemovedMembers returns the ids of all members that there once were, ascending. The caller must not write to it.
func (m *Machine) RemovedMembers() []uint64 { return m.removed }

func (m *Machine) checkMembers() error {
	for i := range m.members {
		if i > 0 && m.members[i].ID <= m.members[i-1].ID {
			return broken("members ascend by ID, each once", "%+v", m.members)
		}
		if _, removed := slices.BinarySearch(m.removed, m.members[i].ID); removed {
			return broken("the id of a removed member is never used again", "%x", m.members[i].ID)
		}
	}
	if !slices.IsSorted(m.removed) {
		return broken("removed ids ascend", "%x", m.removed)
	}
	return nil
}
