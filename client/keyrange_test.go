package client

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKeyRangeInNamespace(t *testing.T) {
	for _, c := range []struct {
		name string
		keys keyRange
		ns   string
		want keyRange
	}{
		{"key", keyRange{"a", ""}, "", keyRange{"a", ""}},
		{"key in namespace", keyRange{"a", ""}, "n/", keyRange{"n/a", ""}},
		{"prefix", prefixRange("a/"), "", keyRange{"a/", "a0"}},
		{"prefix in namespace", prefixRange("a/"), "n/", keyRange{"n/a/", "n/a0"}},
		{"prefix that ends in 0xff", prefixRange("a\xff"), "", keyRange{"a\xff", "b"}},
		{"prefix of 0xff only", prefixRange("\xff"), "", keyRange{"\xff", noEnd}},
		{"the same in namespace", prefixRange("\xff"), "n/", keyRange{"n/\xff", "n0"}},
		{"everything", prefixRange(""), "", keyRange{"\x00", noEnd}},
		{"everything of namespace", prefixRange(""), "n/", keyRange{"n/", "n0"}},
		{"everything of a namespace without end", prefixRange(""), "\xff", keyRange{"\xff", noEnd}},
		{"from a key", keyRange{"b", noEnd}, "n/", keyRange{"n/b", "n0"}},
		{"to a key", keyRange{"", "b"}, "", keyRange{"\x00", "b"}},
		{"to a key in namespace", keyRange{"", "b"}, "n/", keyRange{"n/", "n/b"}},
	} {
		require.Equal(t, c.want, c.keys.in(c.ns), c.name)
	}
}

func TestKeyRangeHolds(t *testing.T) {
	for _, c := range []struct {
		keys keyRange
		key  string
		want bool
	}{
		{keyRange{"a", ""}, "a", true},
		{keyRange{"a", ""}, "a\x00", false},
		{keyRange{"a", "c"}, "a", true},
		{keyRange{"a", "c"}, "bzz", true},
		{keyRange{"a", "c"}, "c", false},
		{keyRange{"a", "c"}, "A", false},
		{keyRange{"a", noEnd}, "zzz", true},
		{keyRange{"a", noEnd}, "A", false},
		{keyRange{"a", afterKey("a")}, "a", true},
		{keyRange{"a", afterKey("a")}, "a\x00", false},
	} {
		require.Equal(t, c.want, c.keys.holds(c.key), "%+v %q", c.keys, c.key)
	}
}
