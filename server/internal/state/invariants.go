package state

import "fmt"

// Check returns an error that tells the first broken invariant, nil when all hold. It reads everything in memory and is
// meant to be called after every step of a test.
func (m *Machine) Check() error {
	for _, check := range []func() error{
		m.checkNumbers, m.checkKeys, m.checkLeases, m.checkWindow, m.checkMembers, m.checkAuth, m.checkNotices, m.checkPrints,
	} {
		if err := check(); err != nil {
			return fmt.Errorf("state at index %d, revision %d, compacted %d: %w", m.index, m.revision, m.compact, err)
		}
	}
	return nil
}

// broken names an invariant, as a sentence, and the case that breaks it.
func broken(invariant, format string, args ...any) error {
	return fmt.Errorf("broken invariant: %s: %s", invariant, fmt.Sprintf(format, args...))
}

func (m *Machine) checkNumbers() error {
	switch {
	case m.revision < firstRevision:
		return broken("the revision is at least 1", "%d", m.revision)
	case m.compact < neverCompacted || m.compact > m.revision:
		return broken("the compact revision is between -1 and the revision", "%d", m.compact)
	case m.subs != 0:
		return broken("no command is half applied", "%d writes", m.subs)
	case m.sweep.done > m.compact || m.sweep.active && m.sweep.target > m.compact:
		return broken("the sweep never overtakes the compaction", "done %d, target %d", m.sweep.done, m.sweep.target)
	case m.view != nil && (m.view.index != m.index || m.view.reader.revision != m.revision):
		return broken("the cached view shows the present", "index %d, revision %d", m.view.index, m.view.reader.revision)
	}
	return nil
}

// checkKeys checks each key by itself, and the sizes over all of them.
func (m *Machine) checkKeys() error {
	var size Size
	var err error
	last, first := "", true
	merge(m.live, m.dead, "", func(v *Version) bool {
		if !first && v.Key <= last {
			err = broken("no key is both live and dead, and keys ascend", "%q after %q", v.Key, last)
			return false
		}
		last, first = v.Key, false
		if err = m.checkVersion(v); err == nil {
			err = m.checkOlder(v)
		}
		for _, p := range v.older {
			size.History += historyBytes(len(v.Key), int(p.size))
		}
		if v.Deleted {
			size.History += historyBytes(len(v.Key), 0)
		} else {
			size.Live += liveBytes(v)
			size.Keys++
		}
		return err == nil
	})
	if err == nil && size != m.size {
		return broken("the sizes are those of the keys held", "%+v, not %+v", m.size, size)
	}
	return err
}

// checkVersion checks the newest version of a key.
func (m *Machine) checkVersion(v *Version) error {
	live, inLive := m.live.Get(v.Key)
	dead, inDead := m.dead.Get(v.Key)
	sum, _ := v.checksum(nil)
	switch {
	case inLive && live != v || inDead && dead != v || inLive == inDead:
		return broken("a version stands under its own key, in one tree", "%q", v.Key)
	case inDead != v.Deleted:
		return broken("the live tree holds no tombstone, the dead tree nothing else", "%q", v.Key)
	case v.Deleted && (v.Create != 0 || v.Count != 0 || v.Lease != 0 || len(v.Value) != 0):
		return broken("a tombstone has only a key and a revision", "%q: %+v", v.Key, v)
	case !v.Deleted && (v.Create < 1 || v.Create > v.Mod || v.Count < 1):
		return broken("a key was created before it was modified", "%q: %+v", v.Key, v)
	case v.Mod > m.revision || v.Sub < 0:
		return broken("no version is of the future", "%q: %v", v.Key, v.Revision())
	case sum != v.sum:
		return broken("a version is never written to", "%q at %v", v.Key, v.Revision())
	}
	return nil
}

// checkOlder checks the superseded versions of a key.
func (m *Machine) checkOlder(v *Version) error {
	above := v.Revision()
	for i := len(v.older) - 1; i >= 0; i-- {
		p := v.older[i]
		if p.revision().Compare(above) >= 0 {
			return broken("the versions of a key ascend", "%q: %v before %v", v.Key, p.revision(), above)
		}
		above = p.revision()
		if m.window.holds(p.revision()) {
			old := m.History().find(p.revision())
			if old == nil || old.Key != v.Key || old.past() != p {
				return broken("the window holds every version above its start", "%q at %v", v.Key, p.revision())
			}
		} else if m.archive == nil || p.main > m.window.archived {
			return broken("a version leaves memory only when it is archived", "%q at %v", v.Key, p.revision())
		}
	}
	behind := m.sweep.active && m.sweep.begun && v.Key <= m.sweep.after
	floor := m.sweep.done
	if behind {
		floor = m.sweep.target
	}
	if n, all := v.discarded(floor); n > 0 || all {
		return broken("what was swept is gone", "%q: %d versions at revision %d", v.Key, n, floor)
	}
	return nil
}

// checkLeases checks both directions of the attachment.
func (m *Machine) checkLeases() error {
	var err error
	attached := 0
	m.live.Scan(func(key string, v *Version) bool {
		if v.Lease == 0 {
			return true
		}
		attached++
		if g := m.leases[v.Lease]; g == nil || g.keys == nil || !g.keys.Contains(key) {
			err = broken("a key with a lease is attached to it", "%q, lease %x", key, v.Lease)
		}
		return err == nil
	})
	for _, l := range m.Leases() {
		attached -= l.Keys
		if l.ID == 0 || l.TTL < 1 || l.TTL > MaxLeaseTTL {
			return broken("a lease has an id and a TTL in bounds", "%+v", l)
		}
	}
	if err == nil && attached != 0 {
		return broken("a lease holds only keys that are attached to it", "%d more keys than attachments", -attached)
	}
	return err
}

// checkWindow checks the events in memory.
func (m *Machine) checkWindow() error {
	w := &m.window
	h, bytes := m.History(), w.tailBytes
	var last Revision
	for i := range len(h.sealed) + 1 {
		if i < len(h.sealed) {
			bytes += h.sealed[i].bytes
			if h.sealed[i].start != h.chunk(i)[0].Version.Revision() {
				return broken("a chunk is found by its first event", "chunk %d", i)
			}
		}
		for _, e := range h.chunk(i) {
			rev := e.Version.Revision()
			// Below the compact revision a checkpoint may have been swept before it was loaded.
			dense := rev.Main > last.Main || rev.Sub == last.Sub+1 || rev.Main <= m.compact
			if rev.Compare(last) <= 0 || !dense || rev.Main > m.revision {
				return broken("events ascend without gaps", "%v after %v", rev, last)
			}
			if p := e.Prev; p != nil && (p.Key != e.Version.Key || p.Deleted || p.Mod >= rev.Main) {
				return broken("an event's Prev is a version of its key of an earlier revision", "%v: %v", rev, p.Revision())
			}
			last = rev
		}
	}
	switch {
	case bytes != w.bytes:
		return broken("the window's bytes are those of its chunks", "%d, not %d", w.bytes, bytes)
	case w.first > m.revision+1:
		return broken("the window is complete up to the current revision", "first %d", w.first)
	case w.bytes > w.limit && len(w.sealed) > 0 && w.sealed[0].last() <= w.archived:
		return broken("the window keeps to its limit where the archive allows it", "%d of %d bytes", w.bytes, w.limit)
	}
	return nil
}
