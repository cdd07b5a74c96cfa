package state

// sweep is the progress of physical compaction.
type sweep struct {
	active bool
	target int64  // compact revision of the pass
	next   string // the pass has dealt with all keys below
	done   int64  // compact revision of the last finished pass
}

// Sweep removes what compaction made unreadable, looking at no more than max keys, and reports whether more is left.
func (m *Machine) Sweep(max int) (more bool) {
	return false
}
