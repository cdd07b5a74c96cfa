package state

// At returns the revision of the version of key that a read at rev finds, and false if there is none. rev is not below
// the compact revision. It reads no values, and so no archive.
func (v *View) At(key string, rev int64) (Revision, bool) {
	newest, ok := v.reader.live.Get(key)
	if !ok {
		if newest, ok = v.reader.dead.Get(key); !ok {
			return Revision{}, false
		}
	}
	i, isNewest, ok := newest.at(rev)
	switch {
	case !ok:
		return Revision{}, false
	case isNewest:
		return newest.Revision(), !newest.Deleted
	default:
		return newest.older[i].revision(), !newest.older[i].deleted()
	}
}

// EmptyAt reports whether a read of everything at rev finds nothing.
func (v *View) EmptyAt(rev int64) bool {
	empty := true
	v.reader.ascendAt(bounds{open: true}, rev, func(*Version, int) bool {
		empty = false
		return false
	})
	return empty
}
