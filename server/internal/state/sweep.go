package state

// sweep is the progress of physical compaction: passes over all keys, live and dead together, in order. One cursor for
// both trees means that a key which changes trees during a pass is met neither twice nor never: behind the cursor it
// was dealt with already, ahead of it it will be.
type sweep struct {
	active bool
	target int64 // compact revision of the pass
	begun  bool  // the pass has dealt with all keys up to after
	after  string
	done   int64 // compact revision of the last finished pass; below it nothing superfluous is held
}

// Sweep removes what compaction made unreadable, looking at no more than limit keys, and reports whether more is left.
// It changes nothing that a read, a View or the Digest shows.
func (m *Machine) Sweep(limit int) (more bool) {
	s, limit := &m.sweep, max(limit, 1)
	if !s.active {
		if s.done >= m.compact {
			return false
		}
		*s = sweep{active: true, target: m.compact, done: s.done}
	}
	type find struct {
		v     *Version
		older int
		all   bool
	}
	var finds []find // the trees must not change under the walk
	seen, begun, after := 0, s.begun, s.after
	merge(m.live, m.dead, after, func(v *Version) bool {
		if begun && v.Key == after {
			return true
		}
		if seen == limit {
			return false
		}
		seen++
		s.begun, s.after = true, v.Key
		if older, all := v.discarded(s.target); older > 0 || all {
			finds = append(finds, find{v, older, all})
		}
		return true
	})
	for _, f := range finds {
		m.discard(f.v, f.older, f.all)
	}
	if seen < limit {
		s.active, s.done = false, s.target
		m.pending.sweptTo, m.pending.touched = s.target, true
	}
	return s.done < m.compact
}

// discard removes the n oldest versions of a key, and its tombstone v when all.
func (m *Machine) discard(v *Version, n int, all bool) {
	for _, p := range v.older[:n] {
		m.pending.removed = append(m.pending.removed, p.revision())
		m.size.History -= historyBytes(len(v.Key), int(p.size))
	}
	m.pending.touched = true
	switch {
	case all:
		m.dead.Delete(v.Key)
		m.pending.removed = append(m.pending.removed, v.Revision())
		m.size.History -= historyBytes(len(v.Key), 0)
	case v.Deleted:
		m.dead.Set(v.Key, v.trimmed(n))
	default:
		m.live.Set(v.Key, v.trimmed(n))
	}
}
