package state

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// load makes a machine of what another dumps.
func load(t *testing.T, c Config, d Changes) *Machine {
	t.Helper()
	l := NewLoader(c)
	for _, v := range d.Versions {
		require.NoError(t, l.Version(v))
	}
	for _, info := range d.Leases {
		require.NoError(t, l.Lease(info))
	}
	for _, member := range d.Members {
		require.NoError(t, l.Member(member))
	}
	m, err := l.Finish(d.Index, d.Term, d.Revision, d.Compact)
	require.NoError(t, err)
	require.NoError(t, m.Check())
	return m
}

// A loaded machine goes on exactly as the one that was dumped, and has nothing to tell the checkpoint yet.
func TestLoad(t *testing.T) {
	f := newFixture(t)
	f.m = New(Config{Members: []Member{{ID: 1, Name: "one"}}})
	f.grant(1, 2)
	f.put("a=1", "a=2", "b=1", "c=1")
	f.delete("b", "c")
	f.putLease("l", 1)
	f.compact(4)
	loaded := load(t, Config{}, f.m.Dump())
	changes := loaded.TakeChanges()
	require.True(t, changes.Empty())
	require.Empty(t, loaded.TakeLeaseEvents())
	require.EqualValues(t, 4, loaded.History().First())
	require.Equal(t, f.m.Digest(), loaded.Digest())

	g := &fixture{T: t, m: loaded, index: f.index}
	require.Equal(t, "b=1@4.0 c=1@5.0 -b@6.0/1 -c@7.0/1 l=@8.0", g.events(0))
	for _, f := range []*fixture{f, g} {
		f.put("b=2", "a=3")
		do[*pb.LeaseRevokeResponse](f, KindLeaseRevoke, &pb.LeaseRevokeRequest{ID: 1})
		f.compact(9)
		f.swept()
		for rev := int64(9); rev <= 11; rev++ {
			f.all(rev)
		}
	}
	require.Equal(t, f.m.Digest(), g.m.Digest())
	require.Equal(t, f.m.Dump(), g.m.Dump())
	require.Equal(t, f.m.Size(), g.m.Size())
}

// With an archive, what does not fit into the window stays out of memory.
func TestLoadWithArchive(t *testing.T) {
	a := newMemory()
	f := newFixture(t)
	for range 50 {
		f.put("a=1", "b=1")
	}
	d := f.m.Dump()
	a.save(d)
	g := &fixture{T: t, m: load(t, Config{HistoryBytes: 1000, Archive: a}, d), index: f.index}
	require.LessOrEqual(t, g.m.window.bytes, 1000)
	require.Greater(t, g.m.History().First(), int64(90))
	for rev := int64(1); rev <= 101; rev++ {
		require.Equal(t, f.all(rev), g.all(rev))
	}
	g.put("a=2")
	require.Equal(t, g.m.Revision()-1, g.m.window.archived, "what is new is not archived")
}

func TestLoadRefuses(t *testing.T) {
	good := Version{Key: "a", Create: 2, Mod: 2, Count: 1}
	version := func(change func(v *Version)) func(l *Loader) error {
		v := good
		change(&v)
		return func(l *Loader) error { return l.Version(&v) }
	}
	finish := func(revision, compact int64) func(l *Loader) error {
		return func(l *Loader) error {
			if err := l.Version(&Version{Key: "z", Create: 5, Mod: 5, Count: 1}); err != nil {
				return err
			}
			_, err := l.Finish(9, 9, revision, compact)
			return err
		}
	}
	for name, c := range map[string]struct {
		load func(l *Loader) error
		ok   bool
	}{
		"a version":                     {version(func(v *Version) {}), true},
		"a tombstone":                   {version(func(v *Version) { *v = Version{Key: "b", Mod: 2, Deleted: true} }), true},
		"revision zero":                 {version(func(v *Version) { v.Mod = 0 }), false},
		"created after it was modified": {version(func(v *Version) { v.Create = 3 }), false},
		"never created":                 {version(func(v *Version) { v.Create = 0 }), false},
		"version zero":                  {version(func(v *Version) { v.Count = 0 }), false},
		"a negative sub":                {version(func(v *Version) { v.Sub = -1 }), false},
		"a sub out of bounds":           {version(func(v *Version) { v.Sub = 1 << 31 }), false},
		"a tombstone with a value":      {version(func(v *Version) { *v = Version{Key: "b", Mod: 2, Deleted: true, Value: []byte("v")} }), false},
		"a tombstone with a lease":      {version(func(v *Version) { *v = Version{Key: "b", Mod: 2, Deleted: true, Lease: 1} }), false},
		"a tombstone that was created":  {version(func(v *Version) { v.Deleted = true }), false},
		"out of order": {func(l *Loader) error {
			if err := l.Version(&Version{Key: "b", Create: 3, Mod: 3, Count: 1}); err != nil {
				return err
			}
			return l.Version(&good)
		}, false},
		"the same revision twice": {func(l *Loader) error {
			if err := l.Version(&good); err != nil {
				return err
			}
			return l.Version(&good)
		}, false},
		"a lease":                       {func(l *Loader) error { return l.Lease(LeaseInfo{ID: 1, TTL: 1}) }, true},
		"a lease without id":            {func(l *Loader) error { return l.Lease(LeaseInfo{TTL: 1}) }, false},
		"a lease without TTL":           {func(l *Loader) error { return l.Lease(LeaseInfo{ID: 1}) }, false},
		"a lease for ever":              {func(l *Loader) error { return l.Lease(LeaseInfo{ID: 1, TTL: MaxLeaseTTL + 1}) }, false},
		"a lease twice":                 {func(l *Loader) error { _ = l.Lease(LeaseInfo{ID: 1, TTL: 1}); return l.Lease(LeaseInfo{ID: 1, TTL: 1}) }, false},
		"a member without id":           {func(l *Loader) error { return l.Member(Member{Name: "x"}) }, false},
		"a revision above the newest":   {finish(7, -1), true},
		"compacted at the revision":     {finish(5, 5), true},
		"a revision below the newest":   {finish(4, -1), false},
		"compacted above the revision":  {finish(5, 6), false},
		"compacted below what there is": {finish(5, -2), false},
		"attached to a lease not granted": {func(l *Loader) error {
			if err := l.Version(&Version{Key: "a", Create: 2, Mod: 2, Count: 1, Lease: 7}); err != nil {
				return err
			}
			_, err := l.Finish(1, 1, 2, -1)
			return err
		}, false},
	} {
		err := c.load(NewLoader(Config{}))
		if c.ok {
			require.NoError(t, err, name)
		} else {
			require.ErrorIs(t, err, errLoad, name)
		}
	}
}

// A checkpoint of etcd's may have been cut in the middle of a compaction, which removes revisions in order whatever key
// they are of: two tombstones of a key can then follow each other, and a write its predecessor's predecessor.
func TestLoadHalfCompacted(t *testing.T) {
	l := NewLoader(Config{})
	for _, v := range []Version{
		{Key: "a", Mod: 3, Deleted: true},
		{Key: "a", Mod: 5, Deleted: true},
		{Key: "b", Create: 2, Mod: 6, Count: 3, Value: []byte("3")},
		{Key: "a", Create: 9, Mod: 9, Count: 1},
		{Key: "b", Create: 2, Mod: 9, Count: 5, Sub: 1, Value: []byte("5")},
		{Key: "a", Create: 9, Mod: 10, Count: 2},
	} {
		require.NoError(t, l.Version(&v))
	}
	m, err := l.Finish(20, 3, 12, 9)
	require.NoError(t, err)
	require.NoError(t, m.Check())
	f := &fixture{T: t, m: m, index: 20}
	require.Equal(t, "a=@9.0 b=5@9.1 a=@10.0/", f.events(0), "the Prev of a compacted time is not known")
	before := m.Digest()
	require.Equal(t, []Revision{{3, 0}, {5, 0}, {6, 0}}, f.swept())
	require.Equal(t, before, m.Digest())
	require.Equal(t, "a=(9.9.1) b=5(2.9.5)", f.all(9))
	f.put("c=1")
	require.Equal(t, "a=(9.10.2) b=5(2.9.5) c=1(13.13.1)", f.all(0))
}
