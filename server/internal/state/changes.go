package state

import (
	"cmp"
	"fmt"
	"slices"
)

// Changes is what changed between two points of the log, for the checkpoint: applied to the state at the first point
// it gives the state at the second. Versions are to be written before Removed are deleted, since one may be both. A
// lease or a member is named once, with its state at the second point.
type Changes struct {
	Index, Term   uint64     // the second point: the last entry applied
	Revision      int64      // current revision there
	Compact       int64      // compact revision there
	Versions      []*Version // written, in revision order
	Removed       []Revision // of versions that compaction removed for good, in no particular order
	Leases        []LeaseInfo
	RevokedLeases []int64
	Members       []Member // added or changed
	// RemovedMembers are the ids of members that were removed, and are never to be used again.
	RemovedMembers []uint64
	Auth           AuthChanges
	Notices        *Notices // all of them; nil when they did not change
	// SweptTo is the compact revision whose physical removal was finished; 0 when none was.
	SweptTo int64
}

// pending is what TakeChanges and TakeLeaseEvents will return.
type pending struct {
	touched     bool // something was applied or swept
	versions    []*Version
	removed     []Revision
	leases      []int64  // granted or ended, in order, repeated
	members     []uint64 // changed or removed, in order, repeated
	notices     bool     // changed
	sweptTo     int64
	leaseEvents []LeaseEvent
}

// Empty reports whether there is nothing to write, not even a new applied index.
func (c *Changes) Empty() bool { return c.Index == 0 && len(c.Removed) == 0 && c.SweptTo == 0 }

// Merge adds the changes that followed c, as if both had been taken at once.
func (c *Changes) Merge(later Changes) {
	if later.Empty() {
		return
	}
	c.Index, c.Term, c.Revision, c.Compact = later.Index, later.Term, later.Revision, later.Compact
	c.Versions = append(c.Versions, later.Versions...)
	c.Removed = append(c.Removed, later.Removed...)
	c.SweptTo = max(c.SweptTo, later.SweptTo)
	if later.Notices != nil {
		c.Notices = later.Notices
	}

	again := make(map[int64]bool, len(later.Leases)+len(later.RevokedLeases))
	for _, l := range later.Leases {
		again[l.ID] = true
	}
	for _, id := range later.RevokedLeases {
		again[id] = true
	}
	c.Leases = slices.DeleteFunc(c.Leases, func(l LeaseInfo) bool { return again[l.ID] })
	c.RevokedLeases = slices.DeleteFunc(c.RevokedLeases, func(id int64) bool { return again[id] })
	c.Leases = append(c.Leases, later.Leases...)
	c.RevokedLeases = append(c.RevokedLeases, later.RevokedLeases...)
	slices.SortFunc(c.Leases, func(a, b LeaseInfo) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(c.RevokedLeases)

	c.Members = slices.DeleteFunc(c.Members, func(m Member) bool {
		return slices.Contains(later.RemovedMembers, m.ID) ||
			slices.ContainsFunc(later.Members, func(l Member) bool { return l.ID == m.ID })
	})
	c.RemovedMembers = append(c.RemovedMembers, later.RemovedMembers...)
	slices.Sort(c.RemovedMembers)
	c.Members = append(c.Members, later.Members...)
	slices.SortFunc(c.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	c.Auth.merge(later.Auth)
}

// TakeChanges returns what changed since the last call; it is empty when nothing was applied or swept since. Changes
// wait in memory until they are taken.
func (m *Machine) TakeChanges() Changes {
	p := &m.pending
	if !p.touched {
		return Changes{}
	}
	c := Changes{
		Index: m.index, Term: m.term, Revision: m.revision, Compact: m.compact,
		Versions: p.versions, Removed: p.removed, SweptTo: p.sweptTo, Auth: m.auth.take(),
	}
	if p.notices {
		c.Notices = new(m.notices.Notices)
	}
	slices.Sort(p.leases)
	for _, id := range slices.Compact(p.leases) {
		if info, ok := m.Lease(id); ok {
			c.Leases = append(c.Leases, info)
		} else {
			c.RevokedLeases = append(c.RevokedLeases, id)
		}
	}
	slices.Sort(p.members)
	for _, id := range slices.Compact(p.members) {
		if at, ok := m.findMember(id); ok {
			c.Members = append(c.Members, m.members[at])
		} else {
			c.RemovedMembers = append(c.RemovedMembers, id)
		}
	}
	*p = pending{leaseEvents: p.leaseEvents}
	return c
}

// Dump returns the whole state as changes to an empty store. It is the same for logically equal states, whatever was
// swept or archived. It is for simulators and tests: it reads all of the history, and panics when the archive fails.
func (m *Machine) Dump() Changes {
	c := Changes{
		Index: m.index, Term: m.term, Revision: m.revision, Compact: m.compact,
		Leases: m.Leases(), Members: m.Members(), RemovedMembers: m.RemovedMembers(), SweptTo: max(m.compact, 0),
		Auth: m.auth.dump(),
	}
	if len(m.notices.Alarms) > 0 || m.notices.Downgrade != "" {
		c.Notices = new(m.notices.Notices)
	}
	r := m.reader()
	merge(m.live, m.dead, "", func(v *Version) bool {
		n, all := v.discarded(m.compact)
		for i := n; i < len(v.older); i++ {
			old, err := r.load(v, i)
			if err != nil {
				panic(fmt.Sprintf("state: dump: %v", err))
			}
			c.Versions = append(c.Versions, old.trimmed(len(old.older)))
		}
		if !all {
			c.Versions = append(c.Versions, v.trimmed(len(v.older)))
		}
		return true
	})
	slices.SortFunc(c.Versions, func(a, b *Version) int { return a.Revision().Compare(b.Revision()) })
	return c
}
