package watch

import "slices"

// prefixLengthsMax bounds the lengths of prefixes that are looked up by hash, because each costs a look-up an event.
// Prefixes of further lengths go to the tree of spans.
const prefixLengthsMax = 16

// fromKey is the End of a Range without an upper bound, as in etcd's API.
const fromKey = "\x00"

// Range is a set of keys in etcd's terms: Start alone when End is empty, all keys at or above Start when End is one
// zero byte, else Start <= key < End.
type Range struct{ Start, End string }

// empty reports whether no key can be in the range.
func (r Range) empty() bool {
	return r.End != "" && r.End != fromKey && r.Start >= r.End
}

// prefix returns the prefix whose keys are exactly the range's.
func (r Range) prefix() (string, bool) {
	if r.End == fromKey {
		// The empty key does not exist, so the keys from "\x00" on are all keys.
		return "", r.Start == "" || r.Start == fromKey
	}
	if r.End == "" || r.Start == "" {
		return "", false
	}
	// The end of a prefix is the prefix without its trailing 0xff, the last byte increased.
	last := len(r.Start) - 1
	for last > 0 && r.Start[last] == 0xff {
		last--
	}
	if len(r.End) != last+1 || r.Start[last] == 0xff {
		return "", false
	}
	return r.Start, r.End[:last] == r.Start[:last] && r.End[last] == r.Start[last]+1
}

// index finds the groups that a key belongs to. Groups of one range form a list that runs through the groups
// themselves, so that an idle watcher costs one map entry and no slice.
//
// The hub's index is protected by the hub's mutex; a stream's index of lagging groups is owned by the stream.
type index struct {
	exact    map[string]*group
	prefixes map[string]*group
	lengths  []prefixLength // ascending, no more than prefixLengthsMax
	spans    spans
	size     int // groups
}

type prefixLength struct{ length, prefixes int }

// add puts a group into the index. The group is in no other index.
func (x *index) add(g *group) {
	x.size++
	if g.rng.End == "" {
		if x.exact == nil {
			x.exact = make(map[string]*group)
		}
		x.exact[g.rng.Start] = g.before(x.exact[g.rng.Start])
		return
	}
	if p, ok := g.rng.prefix(); ok {
		if head := x.prefixes[p]; head != nil || x.countLength(len(p)) {
			if x.prefixes == nil {
				x.prefixes = make(map[string]*group)
			}
			x.prefixes[p] = g.before(head)
			g.place = placePrefix
			return
		}
	}
	x.spans.add(g)
	g.place = placeSpan
}

// remove takes a group out again.
func (x *index) remove(g *group) {
	x.size--
	switch g.place {
	case placeExact:
		unlink(x.exact, g.rng.Start, g)
	case placePrefix:
		p, _ := g.rng.prefix()
		if unlink(x.prefixes, p, g) {
			x.uncountLength(len(p))
		}
	case placeSpan:
		x.spans.remove(g)
	}
	g.place = placeExact
}

// match appends the groups that key belongs to, in no particular order.
func (x *index) match(key string, to []*group) []*group {
	to = x.exact[key].appendAll(to)
	for _, l := range x.lengths {
		if l.length > len(key) {
			break
		}
		to = x.prefixes[key[:l.length]].appendAll(to)
	}
	return x.spans.match(key, to)
}

// all appends every group of the index.
func (x *index) all(to []*group) []*group {
	for _, g := range x.exact {
		to = g.appendAll(to)
	}
	for _, g := range x.prefixes {
		to = g.appendAll(to)
	}
	return x.spans.root.all(to)
}

// countLength notes another prefix of that length; false when there are too many lengths already.
func (x *index) countLength(length int) bool {
	i, found := slices.BinarySearchFunc(x.lengths, length, func(l prefixLength, n int) int { return l.length - n })
	if !found {
		if len(x.lengths) == prefixLengthsMax {
			return false
		}
		x.lengths = slices.Insert(x.lengths, i, prefixLength{length: length})
	}
	x.lengths[i].prefixes++
	return true
}

func (x *index) uncountLength(length int) {
	i, _ := slices.BinarySearchFunc(x.lengths, length, func(l prefixLength, n int) int { return l.length - n })
	x.lengths[i].prefixes--
	if x.lengths[i].prefixes == 0 {
		x.lengths = slices.Delete(x.lengths, i, i+1)
	}
}

// place says which part of an index a group is in.
type place uint8

const (
	placeExact place = iota
	placePrefix
	placeSpan
)

// before links g in front of the list head and returns the new head.
func (g *group) before(head *group) *group {
	g.next = head
	if head != nil {
		head.prev = g
	}
	return g
}

// appendAll appends the groups of the list that begins with g; none when g is nil.
func (g *group) appendAll(to []*group) []*group {
	for ; g != nil; g = g.next {
		to = append(to, g)
	}
	return to
}

// cut takes g out of its list and returns the new head when g was the head.
func (g *group) cut() (head *group, wasHead bool) {
	head, wasHead = g.next, g.prev == nil
	if g.prev != nil {
		g.prev.next = g.next
	}
	if g.next != nil {
		g.next.prev = g.prev
	}
	g.next, g.prev = nil, nil
	return head, wasHead
}

// unlink takes g out of its list in m; true when the list is empty now.
func unlink(m map[string]*group, key string, g *group) (last bool) {
	head, wasHead := g.cut()
	switch {
	case !wasHead:
		return false
	case head == nil:
		delete(m, key)
		return true
	default:
		m[key] = head
		return false
	}
}
