package cache

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// content reads a tree, and checks that it is one: keys in order, ranks a heap.
func content(t *testing.T, tr tree[int]) map[string]int {
	t.Helper()
	out := make(map[string]int)
	last := ""
	for key, v := range tr.all {
		require.Less(t, last, key)
		last = key
		out[key] = v
		got, ok := tr.get(key)
		require.True(t, ok)
		require.Equal(t, v, got)
	}
	var heap func(n *node[int])
	heap = func(n *node[int]) {
		for _, child := range []*node[int]{n.left, n.right} {
			if child != nil {
				require.LessOrEqual(t, child.rank, n.rank)
				heap(child)
			}
		}
	}
	if !tr.empty() {
		heap(tr.root)
	}
	return out
}

func depth[V any](n *node[V]) int {
	if n == nil {
		return 0
	}
	return 1 + max(depth(n.left), depth(n.right))
}

// Every version of a tree stays what it was when it was made, and two versions
// differ in what a comparison of their contents says.
func TestTreeVersions(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	type version struct {
		tree    tree[int]
		content map[string]int
	}
	now := map[string]int{}
	versions := []version{{content: map[string]int{}}}
	for i := range 600 {
		tr := versions[i].tree
		key := fmt.Sprint("k", random.IntN(60))
		if random.IntN(3) > 0 {
			tr = tr.with(key, i)
			now[key] = i
		} else {
			tr = tr.without(key)
			delete(now, key)
		}
		versions = append(versions, version{tr, maps.Clone(now)})
	}
	for _, v := range versions {
		require.Equal(t, len(v.content), len(content(t, v.tree)))
		for key, want := range v.content {
			got, ok := v.tree.get(key)
			require.True(t, ok)
			require.Equal(t, want, got)
		}
	}
	compared := 0
	for range 300 {
		a, b := versions[random.IntN(len(versions))], versions[random.IntN(len(versions))]
		var keys, want []string
		differ(a.tree.root, b.tree.root, func(x, y *node[int]) {
			switch {
			case x == nil:
				require.NotContains(t, a.content, y.key)
				keys = append(keys, y.key)
			case y == nil:
				require.NotContains(t, b.content, x.key)
				keys = append(keys, x.key)
			case x.value != y.value: // nodes of one value may differ, by what is below them
				require.Equal(t, x.key, y.key)
				keys = append(keys, x.key)
			}
		})
		all := maps.Clone(a.content)
		maps.Copy(all, b.content)
		for _, key := range slices.Sorted(maps.Keys(all)) {
			x, inA := a.content[key]
			y, inB := b.content[key]
			if x != y || inA != inB {
				want = append(want, key)
			}
		}
		require.Equal(t, want, keys)
		compared += len(keys)
	}
	require.Greater(t, compared, 1000)
}

// A tree of sorted keys, made at once or one by one in the worst order, has
// logarithmic depth.
func TestTreeDepth(t *testing.T) {
	const n = 20_000
	var pairs []pair[int]
	var one tree[int]
	for i := range n {
		key := fmt.Sprintf("%08d", i)
		pairs = append(pairs, pair[int]{key, i})
		one = one.with(key, i)
	}
	all := treeOf(pairs)
	require.Len(t, content(t, all), n)
	bound := int(4 * math.Log2(n)) // more with a chance of less than one in a million
	require.Less(t, depth(all.root), bound)
	require.Less(t, depth(one.root), bound)
	require.True(t, treeOf[int](nil).empty())
}

// What two versions share is not visited: the cost is that of what changed.
func TestTreeDifferSkipsWhatIsShared(t *testing.T) {
	var pairs []pair[int]
	for i := range 50_000 {
		pairs = append(pairs, pair[int]{fmt.Sprintf("%08d", i), i})
	}
	old := treeOf(pairs)
	changed := old.with("00000007", -1).without("00040000").with("x", 1)
	visited := 0
	differ(old.root, changed.root, func(a, b *node[int]) { visited++ })
	require.GreaterOrEqual(t, visited, 3)
	require.Less(t, visited, 300, "the paths to three keys")
}
