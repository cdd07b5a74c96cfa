package watch

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The index finds the groups that a scan over all of them finds, through any sequence of additions and removals.
func TestIndexIsAScan(t *testing.T) {
	text := rapid.StringOfN(rapid.SampledFrom([]rune("ab\x00")), 0, 4, -1)
	suffix := rapid.SampledFrom([]string{"", "", "", "\xff", "\xff\xff", "\xfe", "\ufffd"})
	rapid.Check(t, func(t *rapid.T) {
		var x index
		var groups []*group
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			if len(groups) > 0 && rapid.IntRange(0, 2).Draw(t, "remove") == 0 {
				i := rapid.IntRange(0, len(groups)-1).Draw(t, "which")
				x.remove(groups[i])
				groups = slices.Delete(groups, i, i+1)
			} else {
				g := &group{rng: Range{Start: text.Draw(t, "start") + suffix.Draw(t, "suffix")}}
				switch rapid.IntRange(0, 3).Draw(t, "kind") {
				case 0:
					g.rng.End = text.Draw(t, "end") + suffix.Draw(t, "end's suffix")
				case 1:
					g.rng.End = fromKey
				case 2:
					g.rng.End = prefixEnd(g.rng.Start)
				}
				if g.rng.empty() {
					continue
				}
				x.add(g)
				groups = append(groups, g)
			}
			require.NoError(t, x.check())
			key := text.Filter(func(k string) bool { return k != "" }).Draw(t, "key") + suffix.Draw(t, "key's suffix")
			var want []*group
			for _, g := range groups {
				if g.rng.holds(key) {
					want = append(want, g)
				}
			}
			require.ElementsMatch(t, want, x.match(key, nil), "groups of %q", key)
		}
		for _, g := range groups {
			x.remove(g)
		}
		require.NoError(t, x.check())
		require.Empty(t, x.exact)
		require.Empty(t, x.prefixes)
		require.Empty(t, x.lengths)
		require.Nil(t, x.spans.root)
	})
}

// prefixEnd is the end that clients compute for a prefix.
func prefixEnd(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return fromKey
}

// A range is taken for a prefix only if it is one to the byte: keys need not be text.
func TestRangeAsPrefix(t *testing.T) {
	for _, test := range []struct {
		rng    Range
		prefix bool
	}{
		{Range{"a", "b"}, true},
		{Range{"a/", "a0"}, true},
		{Range{"a\xff", "b"}, true},
		{Range{"a\xff\xff", "b"}, true},
		{Range{fromKey, fromKey}, true},
		{Range{"", fromKey}, true},
		{Range{"a", ""}, false},
		{Range{"a\xfe", "b"}, false},
		{Range{"a\ufffd", "b"}, false},
		{Range{"a\xfe\xff", "b"}, false},
		{Range{"\xff", fromKey}, false},
		{Range{"\xff\xff", "\xff\xff\xff"}, false},
		{Range{"a", "c"}, false},
		{Range{"a", fromKey}, false},
		{Range{"ab", "b"}, false},
	} {
		prefix, ok := test.rng.prefix()
		require.Equal(t, test.prefix, ok, "%q", test.rng)
		if ok && test.rng.End != fromKey {
			require.Equal(t, test.rng.Start, prefix)
		}
	}
}

// Prefixes of so many lengths that a look-up for each would be dear are served from the tree.
func TestIndexBoundsPrefixLengths(t *testing.T) {
	var x index
	var groups []*group
	key := ""
	for i := range 3 * prefixLengthsMax {
		key += string(rune('a' + i%26))
		g := &group{rng: Range{Start: key, End: prefixEnd(key)}}
		x.add(g)
		groups = append(groups, g)
	}
	require.Len(t, x.lengths, prefixLengthsMax)
	require.ElementsMatch(t, groups, x.match(key, nil))
	require.ElementsMatch(t, groups[:20], x.match(key[:20], nil))
	x.remove(groups[0])
	require.NoError(t, x.check())
	require.ElementsMatch(t, groups[1:], x.match(key, nil))
}

func BenchmarkIndexMatch(b *testing.B) {
	for _, bench := range []struct {
		name string
		add  func(i int) Range
	}{
		{"10000 other keys", func(i int) Range { return Range{Start: fmt.Sprintf("other/%d", i)} }},
		{"10000 other prefixes", func(i int) Range {
			p := fmt.Sprintf("other/%05d/", i)
			return Range{Start: p, End: prefixEnd(p)}
		}},
		{"10000 other spans", func(i int) Range {
			return Range{Start: fmt.Sprintf("other/%05d/", i), End: fmt.Sprintf("other/%05d/", i+3)}
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var x index
			for i := range 10_000 {
				x.add(&group{rng: bench.add(i)})
			}
			var matched []*group
			b.ReportAllocs()
			for b.Loop() {
				matched = x.match("other-than-these/00017/x", matched[:0])
			}
			require.Empty(b, matched)
		})
	}
}
