package server

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
	"github.com/latchkey-go/latchkey/server/internal/disk"
)

// Errors of a snapshot file, each wrapped with what to do about it.
var (
	// ErrDamagedSnapshot: the file is not what was written.
	ErrDamagedSnapshot = errors.New("snapshot is damaged")
	// ErrNotSnapshot: the file is no snapshot of etcd or latchkey, or of a
	// version that this program does not read.
	ErrNotSnapshot = errors.New("not a snapshot")
	// ErrSnapshotUnhashed: the file does not end in a hash, as a snapshot does.
	ErrSnapshotUnhashed = errors.New("snapshot has no hash")
	// ErrSnapshotInUse: a running member has the file open.
	ErrSnapshotInUse = errors.New("database file is in use")
)

// openSnapshot opens a snapshot, with errors of this package.
func openSnapshot(path string, needHash bool) (*checkpoint.Source, error) {
	src, err := checkpoint.OpenSource(path, needHash)
	switch {
	case errors.Is(err, checkpoint.ErrNoHash):
		err = fmt.Errorf("%w: %w; skip-hash-check takes a database file as it is", ErrSnapshotUnhashed, err)
	case errors.Is(err, checkpoint.ErrDamaged):
		err = fmt.Errorf("%w: %w; take another one", ErrDamagedSnapshot, err)
	case errors.Is(err, checkpoint.ErrForeign):
		err = fmt.Errorf("%w: %w", ErrNotSnapshot, err)
	case errors.Is(err, checkpoint.ErrInUse):
		err = fmt.Errorf("%w: %w; stop the member, or take a snapshot of it", ErrSnapshotInUse, err)
	}
	return src, err
}

// SnapshotInfo is what a snapshot file holds.
type SnapshotInfo struct {
	// Origin is "latchkey" or "etcd": who wrote the file.
	Origin string
	// Version is that of etcd's storage, such as "3.7.0"; empty before 3.6.
	Version string
	// Hash is over all rows; `etcdutl snapshot status` shows the same.
	Hash uint32
	// Revision is the current one, CompactRevision the lowest that can be read;
	// -1 when nothing was ever compacted.
	Revision, CompactRevision int64
	Keys, Leases, Members     int
	Bytes                     int64 // of the database, without the hash behind it
	Index, Term               uint64
	// ClusterID and MemberID say whose it is; zero in a snapshot of etcd.
	ClusterID, MemberID uint64
	// Hashed says that the file ends in a hash, which is right.
	Hashed bool
}

// ReadSnapshot reads a snapshot, all of it, and refuses one that is damaged. With
// needHash it must end in a hash, as all do that a server sends.
func ReadSnapshot(path string, needHash bool) (SnapshotInfo, error) {
	src, err := openSnapshot(path, needHash)
	if err != nil {
		return SnapshotInfo{}, err
	}
	return snapshotInfo(src.About()), src.Close()
}

func snapshotInfo(a checkpoint.About) SnapshotInfo {
	return SnapshotInfo{
		Origin: a.Origin, Version: a.Version, Hash: a.Hash, Revision: a.Revision, CompactRevision: a.Compact,
		Keys: a.Keys, Leases: a.Leases, Members: a.Members, Bytes: a.Bytes, Index: a.Index, Term: a.Term,
		ClusterID: a.ClusterID, MemberID: a.MemberID, Hashed: a.Hashed,
	}
}

// partSuffix is on the name of a snapshot that is not complete.
const partSuffix = ".part"

// WriteSnapshot makes a snapshot file of what fill writes, which is a database and its
// hash as a server sends them, and replaces one that has the name. The file is
// complete, verified row by row and durable before it gets its name; after an
// error there is none that is new.
func WriteSnapshot(path string, fill func(w io.Writer) error) (info SnapshotInfo, err error) {
	part := path + partSuffix
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return info, fmt.Errorf("create snapshot: %w", err)
	}
	err = fill(f)
	if err == nil {
		if err = f.Sync(); err != nil {
			err = fmt.Errorf("sync snapshot: %w", err)
		}
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		info, err = ReadSnapshot(part, true)
	}
	if err == nil {
		if err = os.Rename(part, path); err == nil {
			err = disk.OS().SyncDir(filepath.Dir(path))
		}
	}
	if err != nil {
		if gone := os.Remove(part); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return SnapshotInfo{}, err
	}
	return info, nil
}

// writeHashed writes a checkpoint as a snapshot: the file, and its hash.
func writeHashed(w io.Writer, s *checkpoint.Store) error {
	snapshot, err := s.Snapshot()
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = snapshot.WriteTo(io.MultiWriter(w, sum))
	if err == nil {
		_, err = w.Write(sum.Sum(nil))
	}
	return errors.Join(err, snapshot.Close())
}
