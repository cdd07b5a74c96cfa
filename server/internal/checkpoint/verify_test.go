package checkpoint

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
)

// sample is a checkpoint with enough rows for branch pages, closed, as bytes.
func sample(t *testing.T) (data []byte, digest [32]byte) {
	t.Helper()
	h := newHistory(5)
	s := create(t, 1)
	m := reload(t, s, 0)
	for range 300 {
		h.entry(m)
		if h.IntN(20) == 0 {
			m.Sweep(10)
			require.NoError(t, s.Save(m.TakeChanges(), nil))
		}
	}
	require.NoError(t, s.Save(m.TakeChanges(), nil))
	require.NoError(t, s.Close())
	data, err := os.ReadFile(s.path)
	require.NoError(t, err)
	l, ok := readLayout(data)
	require.True(t, ok)
	return data[:l.size()], m.Digest()
}

// Files that are not a checkpoint, or not ours, or not whole, are refused with one error that says what they are.
func TestOpenRefuses(t *testing.T) {
	good, _ := sample(t)
	size := len(good)
	noise := make([]byte, 1<<16)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	edit := func(fn func(tx *bolt.Tx) error) []byte {
		path := image(t, good)
		db, err := bolt.Open(path, 0o600, options())
		require.NoError(t, err)
		require.NoError(t, db.Update(fn))
		require.NoError(t, db.Close())
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		return data
	}
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"empty", nil, ErrForeign},
		{"one byte", []byte{1}, ErrForeign},
		{"garbage", noise, ErrForeign},
		{"text", bytes.Repeat([]byte("hello\n"), 5000), ErrForeign},
		{"zeros", make([]byte, 1<<16), ErrForeign},
		{"no meta pages", append(make([]byte, 8192), good[8192:]...), ErrForeign},
		{"first page only", good[:4096], ErrDamaged},
		{"half", good[:size/2], ErrDamaged},
		{"one page short", good[:size-4096], ErrDamaged},
		{"one byte short", good[:size-1], ErrDamaged},
		{"zeroed data", append(append([]byte(nil), good[:8192]...), make([]byte, len(good)-8192)...), ErrDamaged},
		{"no bucket of ours", edit(func(tx *bolt.Tx) error { return tx.DeleteBucket(ownBucket) }), ErrForeign},
		{"no key bucket", edit(func(tx *bolt.Tx) error { return tx.DeleteBucket(keyBucket) }), ErrDamaged},
		{"a newer format", edit(func(tx *bolt.Tx) error {
			return tx.Bucket(ownBucket).Put(identityKey, binary.BigEndian.AppendUint64(nil, formatVersion+1))
		}), ErrForeign},
		{"no state", edit(func(tx *bolt.Tx) error { return tx.Bucket(ownBucket).Delete(stateKey) }), ErrDamaged},
		{"bad ConfState", edit(func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(confStateKey, []byte("{")) }), ErrDamaged},
		{"an index of another program", edit(func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(indexKey, leaseKey(1<<40)) }), ErrDamaged},
		{"one row less", edit(func(tx *bolt.Tx) error {
			k, _ := tx.Bucket(keyBucket).Cursor().First()
			return tx.Bucket(keyBucket).Delete(bytes.Clone(k))
		}), ErrDamaged},
		{"one row more", edit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("alarm")).Put([]byte{1}, nil) }), ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := image(t, c.data)
			_, err := Open(path)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, path)
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, len(c.data), len(after), "it is left as it is")
		})
	}
	_, err := Open(t.TempDir())
	require.ErrorIs(t, err, ErrForeign)
}

func TestOpenInUse(t *testing.T) {
	s := create(t, 1)
	_, err := Open(s.path)
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, s.Close())
	open(t, s.path)
}

// One flipped bit, or one page overwritten by another, anywhere behind the meta pages: it is refused, or it did not
// matter and the content is the same. Never another content, and never a panic.
func TestFlippedBits(t *testing.T) {
	good, want := sample(t)
	r := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	// outcome opens a spoilt file: "" when it is refused.
	outcome := func(data []byte) string {
		path := filepath.Join(dir, "db")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		s, err := Open(path)
		if err != nil {
			return ""
		}
		defer s.Close()
		m, err := s.Load(state.Config{})
		require.NoError(t, err)
		digest := m.Digest()
		return string(digest[:])
	}
	const flips, pages, metas = 250, 30, 40
	refused := 0
	check := func(data []byte) {
		switch outcome(data) {
		case "":
			refused++
		case string(want[:]):
		default:
			t.Fatal("another content")
		}
	}
	for range flips {
		data := bytes.Clone(good)
		data[8192+r.IntN(len(good)-8192)] ^= 1 << r.IntN(8)
		check(data)
	}
	for range pages {
		data := bytes.Clone(good)
		page := func() int { return 4096 * (2 + r.IntN(len(good)/4096-2)) }
		to := page()
		copy(data[to:to+4096], good[page():])
		check(data)
	}
	require.Greater(t, refused, flips/4, "most flips matter")
	t.Logf("%d of %d refused", refused, flips+pages)

	// bbolt can not tell a damaged meta page from a torn one: the other one, of the transaction before, counts then.
	contents := make(map[string]int)
	for range metas {
		data := bytes.Clone(good)
		data[r.IntN(2)*4096+r.IntN(80)] ^= 1 << r.IntN(8)
		contents[outcome(data)]++
	}
	require.NotZero(t, contents[string(want[:])])
	require.LessOrEqual(t, len(contents)-min(1, contents[""]), 2, "this transaction or the one before")
}

// No file makes the walk panic, or go on without end.
func FuzzWalk(f *testing.F) {
	f.Add(uint32(8192+8), []byte{1}, uint32(9000), []byte{0xff, 0xff, 0xff})
	var good []byte
	f.Fuzz(func(t *testing.T, at1 uint32, data1 []byte, at2 uint32, data2 []byte) {
		if good == nil {
			good, _ = sample(t)
		}
		data := bytes.Clone(good)
		copy(data[int(at1)%len(data):], data1)
		copy(data[int(at2)%len(data):], data2)
		l, ok := readLayout(data)
		if !ok || l.size() > int64(len(data)) {
			return
		}
		rows := 0
		_, _ = walk(bytes.NewReader(data), l, func(_, k, v []byte) error {
			rows += len(k) + len(v)
			return nil
		})
		require.LessOrEqual(t, rows, len(data))
	})
}
