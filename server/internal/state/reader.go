package state

import (
	"fmt"
	"sort"

	"github.com/tidwall/btree"
)

// countWalk is how many keys a count walks over before it turns to the tree's own counters, which cost some hundred
// steps whatever the range.
const countWalk = 256

// reader is the state that a read works on: a View's, or the machine's in the middle of a command. It never writes.
type reader struct {
	live, dead *btree.Map[string, *Version]
	history    History
	archive    Archive
	revision   int64 // the current one
	compact    int64
	lost       error // what it means that a readable version is nowhere, see View
}

// bounds is a range of keys: one key, or [from, to), or all from from on when open.
type bounds struct {
	from, to     string
	single, open bool
}

// boundsOf reads a range as etcd's requests give it: no end is the one key, an end of "\x00" is open. An empty end and
// an absent one are the same. The strings are the request's bytes and must not be kept.
func boundsOf(key, end []byte) bounds {
	return bounds{
		from: text(key), to: text(end),
		single: len(end) == 0,
		open:   len(end) == 1 && end[0] == 0,
	}
}

// above reports whether key is past the end of the range.
func (b *bounds) above(key string) bool {
	switch {
	case b.open:
		return false
	case b.single:
		return key > b.from
	default:
		return key >= b.to
	}
}

// resolve turns the revision of a request into the one to read at. Zero and below is the current one, as in etcd.
func (r *reader) resolve(rev int64) (int64, error) {
	switch {
	case rev > r.revision:
		return 0, ErrFutureRevision
	case rev <= 0:
		return r.revision, nil
	case rev < r.compact:
		return 0, ErrCompacted
	default:
		return rev, nil
	}
}

// ascend calls fn for the live versions in the range, in the order of their keys, until it returns false. It reports
// whether fn saw them all.
func (r *reader) ascend(b bounds, fn func(*Version) bool) bool {
	all := true
	if b.single {
		if v, ok := r.live.Get(b.from); ok {
			all = fn(v)
		}
		return all
	}
	r.live.Ascend(b.from, func(key string, v *Version) bool {
		if b.above(key) {
			return false
		}
		all = fn(v)
		return all
	})
	return all
}

// descend is ascend in the reverse order, for ranges that are not single.
func (r *reader) descend(b bounds, fn func(*Version) bool) bool {
	all := true
	visit := func(key string, v *Version) bool {
		if key < b.from {
			return false
		}
		if b.above(key) { // the end itself
			return true
		}
		all = fn(v)
		return all
	}
	if b.open {
		r.live.Reverse(visit)
	} else {
		r.live.Descend(b.to, visit)
	}
	return all
}

// count returns the number of live keys in the range.
func (r *reader) count(b bounds) int {
	n := 0
	if r.ascend(b, func(*Version) bool { n++; return n < countWalk }) {
		return n
	}
	end := r.live.Len()
	if !b.open {
		end = r.rank(b.to)
	}
	return end - r.rank(b.from)
}

// rank returns the number of live keys below key.
func (r *reader) rank(key string) int {
	return sort.Search(r.live.Len(), func(i int) bool {
		k, _, _ := r.live.GetAt(i)
		return k >= key
	})
}

// current stands for the newest version where an index into older is meant.
const current = -1

// ascendAt calls fn for the keys in the range that exist at revision rev, in order, until it returns false: newest is
// the key's newest version, i the index in its older of the version at rev, or current. It reads no values.
func (r *reader) ascendAt(b bounds, rev int64, fn func(newest *Version, i int) bool) {
	merge(r.live, r.dead, b.from, func(v *Version) bool {
		if b.above(v.Key) {
			return false
		}
		i, newest, ok := v.at(rev)
		switch {
		case !ok:
			return true
		case newest:
			return v.Deleted || fn(v, current)
		default:
			return v.older[i].deleted() || fn(v, i)
		}
	})
}

// load returns the version that ascendAt named, from memory or from the archive.
func (r *reader) load(newest *Version, i int) (*Version, error) {
	if i == current {
		return newest, nil
	}
	p := newest.older[i]
	if v := r.history.find(p.revision()); v != nil {
		return v, nil
	}
	if r.archive == nil {
		return nil, fmt.Errorf("read %q at revision %v: no archive: %w", newest.Key, p.revision(), r.lost)
	}
	v, err := r.archive.Version(p.revision())
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %q at revision %v: %w: %w", newest.Key, p.revision(), ErrArchive, err)
	case v == nil:
		return nil, fmt.Errorf("read %q at revision %v: it is gone: %w", newest.Key, p.revision(), r.lost)
	}
	if sum, _ := v.checksum(nil); sum != p.sum || v.Key != newest.Key {
		return nil, fmt.Errorf("read %q at revision %v: not what was written: %w", newest.Key, p.revision(), ErrArchive)
	}
	return v, nil
}

// merge calls fn for the newest version of each key from from on, live or dead, in the order of their keys, until it
// returns false. No key is in both trees.
func merge(live, dead *btree.Map[string, *Version], from string, fn func(*Version) bool) {
	a, b := live.Iter(), dead.Iter()
	inA, inB := a.Seek(from), b.Seek(from)
	for inA || inB {
		if inA && (!inB || a.Key() < b.Key()) {
			if !fn(a.Value()) {
				return
			}
			inA = a.Next()
		} else {
			if !fn(b.Value()) {
				return
			}
			inB = b.Next()
		}
	}
}
