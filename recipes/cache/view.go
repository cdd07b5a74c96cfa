package cache

import (
	"iter"
	"slices"

	"github.com/latchkey-go/latchkey/client"
)

// View is the content of a cache at one revision. It does not change, so several
// reads of one View agree with each other, whatever happens meanwhile. It is safe
// for concurrent use, and costs nothing to take; who keeps one keeps the memory
// of what has changed since.
type View[T any] struct {
	schema   *schema[T]
	rev      client.Revision
	entries  tree[*entry[T]]
	len      int                     // entries that are not rejected
	rejected int                     // entries that are
	indexes  []tree[tree[*entry[T]]] // as the schema's: by term, then by key
}

// entry is one key of the store. It is immutable.
type entry[T any] struct {
	item  client.Item[T] // of a rejected one, without Value
	err   error          // not nil: the value is no T, and the entry is not for readers
	terms [][]string     // for each index, what the item is found by
}

// Rev returns the revision whose content this is.
func (v *View[T]) Rev() client.Revision { return v.rev }

// Len returns the number of items.
func (v *View[T]) Len() int { return v.len }

// Get returns the item of a key, which is written without the cache's prefix.
func (v *View[T]) Get(key string) (client.Item[T], bool) {
	e, ok := v.entries.get(key)
	if !ok || e.err != nil {
		return client.Item[T]{}, false
	}
	return e.item, true
}

// All yields the items in order of their keys.
func (v *View[T]) All() iter.Seq2[string, client.Item[T]] {
	return func(yield func(string, client.Item[T]) bool) {
		v.entries.all(func(key string, e *entry[T]) bool { return e.err != nil || yield(key, e.item) })
	}
}

// ByIndex yields the items that the index finds by the term, in order of their
// keys. It panics if New was not given an index of that name.
func (v *View[T]) ByIndex(name, term string) iter.Seq[client.Item[T]] {
	at := slices.IndexFunc(v.schema.indexes, func(x index[T]) bool { return x.name == name })
	if at < 0 {
		panic("cache: there is no index " + name)
	}
	found, _ := v.indexes[at].get(term)
	return func(yield func(client.Item[T]) bool) {
		found.all(func(_ string, e *entry[T]) bool { return yield(e.item) })
	}
}

// Rejected yields the keys whose values could not be decoded, in order, each with
// its [*client.DecodeError]. They are not among the items.
func (v *View[T]) Rejected() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if v.rejected == 0 {
			return
		}
		v.entries.all(func(key string, e *entry[T]) bool { return e.err == nil || yield(key, e.err) })
	}
}

// viewOf makes the view of all entries, in order of their keys, at a revision.
func viewOf[T any](s *schema[T], rev client.Revision, entries []*entry[T]) *View[T] {
	v := &View[T]{schema: s, rev: rev, indexes: make([]tree[tree[*entry[T]]], len(s.indexes))}
	pairs := make([]pair[*entry[T]], len(entries))
	found := make([]map[string][]pair[*entry[T]], len(s.indexes))
	for i, e := range entries {
		p := pair[*entry[T]]{e.item.Key, e}
		pairs[i] = p
		v.count(e, 1)
		for x, terms := range e.terms {
			if found[x] == nil {
				found[x] = make(map[string][]pair[*entry[T]])
			}
			for _, term := range terms {
				found[x][term] = append(found[x][term], p)
			}
		}
	}
	v.entries = treeOf(pairs)
	for x, terms := range found {
		v.indexes[x] = treeOf(sortedTrees(terms))
	}
	return v
}

// sortedTrees makes a tree of the entries of each term.
func sortedTrees[V any](terms map[string][]pair[V]) []pair[tree[V]] {
	out := make([]pair[tree[V]], 0, len(terms))
	for term, pairs := range terms {
		out = append(out, pair[tree[V]]{term, treeOf(pairs)})
	}
	slices.SortFunc(out, func(a, b pair[tree[V]]) int {
		if a.key < b.key {
			return -1
		}
		return 1
	})
	return out
}

// clone returns a copy that may be changed by replace.
func (v *View[T]) clone() *View[T] {
	out := *v
	out.indexes = slices.Clone(v.indexes)
	return &out
}

// replace puts e where the key is, or takes the key out when e is nil, and returns
// what was there. Only for a view that nobody else has seen.
func (v *View[T]) replace(key string, e *entry[T]) (old *entry[T]) {
	old, _ = v.entries.get(key)
	if old != nil {
		v.count(old, -1)
		for x, terms := range old.terms {
			for _, term := range terms {
				v.unindex(x, term, key)
			}
		}
	}
	if e == nil {
		v.entries = v.entries.without(key)
		return old
	}
	v.entries = v.entries.with(key, e)
	v.count(e, 1)
	for x, terms := range e.terms {
		for _, term := range terms {
			found, _ := v.indexes[x].get(term)
			v.indexes[x] = v.indexes[x].with(term, found.with(key, e))
		}
	}
	return old
}

func (v *View[T]) unindex(x int, term, key string) {
	found, _ := v.indexes[x].get(term)
	if found = found.without(key); found.empty() {
		v.indexes[x] = v.indexes[x].without(term)
		return
	}
	v.indexes[x] = v.indexes[x].with(term, found)
}

func (v *View[T]) count(e *entry[T], n int) {
	if e.err != nil {
		v.rejected += n
	} else {
		v.len += n
	}
}
