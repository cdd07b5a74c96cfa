package watch

import "strings"

// spans is a treap of ranges, ordered by start and end, where each node knows the highest end below it; a key's ranges
// are found without looking at those that end before it.
type spans struct {
	root *span
	rand uint64 // state of the priorities' generator; their quality only bounds the depth
}

type span struct {
	start       string
	end         bound
	maxEnd      bound // the highest end in this subtree
	priority    uint64
	left, right *span
	groups      *group // head of a list, never nil
}

// bound is an exclusive upper end: a key, or none at all.
type bound struct {
	key  string
	open bool
}

func (b bound) above(key string) bool {
	return b.open || key < b.key
}

func (b bound) compare(c bound) int {
	switch {
	case b.open && c.open:
		return 0
	case b.open:
		return 1
	case c.open:
		return -1
	default:
		return strings.Compare(b.key, c.key)
	}
}

func endOf(r Range) bound {
	if r.End == fromKey {
		return bound{open: true}
	}
	return bound{key: r.End}
}

// compare orders a range against the node's.
func (n *span) compare(start string, end bound) int {
	if c := strings.Compare(start, n.start); c != 0 {
		return c
	}
	return end.compare(n.end)
}

func (t *spans) find(r Range) *span {
	end := endOf(r)
	for n := t.root; n != nil; {
		switch c := n.compare(r.Start, end); {
		case c == 0:
			return n
		case c < 0:
			n = n.left
		default:
			n = n.right
		}
	}
	return nil
}

func (t *spans) add(g *group) {
	if n := t.find(g.rng); n != nil {
		n.groups = g.before(n.groups)
		return
	}
	// splitmix64
	t.rand += 0x9e3779b97f4a7c15
	z := t.rand
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	n := &span{start: g.rng.Start, end: endOf(g.rng), priority: z ^ z>>31, groups: g}
	left, right := t.root.split(n.start, n.end)
	t.root = merge(merge(left, n.update()), right)
}

func (t *spans) remove(g *group) {
	n := t.find(g.rng)
	head, wasHead := g.cut()
	if !wasHead {
		return
	}
	if head != nil {
		n.groups = head
		return
	}
	t.root = t.root.without(n.start, n.end)
}

// match appends the groups whose range holds key.
func (t *spans) match(key string, to []*group) []*group {
	return t.root.match(key, to)
}

func (n *span) match(key string, to []*group) []*group {
	for n != nil && n.maxEnd.above(key) {
		to = n.left.match(key, to)
		if n.start > key {
			break
		}
		if n.end.above(key) {
			to = n.groups.appendAll(to)
		}
		n = n.right
	}
	return to
}

func (n *span) all(to []*group) []*group {
	if n == nil {
		return to
	}
	return n.right.all(n.groups.appendAll(n.left.all(to)))
}

// update recomputes maxEnd from the children and returns n.
func (n *span) update() *span {
	n.maxEnd = n.end
	for _, child := range [...]*span{n.left, n.right} {
		if child != nil && child.maxEnd.compare(n.maxEnd) > 0 {
			n.maxEnd = child.maxEnd
		}
	}
	return n
}

// split parts a tree into the nodes before the range and the others.
func (n *span) split(start string, end bound) (left, right *span) {
	switch {
	case n == nil:
		return nil, nil
	case n.compare(start, end) > 0:
		n.right, right = n.right.split(start, end)
		return n.update(), right
	default:
		left, n.left = n.left.split(start, end)
		return left, n.update()
	}
}

// merge joins two trees; all of left is before all of right.
func merge(left, right *span) *span {
	switch {
	case left == nil:
		return right
	case right == nil:
		return left
	case left.priority > right.priority:
		left.right = merge(left.right, right)
		return left.update()
	default:
		right.left = merge(left, right.left)
		return right.update()
	}
}

// without returns the tree less the node of that range.
func (n *span) without(start string, end bound) *span {
	switch c := n.compare(start, end); {
	case c == 0:
		return merge(n.left, n.right)
	case c < 0:
		n.left = n.left.without(start, end)
	default:
		n.right = n.right.without(start, end)
	}
	return n.update()
}
