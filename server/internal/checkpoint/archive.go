package checkpoint

import (
	"bytes"
	"fmt"
	"math"

	"github.com/latchkey-go/latchkey/server/internal/state"
	bolt "go.etcd.io/bbolt"
)

// A Scan reads this much in one transaction, so that a slow reader keeps no pages from being reused.
const (
	scanRowsMax  = 512
	scanBytesMax = 1 << 20
)

var _ state.Archive = (*Store)(nil)

// Version returns the version written at rev as of the last Save, nil when there is none.
func (s *Store) Version(rev state.Revision) (*state.Version, error) {
	if rev.Main < 0 || rev.Sub < 0 {
		return nil, nil
	}
	var found *state.Version
	err := s.view(func(tx *bolt.Tx) error {
		want := appendRevision(nil, rev, false)
		k, row := tx.Bucket(keyBucket).Cursor().Seek(want)
		if !bytes.HasPrefix(k, want) {
			return nil
		}
		found = &state.Version{}
		return damagedRow(decodeVersion(found, k, row))
	})
	if err != nil {
		return nil, fmt.Errorf("read revision %v from checkpoint %s: %w", rev, s.path, err)
	}
	return found, nil
}

// Scan calls fn for the versions with from <= Main <= to in order until it returns false. It takes as many looks at the
// store as it needs, so that what compaction removes meanwhile may be missing: a caller looks at the compact revision
// once more when Scan has returned.
func (s *Store) Scan(from, to int64, fn func(*state.Version) bool) error {
	next := state.Revision{Main: max(from, 0)}
	for next.Main <= to {
		var batch []*state.Version
		more := false
		err := s.view(func(tx *bolt.Tx) (err error) {
			batch, more, err = scan(tx, next, to)
			return err
		})
		if err != nil {
			return fmt.Errorf("scan revisions %d-%d of checkpoint %s: %w", from, to, s.path, err)
		}
		for _, v := range batch {
			if !fn(v) {
				return nil
			}
		}
		if !more {
			return nil
		}
		last := batch[len(batch)-1].Revision()
		if last.Main == math.MaxInt64 && last.Sub == math.MaxInt64 {
			return nil
		}
		next = state.Revision{Main: last.Main, Sub: last.Sub + 1}
		if next.Sub < 0 {
			next = state.Revision{Main: last.Main + 1}
		}
	}
	return nil
}

// scan reads a batch, at least one version if there is any, and tells whether there may be more.
func scan(tx *bolt.Tx, next state.Revision, to int64) (batch []*state.Version, more bool, err error) {
	cursor := tx.Bucket(keyBucket).Cursor()
	total := 0
	for k, row := cursor.Seek(appendRevision(nil, next, false)); k != nil; k, row = cursor.Next() {
		if len(batch) == scanRowsMax || total >= scanBytesMax {
			return batch, true, nil
		}
		v := &state.Version{}
		if err := decodeVersion(v, k, row); err != nil {
			return nil, false, damagedRow(err)
		}
		if v.Mod > to {
			break
		}
		total += len(row)
		batch = append(batch, v)
	}
	return batch, false, nil
}

func damagedRow(err error) error {
	if err == nil {
		return nil
	}
	return damaged(err)
}
