package state

import (
	"fmt"
	"slices"

	"github.com/tidwall/btree"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

const (
	// firstRevision is the revision of an empty store, and neverCompacted its compact revision, as in etcd: the first
	// write gets revision 2.
	firstRevision  = 1
	neverCompacted = -1

	// treeDegree sets the size of the trees' nodes (2*degree-1 items). The first write to a node after a View copies
	// it, so nodes must not be large; look-ups want them not small.
	treeDegree = 32

	// What things cost in memory besides keys and values: the Version, its slot in the event window, and the record
	// that stays of it once it is superseded. liveKeyBytes is the nominal cost that the quota charges for a live key.
	versionBytes   = 112
	eventSlotBytes = 16
	pastBytes      = 24
	liveKeyBytes   = 256
)

// Archive holds the versions that left memory; the checkpoint is one. Its answers must be what was written, which state
// checks. Both methods may be called from any goroutine that holds a View.
type Archive interface {
	// Version returns the version written at rev, nil and no error when it holds none.
	Version(rev Revision) (*Version, error)
	// Scan calls fn for the versions with from <= Main <= to in order, until fn returns false.
	Scan(from, to int64, fn func(*Version) bool) error
}

// Config configures a Machine. It is the same on all members but for HistoryBytes and Archive, which decide where old
// versions are kept and never what a read answers.
type Config struct {
	// HistoryBytes bounds the events kept in memory; DefaultHistoryBytes when zero. Only events that the archive holds
	// are dropped, and values that are also the newest of their key count in full, so it is a target and not a limit.
	HistoryBytes int
	// Archive may be nil: then nothing leaves memory.
	Archive   Archive
	ClusterID uint64
	Members   []Member
}

// Result is the outcome of one command. Response is etcd's response to the request, with Revision as the only field of
// its header; it shares values with the store and must not be written to. With an Err there is no Response.
//
// An ExpireLeases command answers with a LeaseRevokeResponse, a Member with a MemberUpdateResponse without members.
type Result struct {
	Response proto.Message
	Err      error
}

// Size is what the store holds.
type Size struct {
	// Live is the bytes of the live keys and values, and 256 a key.
	Live int64
	// History is the bytes of the superseded versions and tombstones that compaction has not removed yet: keys, values
	// and what each costs in memory while it is there. What was archived counts all the same.
	History int64
	// Keys is the number of live keys.
	Keys int
}

// totals is what a machine keeps count of.
type totals struct {
	size   Size
	counts Counts
}

// Counts is what was applied since the machine was made. It is no part of the state: members differ in it.
type Counts struct{ Puts, Deletes, Txns, PutBytes int64 }

// Machine is the replicated state: its content is a function of the commands applied and of nothing else. It has no
// lock: the caller serialises all calls of its methods, and shares Views and Histories instead.
type Machine struct {
	live   *btree.Map[string, *Version] // the newest version of each key that exists
	dead   *btree.Map[string, *Version] // the tombstone of each key that does not, until compaction removes it
	window window
	leases map[int64]*grant // never ranged over where the order could show
	roster
	auth authority

	clusterID uint64
	archive   Archive
	notices   notices
	prints    prints

	revision    int64 // of the last command that wrote something
	subs        int64 // writes of the command being applied; 0 between commands
	compact     int64 // reads below are refused; -1 when never compacted
	index, term uint64

	sweep   sweep
	pending pending
	totals
	view *View // of the present state, nil when something was applied since the last
	room room
}

// room is working space that is used again.
type room struct {
	checksum []byte
	victims  []*Version // of range deletes, and of packing
	packer   packer
}

// New returns an empty store.
func New(c Config) *Machine {
	limit := c.HistoryBytes
	if limit <= 0 {
		limit = DefaultHistoryBytes
	}
	m := &Machine{
		live:      btree.NewMap[string, *Version](treeDegree),
		dead:      btree.NewMap[string, *Version](treeDegree),
		window:    window{first: firstRevision, limit: limit, archived: neverCompacted},
		leases:    make(map[int64]*grant),
		clusterID: c.ClusterID,
		archive:   c.Archive,
		revision:  firstRevision,
		compact:   neverCompacted,
		sweep:     sweep{done: neverCompacted},
		auth:      authority{state: newAuth()},
	}
	for _, member := range c.Members {
		m.setMember(member)
	}
	return m
}

// Apply applies the commands of the log entry at index, in order, and returns their results in the same order. It is
// total: a command that can not be carried out has an error for a result and changes nothing. The requests belong to
// the machine from now on. Applying an index twice is a mistake of the caller and panics.
func (m *Machine) Apply(index, term uint64, batch []Command) []Result {
	if index <= m.index {
		panic(fmt.Sprintf("state: apply index %d after %d", index, m.index))
	}
	m.index, m.term, m.view = index, term, nil
	m.pending.touched = true
	results := make([]Result, len(batch))
	for i := range batch {
		results[i].Response, results[i].Err = m.apply(&batch[i])
		if m.subs > 0 {
			m.revision, m.subs = m.revision+1, 0
		}
	}
	return results
}

// apply carries out one command. Each case keeps a nil message of a concrete type out of the interface.
func (m *Machine) apply(c *Command) (proto.Message, error) {
	if m.notices.noSpace || m.notices.corrupt {
		if err := m.notices.barred(c); err != nil {
			return nil, err
		}
	}
	if err := m.permit(c); err != nil {
		return nil, err
	}
	switch r := c.Request.(type) {
	case *pb.PutRequest:
		return result(m.put(r))
	case *pb.DeleteRangeRequest:
		return m.deleteRange(r), nil
	case *pb.TxnRequest:
		m.counts.Txns++
		return result(m.txn(r))
	case *pb.CompactionRequest:
		return result(m.compactTo(r.GetRevision()))
	case *pb.LeaseGrantRequest:
		return result(m.grantLease(r.GetID(), r.GetTTL()))
	case *pb.LeaseRevokeRequest:
		return result(m.revokeLease(r.GetID()))
	case *ExpireLeases:
		return m.expireLeases(r), nil
	case *Member:
		return result(m.updateMember(r))
	case *MemberChange:
		return result(m.changeMembers(c.Kind, r))
	case *pb.AlarmRequest:
		return m.alarm(r, c.Kind == KindRaise), nil
	case *Divergence:
		return m.accuse(r), nil
	case *pb.HashKVRequest:
		m.takeFingerprint(r.GetRevision())
		return &pb.HashKVResponse{Header: m.header(), HashRevision: int64(m.index)}, nil
	case *pb.DowngradeRequest:
		return result(m.downgrade(r))
	default:
		if response, ok, err := m.applyAuth(c); ok {
			return response, err
		}
		return nil, fmt.Errorf("apply %T: %w", c.Request, ErrCommand)
	}
}

func result[M proto.Message](r M, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Applied returns the index and term of the last entry applied, zero at the start.
func (m *Machine) Applied() (index, term uint64) { return m.index, m.term }

// Revision returns the current revision, 1 for an empty store.
func (m *Machine) Revision() int64 { return m.revision }

// CompactRevision returns the lowest revision that can be read, -1 when nothing was ever compacted.
func (m *Machine) CompactRevision() int64 { return m.compact }

// Size returns what the store holds now.
func (m *Machine) Size() Size { return m.size }

// KeysHeld returns how many keys are in memory, deleted ones included that compaction has not removed.
func (m *Machine) KeysHeld() int { return m.live.Len() + m.dead.Len() }

// Counts returns what was applied.
func (m *Machine) Counts() Counts { return m.counts }

// History returns the events in memory.
func (m *Machine) History() History { return m.window.snapshot(m.revision) }

// Archived tells that the archive holds all versions with Main <= rev durably. They may leave memory from now on.
func (m *Machine) Archived(rev int64) {
	if m.archive == nil {
		return
	}
	m.window.archived = max(m.window.archived, rev)
	m.window.drop()
}

// Members returns the members of the cluster, ascending by ID. The caller must not write to their slices.
func (m *Machine) Members() []Member { return slices.Clone(m.members) }

// now is the revision that a read sees at this point: within a command that has written something, the one that it is
// about to make.
func (m *Machine) now() int64 {
	if m.subs > 0 {
		return m.revision + 1
	}
	return m.revision
}

// reader returns the present state for reading.
func (m *Machine) reader() reader {
	return reader{
		live: m.live, dead: m.dead, history: m.window.snapshot(m.revision), archive: m.archive,
		revision: m.now(), compact: m.compact, lost: ErrArchive,
	}
}

// compactTo makes everything that is not readable at rev or later unreadable at once; Sweep removes it bit by bit.
func (m *Machine) compactTo(rev int64) (*pb.CompactionResponse, error) {
	switch {
	case rev <= m.compact:
		return nil, ErrCompacted
	case rev > m.revision:
		return nil, ErrFutureRevision
	}
	m.compact = rev
	return &pb.CompactionResponse{Header: m.header()}, nil
}

// updateMember sets what a member says of itself.
func (m *Machine) updateMember(r *Member) (*pb.MemberUpdateResponse, error) {
	for i := range m.members {
		if old := &m.members[i]; r != nil && old.ID == r.ID {
			updated := *old
			updated.Name, updated.ClientURLs = r.Name, slices.Clone(r.ClientURLs)
			m.setMember(updated)
			m.pending.members = append(m.pending.members, updated.ID)
			return &pb.MemberUpdateResponse{Header: m.header()}, nil
		}
	}
	return nil, ErrMemberNotFound
}

// setMember adds or replaces a member. A member's slices are replaced and never written to: Members hands them out.
func (m *Machine) setMember(member Member) {
	i, found := m.findMember(member.ID)
	if found {
		m.members[i] = member
		return
	}
	m.members = slices.Insert(m.members, i, member)
}

func (m *Machine) header() *pb.ResponseHeader { return &pb.ResponseHeader{Revision: m.now()} }
