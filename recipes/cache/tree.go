package cache

import "math/rand/v2"

// tree is a sorted map that does not change: with and without return another
// one, which shares all but a few nodes with it. So a reader needs no lock, and
// two versions are compared by looking at what they do not share. The zero tree
// is empty.
//
// It is a treap: a search tree by key that is a heap by rank. Ranks are drawn
// once for each key, so its depth is logarithmic whatever the keys are.
type tree[V any] struct{ root *node[V] }

// node is immutable once its tree was returned.
type node[V any] struct {
	key         string
	value       V
	rank        uint64
	left, right *node[V]
}

// pair is one key and its value.
type pair[V any] struct {
	key   string
	value V
}

// treeOf makes a tree of pairs in order of their keys, each once.
func treeOf[V any](pairs []pair[V]) tree[V] {
	// The right edge of the tree so far, from the root down.
	var edge []*node[V]
	for _, p := range pairs {
		n := &node[V]{key: p.key, value: p.value, rank: rand.Uint64()}
		for len(edge) > 0 && edge[len(edge)-1].rank < n.rank {
			n.left = edge[len(edge)-1]
			edge = edge[:len(edge)-1]
		}
		if len(edge) > 0 {
			edge[len(edge)-1].right = n
		}
		edge = append(edge, n)
	}
	if len(edge) == 0 {
		return tree[V]{}
	}
	return tree[V]{edge[0]}
}

func (t tree[V]) empty() bool { return t.root == nil }

func (t tree[V]) get(key string) (value V, ok bool) {
	for n := t.root; n != nil; {
		switch {
		case key < n.key:
			n = n.left
		case key > n.key:
			n = n.right
		default:
			return n.value, true
		}
	}
	return value, false
}

// all yields the values in order of their keys until yield returns false.
func (t tree[V]) all(yield func(key string, value V) bool) { t.root.all(yield) }

func (n *node[V]) all(yield func(key string, value V) bool) bool {
	return n == nil || n.left.all(yield) && yield(n.key, n.value) && n.right.all(yield)
}

// with returns the tree in which key has the value.
func (t tree[V]) with(key string, value V) tree[V] {
	if _, ok := t.get(key); ok {
		return tree[V]{t.root.replace(key, value)}
	}
	return tree[V]{t.root.insert(&node[V]{key: key, value: value, rank: rand.Uint64()})}
}

// replace changes the value of a key that is there.
func (n *node[V]) replace(key string, value V) *node[V] {
	out := *n
	switch {
	case key < n.key:
		out.left = n.left.replace(key, value)
	case key > n.key:
		out.right = n.right.replace(key, value)
	default:
		out.value = value
	}
	return &out
}

// insert adds a node, which is the caller's, with a key that is not there.
func (n *node[V]) insert(add *node[V]) *node[V] {
	if n == nil {
		return add
	}
	if add.rank > n.rank {
		add.left, _, add.right = n.split(add.key)
		return add
	}
	out := *n
	if add.key < n.key {
		out.left = n.left.insert(add)
	} else {
		out.right = n.right.insert(add)
	}
	return &out
}

// without returns the tree in which key is missing.
func (t tree[V]) without(key string) tree[V] {
	if _, ok := t.get(key); !ok {
		return t
	}
	return tree[V]{t.root.remove(key)}
}

// remove takes out a key that is there.
func (n *node[V]) remove(key string) *node[V] {
	if key == n.key {
		return join(n.left, n.right)
	}
	out := *n
	if key < n.key {
		out.left = n.left.remove(key)
	} else {
		out.right = n.right.remove(key)
	}
	return &out
}

// join makes one tree of two, where all keys of a are before those of b.
func join[V any](a, b *node[V]) *node[V] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.rank > b.rank:
		out := *a
		out.right = join(a.right, b)
		return &out
	}
	out := *b
	out.left = join(a, b.left)
	return &out
}

// split returns what is before the key, the key's own node, if any, and what is
// behind it.
func (n *node[V]) split(key string) (before, at, behind *node[V]) {
	switch {
	case n == nil:
		return nil, nil, nil
	case key == n.key:
		return n.left, n, n.right
	case key < n.key:
		out := *n
		before, at, out.left = n.left.split(key)
		return before, at, &out
	}
	out := *n
	out.right, at, behind = n.right.split(key)
	return &out, at, behind
}

// differ calls f, in order of the keys, for each key whose nodes in two trees are
// not the same; one of them is nil where the key is missing. What the trees share
// is not looked at.
func differ[V any](a, b *node[V], f func(a, b *node[V])) {
	switch {
	case a == b:
	case b == nil || a != nil && a.rank >= b.rank:
		left, at, right := b.split(a.key)
		differ(a.left, left, f)
		if a != at {
			f(a, at)
		}
		differ(a.right, right, f)
	default:
		left, at, right := a.split(b.key)
		differ(left, b.left, f)
		if b != at {
			f(at, b)
		}
		differ(right, b.right, f)
	}
}
