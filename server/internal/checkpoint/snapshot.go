package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// Snapshot is a consistent copy of a checkpoint, to be written out while Saves go on. Its pages can not be reused until
// it is closed, so the file grows meanwhile. One goroutine uses it.
type Snapshot struct {
	store *Store
	file  *file
	tx    *bolt.Tx
	meta  Meta
	size  int64
	once  sync.Once
	err   error // of closing
}

// Snapshot begins a copy of what the last Save made durable. The caller closes it.
func (s *Store) Snapshot() (*Snapshot, error) {
	f, err := s.acquire()
	if err != nil {
		return nil, err
	}
	snapshot := &Snapshot{store: s, file: f}
	err = guard(func() error {
		if snapshot.tx, err = f.db.Begin(false); err != nil {
			return err
		}
		snapshot.size = snapshot.tx.Size()
		v, err := readRows(snapshot.tx)
		snapshot.meta = v.meta
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot of checkpoint %s: %w", s.path, errors.Join(err, snapshot.Close()))
	}
	return snapshot, nil
}

// Meta returns the point of the log that the copy is at.
func (s *Snapshot) Meta() Meta { return s.meta }

// Size is the number of bytes that WriteTo writes.
func (s *Snapshot) Size() int64 { return s.size }

// WriteTo writes the copy: a file that Install takes, and etcdutl too.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := s.tx.WriteTo(w)
	if err != nil {
		return n, fmt.Errorf("copy checkpoint %s: %w", s.store.path, err)
	}
	return n, nil
}

// Close ends the copy. Closing twice is fine.
func (s *Snapshot) Close() error {
	s.once.Do(func() {
		var err error
		if s.tx != nil {
			err = s.tx.Rollback()
		}
		s.err = errors.Join(err, s.store.release(s.file))
	})
	return s.err
}

// Temp creates an empty file for a checkpoint that arrives, in the directory where Install needs it. Open removes those
// that a crash left behind; otherwise the caller does.
func (s *Store) Temp() (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".*"+tempSuffix)
	if err != nil {
		return nil, fmt.Errorf("create file for a checkpoint: %w", err)
	}
	return f, nil
}

// Install puts another member's checkpoint, received whole into the file temp, in the place of this one. It refuses a
// file that is damaged, of another cluster, or not ahead of what is saved here (R37), and then nothing has changed but
// temp. The caller sees to it that nothing above the checkpoint's index was applied or is still to be saved. When
// Install returns nil the caller loads the machine again, and only then resets the log to Meta.
//
// The steps, and what is found on restart after a crash behind each:
//
//  1. temp is verified. Old file, old log: as if nothing had arrived. Open removes temp.
//  2. This member's identity is written into temp, and temp is synced. As after 1.
//  3. temp is renamed over the file. Either name may be found, until step 4, and both files are whole: temp was synced
//     before. With the old one, as after 1. With the new one the log is as in 4.
//  4. The directory is synced. The new file is found, the log is still the old one and does not reach the new file's
//     index, or has it with the same term. Nothing of the log below the index is needed any more, so the caller resets
//     a log that ends below the index, as it would have done next. The other order, log first, could leave a log whose
//     beginning no checkpoint reaches.
func (s *Store) Install(temp string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.failed != nil {
		return s.failed
	}
	doing := func(err error) error { return fmt.Errorf("install checkpoint %s as %s: %w", temp, s.path, err) }
	if _, _, err := s.current(); err != nil {
		return doing(err)
	}
	v, err := verify(temp)
	if err != nil {
		return doing(err)
	}
	old := s.Meta()
	if v.meta.ClusterID != old.ClusterID {
		return doing(fmt.Errorf("it is of cluster %x, this member of %x: %w", v.meta.ClusterID, old.ClusterID, ErrForeign))
	}
	if v.meta.Index <= old.Index {
		return doing(fmt.Errorf("it is at index %d, this member at %d: %w", v.meta.Index, old.Index, ErrForeign))
	}
	s.at("verified")
	v.meta.MemberID = old.MemberID
	db, err := s.adopt(temp, identity{old.ClusterID, old.MemberID})
	if err != nil {
		return doing(err)
	}
	s.at("adopted")
	if err := os.Rename(temp, s.path); err != nil {
		return doing(errors.Join(err, db.Close()))
	}
	s.at("renamed")
	if err := syncDir(filepath.Dir(s.path)); err != nil {
		// Which file a restart finds is not known any more, so this member can not go on with either.
		s.failed = doing(errors.Join(err, db.Close()))
		return s.failed
	}
	s.at("synced")
	s.mu.Lock()
	replaced := s.file
	s.file, s.meta, s.pos = &file{db: db, refs: 1}, v.meta, v.position
	s.mu.Unlock()
	_ = s.release(replaced) // nothing depends on the old file any more
	return nil
}

// adopt opens a verified file, which stays open through the rename, and makes it this member's, durably.
func (s *Store) adopt(temp string, id identity) (db *bolt.DB, err error) {
	err = guard(func() error {
		if db, err = bolt.Open(temp, fileMode, options()); err != nil {
			return openError(err)
		}
		return db.Update(func(tx *bolt.Tx) error { return tx.Bucket(ownBucket).Put(identityKey, id.encode()) })
	})
	if err == nil {
		err = syncFile(temp) // what the receiver wrote; bbolt has synced its own pages only
	}
	if err != nil && db != nil {
		err = errors.Join(err, db.Close())
	}
	return db, err
}

func (s *Store) at(step string) {
	if s.step != nil {
		s.step(step)
	}
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
