package state

import (
	"errors"
	"fmt"
	"math"
)

// errLoad is the common part of a loader's complaints: the checkpoint does not hold a state that a machine can be in.
var errLoad = errors.New("not a valid state")

// Loader rebuilds a machine from a checkpoint: all versions in revision order, the leases and the members in any order
// between them, and then Finish. What is superseded and compacted but not yet swept may be there or not. After an error
// the loader is of no more use.
type Loader struct {
	m    *Machine
	last Revision
}

// NewLoader returns a loader of an empty store. With an Archive in c, all versions loaded are taken to be in it.
func NewLoader(c Config) *Loader {
	m := New(c)
	if m.archive != nil {
		m.window.archived = math.MaxInt64
	}
	return &Loader{m: m}
}

// Version adds a version; its revision is above all those before. The loader keeps the key and the value.
func (l *Loader) Version(v *Version) error {
	if v.Revision().Compare(l.last) <= 0 || v.Sub < 0 || v.Sub > math.MaxInt32 {
		return fmt.Errorf("load %q: revision %v after %v: %w", v.Key, v.Revision(), l.last, errLoad)
	}
	write := v.Create > 0 && v.Create <= v.Mod && v.Count > 0
	tombstone := v.Create == 0 && v.Count == 0 && v.Lease == 0 && len(v.Value) == 0
	if v.Deleted && !tombstone || !v.Deleted && !write {
		return fmt.Errorf("load %q at %v: created %d, version %d, deleted %t: %w",
			v.Key, v.Revision(), v.Create, v.Count, v.Deleted, errLoad)
	}
	l.last = v.Revision()
	c := &Version{
		Key: v.Key, Value: v.Value, Create: v.Create, Mod: v.Mod, Sub: v.Sub, Count: v.Count, Lease: v.Lease,
		Deleted: v.Deleted,
	}
	m := l.m
	var prev *Version
	if c.Deleted {
		prev, _ = m.live.Delete(c.Key)
		// Two tombstones in a row are left when a sweep was cut short between the versions of a key.
		if last, again := m.dead.Set(c.Key, c); again {
			prev = last
		}
	} else if prev, _ = m.live.Set(c.Key, c); prev == nil {
		prev = m.buried(c.Key)
	}
	m.write(c, prev)
	m.pending.versions = m.pending.versions[:0]
	return nil
}

// Lease adds a lease; the keys attached to it are found in the versions.
func (l *Loader) Lease(info LeaseInfo) error {
	if info.ID == 0 || info.TTL <= 0 || info.TTL > MaxLeaseTTL || l.m.leases[info.ID] != nil {
		return fmt.Errorf("load lease %x with TTL %d: %w", info.ID, info.TTL, errLoad)
	}
	g := &grant{id: info.ID, ttl: info.TTL, index: info.Index}
	l.m.leases[info.ID] = g
	l.m.prints.leases += g.row()
	return nil
}

// Member adds a member, or replaces the one of the Config with this ID.
func (l *Loader) Member(member Member) error {
	if member.ID == 0 {
		return fmt.Errorf("load member %q without ID: %w", member.Name, errLoad)
	}
	l.m.setMember(member)
	return nil
}

// RemovedMember adds the id of a former member.
func (l *Loader) RemovedMember(id uint64) error {
	if id == 0 {
		return fmt.Errorf("load removed member without ID: %w", errLoad)
	}
	l.m.setRemoved(id)
	return nil
}

// Finish checks that all fits together and returns the machine, as it was after the entry at index. The revision is
// given apart: the newest version may be of a lower one when compaction removed what was above (etcd #17780).
func (l *Loader) Finish(index, term uint64, revision, compact int64) (*Machine, error) {
	m := l.m
	if revision < max(l.last.Main, firstRevision) || compact < neverCompacted || compact > revision {
		return nil, fmt.Errorf("load revision %d, compacted %d, newest version %v: %w", revision, compact, l.last, errLoad)
	}
	var err error
	m.live.Scan(func(key string, v *Version) bool {
		if v.Lease == 0 {
			return true
		}
		g := m.leases[v.Lease]
		if g == nil {
			err = fmt.Errorf("load %q: attached to unknown lease %x: %w", key, v.Lease, errLoad)
			return false
		}
		g.attach(key)
		return true
	})
	if err == nil {
		err = m.auth.state.checkLoaded()
	}
	if err != nil {
		return nil, err
	}
	m.index, m.term, m.revision, m.compact, m.subs = index, term, revision, compact, 0
	m.pending = pending{}
	m.window.first = max(m.window.first, compact)
	if m.archive != nil {
		m.window.archived = revision
	}
	m.window.forget(compact)
	return m, nil
}
