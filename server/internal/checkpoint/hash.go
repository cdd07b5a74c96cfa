package checkpoint

import (
	"bytes"
	"fmt"
	"hash/crc32"

	"github.com/latchkey-go/latchkey/server/internal/state"
	bolt "go.etcd.io/bbolt"
)

// KVHash is etcd's hash of the versions up to a revision.
type KVHash struct {
	Hash              uint32
	Compact, Revision int64 // what was hashed: etcd hashes what can be read since Compact, up to Revision
	Current           int64 // revision of the checkpoint
}

// Kept tells whether a version at or below the compact revision is part of the hash, by its key and revision.
type Kept func(key string, at state.Revision) bool

// HashKV hashes the versions up to rev, or up to the last Save's revision for 0, as etcd does: the name of the bucket,
// and of each row the key and the value. What a compaction left depends on how far the removal has come; so below the
// compact revision kept decides, which open returns for the compact and the upper revision. state.ErrCompacted and
// ErrFutureRevision when rev is not within what the last Save holds.
//
// It reads all rows, in one transaction: what is saved meanwhile makes the file grow.
func (s *Store) HashKV(rev int64, open func(compact, rev int64) (Kept, error)) (h KVHash, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		v, err := readRows(tx)
		if err != nil {
			return err
		}
		h = KVHash{Compact: v.position.compact, Revision: rev, Current: v.position.revision}
		switch {
		case rev == 0:
			h.Revision = h.Current
		case rev > 0 && rev < h.Compact: // one below 0 hashes nothing, as in etcd
			return state.ErrCompacted
		case rev > h.Current:
			return state.ErrFutureRevision
		}
		kept, err := open(h.Compact, h.Revision)
		if err != nil {
			return err
		}
		h.Hash, err = hashRows(tx.Bucket(keyBucket), h, kept)
		return err
	})
	if err != nil {
		return h, fmt.Errorf("hash checkpoint %s: %w", s.path, err)
	}
	return h, nil
}

func hashRows(rows *bolt.Bucket, h KVHash, kept Kept) (uint32, error) {
	sum := crc32.Checksum(keyBucket, castagnoli)
	var version state.Version
	cursor := rows.Cursor()
	for k, row := cursor.First(); k != nil; k, row = cursor.Next() {
		rev, deleted, err := parseRevision(k)
		if err != nil {
			return 0, damaged(err)
		}
		if rev.Main > h.Revision {
			break
		}
		if rev.Main <= h.Compact {
			if deleted {
				continue // gone, or skipped by etcd where it is not
			}
			if err := decodeVersion(&version, k, row); err != nil {
				return 0, damaged(err)
			}
			if !kept(version.Key, rev) {
				continue
			}
		}
		sum = crc32.Update(crc32.Update(sum, castagnoli, k), castagnoli, row)
	}
	return sum, nil
}

// Hash hashes all that the last Save holds and that members have in common, as etcd does for tests: the buckets in
// order, each with its name and its rows, without the rows that say how far this member is. It reads all of the file.
func (s *Store) Hash() (sum uint32, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			if bytes.Equal(name, ownBucket) {
				return nil
			}
			sum = crc32.Update(sum, castagnoli, name)
			return b.ForEach(func(k, v []byte) error {
				if !isProgress(name, k) {
					sum = crc32.Update(crc32.Update(sum, castagnoli, k), castagnoli, v)
				}
				return nil
			})
		})
	})
	if err != nil {
		return 0, fmt.Errorf("hash checkpoint %s: %w", s.path, err)
	}
	return sum, nil
}

// isProgress names the rows that etcd leaves out.
func isProgress(bucket, k []byte) bool {
	return bytes.Equal(bucket, metaBucket) &&
		(bytes.Equal(k, termKey) || bytes.Equal(k, indexKey) || bytes.Equal(k, storageVersionKey))
}
