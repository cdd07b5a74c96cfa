package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
)

var restored = ImportConfig{
	Meta:    Meta{Index: 1, Term: 1, ClusterID: 0xdead, MemberID: 0x99, ConfState: &raftpb.ConfState{Voters: []uint64{0x99}}},
	Members: []state.Member{{ID: 0x99, Name: "new", PeerURLs: []string{"http://127.0.0.1:9"}}},
}

// hashed is what a server sends as a snapshot.
func hashed(db []byte) []byte {
	sum := sha256.Sum256(db)
	return append(bytes.Clone(db), sum[:]...)
}

// importOf restores a file and returns the new checkpoint, open, and its machine.
func importOf(t testing.TB, path string, needHash bool, c ImportConfig) (*Store, *state.Machine, Imported, About) {
	t.Helper()
	src, err := OpenSource(path, needHash)
	require.NoError(t, err)
	to := filepath.Join(t.TempDir(), "db")
	done, err := src.Import(to, c)
	require.NoError(t, err)
	about := src.About()
	require.NoError(t, src.Close())
	s := open(t, to)
	m := reload(t, s, 0)
	require.NoError(t, m.Check())
	require.Equal(t, done.Revision, m.Revision())
	require.Equal(t, done.Compact, m.CompactRevision())
	require.Equal(t, c.Meta, s.Meta())
	return s, m, done, about
}

// edited is data after fn.
func edited(t testing.TB, data []byte, o *bolt.Options, fn func(tx *bolt.Tx) error) []byte {
	t.Helper()
	path := image(t, data)
	db, err := bolt.Open(path, 0o600, o)
	require.NoError(t, err)
	require.NoError(t, db.Update(fn))
	require.NoError(t, db.Close())
	out, err := os.ReadFile(path)
	require.NoError(t, err)
	return out
}

// A file of ours becomes that of another cluster: the same keys with all their versions, the same leases.
func TestImportKeepsVersionsAndLeases(t *testing.T) {
	good, _ := sample(t)
	before := open(t, image(t, good))
	old := reload(t, before, 0)
	s, m, done, about := importOf(t, image(t, hashed(good)), true, restored)

	want, got := rows(t, before), rows(t, s)
	require.NotEmpty(t, want["key"])
	require.Equal(t, want["key"], got["key"])
	require.Equal(t, old.Revision(), done.Revision)
	require.Equal(t, old.CompactRevision(), done.Compact)
	require.Positive(t, done.Compact, "the sample was never compacted")
	require.Equal(t, restored.Members, m.Members())
	leases := old.Leases()
	require.NotEmpty(t, leases)
	for i := range leases {
		require.Equal(t, old.LeaseKeys(leases[i].ID), m.LeaseKeys(leases[i].ID))
		leases[i].Index = 0 // the entry that granted it is in no log of the new cluster
	}
	require.Equal(t, leases, m.Leases())

	require.Equal(t, OriginLatchkey, about.Origin)
	require.Equal(t, m.Size().Keys, about.Keys)
	require.Equal(t, []uint64{testCluster, 1}, []uint64{about.ClusterID, about.MemberID})
	_, err := OpenSource(s.path, false)
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, s.Close())
	again, err := OpenSource(s.path, false)
	require.NoError(t, err)
	require.Equal(t, about.Digest, again.About().Digest, "what is kept is the same")
	require.NotEqual(t, about.Hash, again.About().Hash, "the members are not")
	require.NoError(t, again.Close())
}

// A bump leaves every key as it is and moves the revision on; what is superseded goes with the first sweep.
func TestImportBumps(t *testing.T) {
	good, _ := sample(t)
	old := reload(t, open(t, image(t, good)), 0)
	c := restored
	c.Bump = 1_000_000_000
	s, m, done, _ := importOf(t, image(t, hashed(good)), true, c)
	require.Equal(t, old.Revision()+c.Bump, done.Revision)
	require.Equal(t, done.Revision, done.Compact)
	require.Equal(t, old.Size().Keys, m.Size().Keys)
	for m.Sweep(100) {
	}
	require.Zero(t, m.Size().History)
	m.Apply(2, 2, nil)
	require.NoError(t, s.Save(m.TakeChanges(), nil))
	require.Len(t, rows(t, s)["key"], m.Size().Keys)
	_, err := (&Source{about: About{Version: "3.7.0", Revision: 1}}).Import("/nowhere", ImportConfig{Bump: -1})
	require.Error(t, err)
}

// Of the alarms only those of space that a member watches itself are left behind.
func TestImportKeepsAlarms(t *testing.T) {
	good, _ := sample(t)
	alarms := map[state.Alarm][]byte{
		{Member: 1, Type: pb.AlarmType_NOSPACE}:     raisedMark,
		{Member: 2, Type: pb.AlarmType_NOSPACE}:     nil,
		{Member: 0xabc, Type: pb.AlarmType_CORRUPT}: raisedMark,
	}
	data := asEtcd(t, good, func(tx *bolt.Tx) error {
		for a, mark := range alarms {
			require.NoError(t, tx.Bucket(alarmBucket).Put(alarmKey(a), mark))
		}
		return nil
	})
	s, _, _, _ := importOf(t, image(t, data), false, restored)
	want := map[string]string{
		string(alarmKey(state.Alarm{Member: 2, Type: pb.AlarmType_NOSPACE})):     "",
		string(alarmKey(state.Alarm{Member: 0xabc, Type: pb.AlarmType_CORRUPT})): string(raisedMark),
	}
	require.Equal(t, want, rows(t, s)["alarm"])
}

// asEtcd makes a file of ours one of etcd: no bucket of ours, the rows that we do not have, a stored freelist.
func asEtcd(t testing.TB, good []byte, fn func(tx *bolt.Tx) error) []byte {
	t.Helper()
	return edited(t, good, &bolt.Options{}, func(tx *bolt.Tx) error {
		if err := tx.DeleteBucket(ownBucket); err != nil {
			return err
		}
		return fn(tx)
	})
}

func TestImportOfEtcd(t *testing.T) {
	good, _ := sample(t)
	var last state.Revision
	kept := map[string]map[string]string{
		"authUsers": {"root": "\x0a\x04root"},
		"authRoles": {"admin": "\x0a\x05admin"},
		"auth":      {"authRevision": "\x00\x00\x00\x00\x00\x00\x00\x07"},
		"alarm":     {"\x08\x05\x10\x01": ""},
	}
	data := asEtcd(t, good, func(tx *bolt.Tx) error {
		k, _ := tx.Bucket(keyBucket).Cursor().Last()
		last, _, _ = parseRevision(k)
		v := state.Version{Key: "stray", Value: []byte("v"), Create: last.Main + 1, Mod: last.Main + 1, Count: 1, Lease: 0x5757}
		old := v
		old.Key = "old"
		old.Sub = 1
		for name, rows := range kept {
			for key, row := range rows {
				require.NoError(t, tx.Bucket([]byte(name)).Put([]byte(key), []byte(row)))
			}
		}
		require.NoError(t, tx.Bucket(metaBucket).Put(storageVersionKey, []byte("3.6.0")))
		require.NoError(t, tx.Bucket([]byte("members_removed")).Put([]byte("abc"), []byte("removed")))
		require.NoError(t, tx.Bucket(leaseBucket).Put(leaseKey(77), []byte{0x08, 77, 0x10, 60, 0x18, 13})) // RemainingTTL
		require.NoError(t, tx.Bucket(leaseBucket).Put(leaseKey(78), []byte{0x08, 78}))                     // TTL 0
		require.NoError(t, tx.Bucket(keyBucket).Put(appendRevision(nil, v.Revision(), false), appendVersion(nil, &v)))
		require.NoError(t, tx.Bucket(keyBucket).Put(appendRevision(nil, old.Revision(), false), appendVersion(nil, &old)))
		old.Mod, old.Count, old.Lease = last.Main+2, 2, 0
		require.NoError(t, tx.Bucket(keyBucket).Put(appendRevision(nil, old.Revision(), false), appendVersion(nil, &old)))
		// What etcdutl leaves behind a bumped revision.
		bump := appendRevision(nil, state.Revision{Main: last.Main + 1000}, false)
		return tx.Bucket(keyBucket).Put(bump, nil)
	})
	s, m, done, about := importOf(t, image(t, data), false, restored)
	require.Equal(t, OriginEtcd, about.Origin)
	require.Equal(t, "3.6.0", about.Version)
	require.Equal(t, last.Main+1000, m.Revision())
	require.Equal(t, 1, done.Detached)
	require.Zero(t, m.View().Get("stray").Lease)
	require.Equal(t, "v", string(m.View().Get("stray").Value))
	require.Equal(t, int64(2), m.View().Get("old").Count)
	lease, ok := m.Lease(77)
	require.True(t, ok)
	require.Equal(t, int64(60), lease.TTL)
	lease, ok = m.Lease(78)
	require.True(t, ok)
	require.Positive(t, lease.TTL)
	got := rows(t, s)
	for name, rows := range kept {
		require.Equal(t, rows, got[name])
	}
	require.Empty(t, got["members_removed"])
	require.Equal(t, []string{"99"}, keysOf(got["members"]))
	require.Equal(t, "3.7.0", got["meta"]["storageVersion"])
}

func keysOf(m map[string]string) (keys []string) {
	for k := range maps.Keys(m) {
		keys = append(keys, k)
	}
	return keys
}

// etcd carries our bucket along, stale. It is taken for stale only when etcd has applied something.
func TestImportAfterEtcdRanOnOurFile(t *testing.T) {
	good, _ := sample(t)
	grown := func(index uint64) []byte {
		return edited(t, good, options(), func(tx *bolt.Tx) error {
			v := state.Version{Key: "z", Create: 1 << 20, Mod: 1 << 20, Count: 1}
			require.NoError(t, tx.Bucket(keyBucket).Put(appendRevision(nil, v.Revision(), false), appendVersion(nil, &v)))
			if index > 0 {
				return tx.Bucket(metaBucket).Put(indexKey, leaseKey(int64(index)))
			}
			return nil
		})
	}
	_, m, _, about := importOf(t, image(t, grown(3)), false, restored)
	require.Equal(t, OriginEtcd, about.Origin)
	require.Equal(t, int64(1<<20), m.Revision())
	_, err := OpenSource(image(t, grown(0)), false)
	require.ErrorIs(t, err, ErrDamaged)
	for _, key := range [][]byte{indexKey, termKey} { // alone, they make nothing stale
		_, err = OpenSource(image(t, edited(t, good, options(), func(tx *bolt.Tx) error {
			return tx.Bucket(metaBucket).Put(key, leaseKey(3))
		})), false)
		require.ErrorIs(t, err, ErrDamaged)
	}
}

func TestSourceRefuses(t *testing.T) {
	good, _ := sample(t)
	whole := hashed(good)
	flipped := bytes.Clone(whole)
	flipped[len(whole)-1] ^= 1
	set := func(key, v []byte) func(tx *bolt.Tx) error {
		return func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(key, v) }
	}
	put := func(bucket []byte, k, v string) func(tx *bolt.Tx) error {
		return func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put([]byte(k), []byte(v)) }
	}
	for _, c := range []struct {
		name string
		data []byte
		hash bool
		want error
	}{
		{"no hash", good, true, ErrNoHash},
		{"cut", whole[:len(whole)-100], true, ErrNoHash},
		{"cut by a page, with a hash of its own", hashed(good[:len(good)-4096]), true, ErrDamaged},
		{"another hash", flipped, true, ErrDamaged},
		{"empty", nil, false, ErrForeign},
		{"only a hash", hashed(nil), true, ErrForeign},
		{"text", bytes.Repeat([]byte("hello\n"), 5000), false, ErrForeign},
		{"etcd 3.5", asEtcd(t, good, func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Delete(storageVersionKey) }), false, ErrVersion},
		{"etcd 3.8", asEtcd(t, good, set(storageVersionKey, []byte("3.8.0"))), false, ErrVersion},
		{"no keys", asEtcd(t, good, func(tx *bolt.Tx) error { return tx.DeleteBucket(keyBucket) }), false, ErrForeign},
		{"odd revision", asEtcd(t, good, put(keyBucket, "x", "")), false, ErrDamaged},
		{"odd version", asEtcd(t, good, put(keyBucket, rawRevision("0fffffff00000000", "0000000000000000", ""), "\x0a\x01a")), false, ErrDamaged},
		{"odd lease", asEtcd(t, good, put(leaseBucket, "12345678", "\x08\x01")), false, ErrDamaged},
		{"odd compaction", asEtcd(t, good, set(scheduledKey, []byte("x"))), false, ErrDamaged},
		{"odd index", asEtcd(t, good, set(indexKey, []byte("x"))), false, ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, err := OpenSource(image(t, c.data), c.hash)
			if err == nil {
				_, err = src.Import(filepath.Join(t.TempDir(), "db"), restored)
				require.NoError(t, src.Close())
			}
			require.ErrorIs(t, err, c.want)
			t.Log(err)
		})
	}
	_, err := OpenSource(t.TempDir(), false)
	require.Error(t, err)
}

// FuzzSource changes a file of ours, or of etcd, in two places and swaps two pages. With a hash every change is found.
// Without one there is an error, or a file of ours is as it was; one of etcd has no checksum of rows, and only must not
// panic. Memory is bounded by the file's size.
func FuzzSource(f *testing.F) {
	f.Add(uint32(0), []byte{}, uint32(0), []byte{}, uint8(0), uint8(0), false)
	f.Add(uint32(16), []byte{0xff}, uint32(4096+16), []byte{0xff}, uint8(0), uint8(1), false)
	f.Add(uint32(16), []byte("0"), uint32(4200), []byte("0"), uint8(0), uint8(0), false) // an older transaction shows
	f.Add(uint32(8192), []byte{}, uint32(0), []byte{}, uint8(3), uint8(4), true)
	f.Add(uint32(3*4096+8), []byte{1, 2, 3}, uint32(5*4096+100), []byte{0}, uint8(2), uint8(2), true)
	var own, etcd []byte
	var want uint64
	f.Fuzz(func(t *testing.T, at1 uint32, data1 []byte, at2 uint32, data2 []byte, page1, page2 uint8, isEtcd bool) {
		if own == nil {
			own, _ = sample(t)
			etcd = asEtcd(t, own, func(*bolt.Tx) error { return nil })
			src, err := OpenSource(image(t, own), false)
			require.NoError(t, err)
			want = src.About().Digest
			require.NoError(t, src.Close())
		}
		good := own
		if isEtcd {
			good = etcd
		}
		data := bytes.Clone(good)
		copy(data[int(at1)%len(data):], data1)
		copy(data[int(at2)%len(data):], data2)
		pages := len(data) / 4096
		a, b := data[int(page1)%pages*4096:][:4096], data[int(page2)%pages*4096:][:4096]
		spare := bytes.Clone(a)
		copy(a, b)
		copy(b, spare)
		changed := !bytes.Equal(data, good)

		sealed := append(bytes.Clone(data), hashed(good)[len(good):]...)
		if _, err := OpenSource(image(t, sealed), true); changed {
			require.ErrorIs(t, err, ErrDamaged)
		}
		path := image(t, data)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		src, err := OpenSource(path, false)
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(readAheadBytes+1<<20+16*len(data)))
		if err != nil {
			return
		}
		defer src.Close()
		if !isEtcd && src.About().Origin == OriginLatchkey {
			require.Equal(t, want, src.About().Digest)
		}
		to := filepath.Join(t.TempDir(), "db")
		if _, err := src.Import(to, restored); err != nil {
			return
		}
		s, err := Open(to)
		require.NoError(t, err)
		_, _ = s.Load(state.Config{})
		require.NoError(t, s.Close())
	})
}

// Random damage, a quick stand-in for the fuzzer in every run of the tests.
func TestSourceSurvivesDamage(t *testing.T) {
	good, _ := sample(t)
	rnd := rand.New(rand.NewPCG(3, 3))
	accepted := 0
	for range 300 {
		data := bytes.Clone(good)
		data[rnd.IntN(len(data))] ^= 1 << rnd.IntN(8)
		src, err := OpenSource(image(t, data), false)
		if err != nil {
			continue
		}
		accepted++
		if src.About().Origin != OriginLatchkey { // the flip is in the name of our bucket: etcd's files have none
			require.Equal(t, OriginEtcd, src.About().Origin)
		}
		require.NoError(t, src.Close())
	}
	t.Logf("%d of 300 flips in spare room", accepted)
	require.Less(t, accepted, 250)
}
