package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/state"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/raft/v3/raftpb"
)

var (
	// ErrDamaged: the file is not what was written. The member has to be rebuilt from another one or from a backup.
	ErrDamaged = errors.New("damaged")
	// ErrForeign: the file is not of this program, format, cluster or point of the log.
	ErrForeign = errors.New("foreign")
	// ErrInUse: another process has the file open.
	ErrInUse = errors.New("in use by another process")
	// ErrClosed: the store is closed, or has failed.
	ErrClosed = errors.New("checkpoint is closed")
)

const (
	fileMode = 0o600
	dirMode  = 0o700

	lockTimeout = time.Second

	// A write transaction that outgrows the mapping waits until no read transaction is left, and keeps new ones from
	// starting: a snapshot that a slow member takes minutes to receive would stop everything. So the mapping is larger
	// from the beginning than the file ever becomes. It costs address space only.
	mapBytes = 16 << 30

	tempSuffix = ".tmp"
)

// Meta says whose state a checkpoint holds and at which point of the log.
type Meta struct {
	Index, Term         uint64 // of the last entry applied
	ConfState           *raftpb.ConfState
	ClusterID, MemberID uint64
}

// Store is an open checkpoint. All methods are safe for concurrent use; Save, Install and Close wait for each other.
// Load, Save and Install concern one machine, so their order is the business of the goroutine that saves it.
type Store struct {
	path string // immutable

	writing sync.Mutex   // held by Save, Install and Close
	failed  error        // of the Save that failed, protected by writing
	arena   arena        // of the Save under way, protected by writing
	step    func(string) // tests look at the directory between the steps of an Install; nil otherwise

	mu     sync.Mutex // protects what follows, and is never held over I/O
	file   *file
	meta   Meta
	pos    position
	closed bool
}

// file is an open database. Readers hold it open when an Install or Close has taken it out of the store.
type file struct {
	db   *bolt.DB
	refs int // protected by Store.mu; the store's own is one
}

// Create makes a checkpoint of an empty store at path, which must not exist, with the directories above it. A crash
// leaves either nothing at path or the whole file.
func Create(path string, m Meta, members []state.Member) error {
	doing := func(err error) error { return fmt.Errorf("create checkpoint %s: %w", path, err) }
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return doing(cmp.Or(err, fs.ErrExist))
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return doing(err)
	}
	temp := path + ".new" + tempSuffix
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return doing(err)
	}
	if err := write(temp, m, members); err != nil {
		return doing(errors.Join(err, os.Remove(temp)))
	}
	if err := os.Rename(temp, path); err != nil {
		return doing(err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return doing(err)
	}
	return nil
}

// write makes the file of Create.
func write(path string, m Meta, members []state.Member) error {
	db, err := bolt.Open(path, fileMode, options())
	if err != nil {
		return openError(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range append(slices.Clone(etcdBuckets), ownBucket) {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		empty := state.New(state.Config{})
		p := position{index: m.Index, term: m.Term, revision: empty.Revision(), compact: empty.CompactRevision()}
		w := writer{tx: tx, pos: &p}
		w.members(members)
		w.conf(cmp.Or(m.ConfState, &raftpb.ConfState{}))
		w.set(metaBucket, storageVersionKey, []byte(etcdVersion))
		w.set(clusterBucket, clusterVersionKey, []byte(etcdVersion))
		w.finish()
		w.own(identityKey, identity{m.ClusterID, m.MemberID}.encode())
		return w.err
	})
	return errors.Join(err, db.Close())
}

// Open opens the checkpoint at path for the life of a member. It reads the whole file and refuses one that is damaged,
// foreign or in use, with an error that wraps fs.ErrNotExist when there is none. What crashed Installs left is removed.
func Open(path string) (*Store, error) {
	v, err := verify(path)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint %s: %w", path, err)
	}
	s := &Store{path: path, meta: v.meta, pos: v.position}
	err = guard(func() error {
		db, err := bolt.Open(path, fileMode, options())
		if err != nil {
			return openError(err)
		}
		s.file = &file{db: db, refs: 1}
		// Another process may have had it between the two.
		return db.View(func(tx *bolt.Tx) error {
			again, err := readRows(tx)
			if err == nil && again.position != v.position {
				err = fmt.Errorf("written to while it was verified: %w", ErrInUse)
			}
			return err
		})
	})
	if err == nil {
		err = s.removeTemps()
	}
	if err != nil {
		if s.file != nil {
			err = errors.Join(err, s.file.db.Close())
		}
		return nil, fmt.Errorf("open checkpoint %s: %w", path, err)
	}
	return s, nil
}

// Meta returns the point of the log that is durable, and whose checkpoint it is. The ConfState must not be written to.
func (s *Store) Meta() Meta {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meta
}

// Load rebuilds the machine. HistoryBytes of c is used; its Archive becomes s, and the rest comes from the checkpoint.
func (s *Store) Load(c state.Config) (*state.Machine, error) {
	var m *state.Machine
	err := s.view(func(tx *bolt.Tx) error {
		v, err := readRows(tx)
		if err != nil {
			return err
		}
		c.Archive, c.ClusterID, c.Members = s, v.identity.cluster, nil
		m, err = load(tx, c, v.position)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load checkpoint %s: %w", s.path, err)
	}
	return m, nil
}

func load(tx *bolt.Tx, c state.Config, p position) (*state.Machine, error) {
	l := state.NewLoader(c)
	err := tx.Bucket(leaseBucket).ForEach(func(k, row []byte) error {
		lease, err := decodeLease(k, row)
		if err != nil {
			return err
		}
		return l.Lease(lease)
	})
	if err == nil {
		err = tx.Bucket(membersBucket).ForEach(func(k, row []byte) error {
			m, err := decodeMember(k, row)
			if err != nil {
				return err
			}
			return l.Member(m)
		})
	}
	if err == nil {
		err = errors.Join(loadAuth(tx, l), loadNotices(tx, l), loadRemoved(tx, l))
	}
	if err == nil {
		var v state.Version // the loader copies it
		err = tx.Bucket(keyBucket).ForEach(func(k, row []byte) error {
			if err := decodeVersion(&v, k, row); err != nil {
				return err
			}
			return l.Version(&v)
		})
	}
	if err != nil {
		return nil, damaged(err)
	}
	m, err := l.Finish(p.index, p.term, p.revision, p.compact)
	if err != nil {
		return nil, damaged(err)
	}
	return m, nil
}

// Size returns the bytes that the file uses and how many of them hold data; the rest is free for later Saves.
func (s *Store) Size() (total, inUse int64) {
	err := s.view(func(tx *bolt.Tx) error {
		stats := tx.DB().Stats()
		total = tx.Size()
		inUse = total - int64(stats.FreePageN+stats.PendingPageN)*int64(tx.DB().Info().PageSize)
		return nil
	})
	if err != nil {
		return 0, 0
	}
	return total, inUse
}

// Close closes the file when the last Snapshot of it is closed. Closing twice is fine.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	f := s.file
	wasClosed := s.closed
	s.closed = true
	s.mu.Unlock()
	if wasClosed {
		return nil
	}
	if err := s.release(f); err != nil {
		return fmt.Errorf("close checkpoint %s: %w", s.path, err)
	}
	return nil
}

// current returns what Save works on. writing is held, so that nothing changes it meanwhile.
func (s *Store) current() (*bolt.DB, position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, position{}, ErrClosed
	}
	return s.file.db, s.pos, nil
}

// acquire keeps the present file open until release.
func (s *Store) acquire() (*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.file.refs++
	return s.file, nil
}

func (s *Store) release(f *file) error {
	s.mu.Lock()
	f.refs--
	last := f.refs == 0
	s.mu.Unlock()
	if last {
		return f.db.Close()
	}
	return nil
}

// view runs fn in a read transaction, under guard.
func (s *Store) view(fn func(tx *bolt.Tx) error) error {
	f, err := s.acquire()
	if err != nil {
		return err
	}
	return errors.Join(guard(func() error { return f.db.View(fn) }), s.release(f))
}

// removeTemps removes what crashed Installs and Creates left beside the file.
func (s *Store) removeTemps() error {
	dir, base := filepath.Split(s.path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base+".") && strings.HasSuffix(e.Name(), tempSuffix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// options are those of a file that is written to. The freelist is not stored, so that no damaged list can give away
// pages that are in use; bbolt rebuilds it by a walk over the file that Open has just verified. Neither Save nor Open of
// 500,000 rows showed a difference to a stored list.
func options() *bolt.Options {
	o := &bolt.Options{Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bolt.FreelistMapType}
	if is64bit {
		o.InitialMmapSize = mapBytes
	}
	return o
}

// is64bit tells whether the address space has room for mapBytes.
const is64bit = ^uint(0)>>63 == 1

func openError(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return ErrInUse
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// makeDir makes a directory and those above it, durably.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
