package state

import (
	"cmp"
	"slices"

	"github.com/tidwall/btree"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// MaxLeaseTTL is the longest TTL of a lease, in seconds; etcd's.
const MaxLeaseTTL = 9_000_000_000

// grant is a lease: state knows that it exists, its TTL and its keys. When it ends is the leader's clock's business.
type grant struct {
	id, ttl int64
	index   uint64 // of the entry that granted it
	// keys are the live keys whose newest version has Lease == id; sorted, since they are deleted in order. Nil before
	// there are any: a million leases may have none, and an empty set is most of a lease.
	keys *btree.Set[string]
}

// LeaseInfo describes a lease: its TTL in seconds as granted and the number of keys attached to it.
type LeaseInfo struct {
	ID, TTL int64
	Keys    int
	Index   uint64 // of the entry that granted it
}

// LeaseEvent tells that a lease was granted, with its TTL in seconds, or that it ended.
type LeaseEvent struct {
	ID, TTL int64
	Revoked bool
}

// Lease returns the lease with the id.
func (m *Machine) Lease(id int64) (LeaseInfo, bool) {
	g := m.leases[id]
	if g == nil {
		return LeaseInfo{}, false
	}
	return g.info(), true
}

// LeaseKeys returns the keys attached to a lease, sorted; none when it is unknown.
func (m *Machine) LeaseKeys(id int64) []string {
	g := m.leases[id]
	if g == nil || g.attached() == 0 {
		return nil
	}
	return g.keys.Keys()
}

// LeaseCount returns the number of leases.
func (m *Machine) LeaseCount() int { return len(m.leases) }

// Leases returns all leases, ascending by ID.
func (m *Machine) Leases() []LeaseInfo {
	infos := make([]LeaseInfo, 0, len(m.leases))
	for _, g := range m.leases {
		infos = append(infos, g.info())
	}
	slices.SortFunc(infos, func(a, b LeaseInfo) int { return cmp.Compare(a.ID, b.ID) })
	return infos
}

// TakeLeaseEvents returns the grants and ends since the last call, in order. They wait in memory until they are taken.
func (m *Machine) TakeLeaseEvents() []LeaseEvent {
	events := m.pending.leaseEvents
	m.pending.leaseEvents = nil
	return events
}

func (g *grant) info() LeaseInfo {
	return LeaseInfo{ID: g.id, TTL: g.ttl, Keys: g.attached(), Index: g.index}
}

// attached returns the number of keys attached to the lease.
func (g *grant) attached() int {
	if g.keys == nil {
		return 0
	}
	return g.keys.Len()
}

// scan calls fn for the keys attached to the lease, in order, until it returns false.
func (g *grant) scan(fn func(key string) bool) {
	if g.keys != nil {
		g.keys.Scan(fn)
	}
}

func (g *grant) attach(key string) {
	if g.keys == nil {
		g.keys = new(btree.Set[string])
	}
	g.keys.Insert(key)
}

func (g *grant) detach(key string) { g.keys.Delete(key) }

// grantLease grants a lease. Whoever proposed it has chosen an id and raised the TTL to the least one allowed; an id of
// zero means no lease everywhere else, so it can not be granted.
func (m *Machine) grantLease(id, ttl int64) (*pb.LeaseGrantResponse, error) {
	switch {
	case id == 0:
		return nil, ErrLeaseNotFound
	case ttl > MaxLeaseTTL:
		return nil, ErrLeaseTTLTooLarge
	case m.leases[id] != nil:
		return nil, ErrLeaseExists
	}
	ttl = max(ttl, 1)
	g := &grant{id: id, ttl: ttl, index: m.index}
	m.leases[id] = g
	m.prints.leases += g.row()
	m.noteLease(LeaseEvent{ID: id, TTL: ttl})
	return &pb.LeaseGrantResponse{Header: m.header(), ID: id, TTL: ttl}, nil
}

func (m *Machine) revokeLease(id int64) (*pb.LeaseRevokeResponse, error) {
	g := m.leases[id]
	if g == nil {
		return nil, ErrLeaseNotFound
	}
	m.endLease(g)
	return &pb.LeaseRevokeResponse{Header: m.header()}, nil
}

// expireLeases ends each lease that still exists, in the order given. Each is a revision of its own, so that a watcher
// sees the keys of one lease go together, and those of another apart.
func (m *Machine) expireLeases(r *ExpireLeases) *pb.LeaseRevokeResponse {
	for _, id := range r.ids() {
		if g := m.leases[id]; g != nil && (r.Seen == 0 || g.index <= r.Seen) {
			m.endLease(g)
			if m.subs > 0 {
				m.revision, m.subs = m.revision+1, 0
			}
		}
	}
	return &pb.LeaseRevokeResponse{Header: m.header()}
}

func (e *ExpireLeases) ids() []int64 {
	if e == nil {
		return nil
	}
	return e.IDs
}

// endLease deletes the lease and its keys in sorted order (etcd #6558: an order that depends on the member tears the
// members apart).
func (m *Machine) endLease(g *grant) {
	// The lease goes first: deleting a key then finds no lease to detach from, and g.keys stays as it is.
	delete(m.leases, g.id)
	m.prints.leases -= g.row()
	g.scan(func(key string) bool {
		if v, ok := m.live.Get(key); ok {
			m.delete(v)
		}
		return true
	})
	m.noteLease(LeaseEvent{ID: g.id, TTL: g.ttl, Revoked: true})
}

// moveLease attaches and detaches a key whose newest version becomes v in place of prev, nil when it did not exist.
func (m *Machine) moveLease(v, prev *Version) {
	var old int64
	if prev != nil {
		old = prev.Lease
	}
	if old == v.Lease {
		return
	}
	if g := m.leases[old]; g != nil {
		g.detach(v.Key)
	}
	if g := m.leases[v.Lease]; g != nil {
		g.attach(v.Key)
	}
}

func (m *Machine) noteLease(e LeaseEvent) {
	m.pending.leases = append(m.pending.leases, e.ID)
	m.pending.leaseEvents = append(m.pending.leaseEvents, e)
}
