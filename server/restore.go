package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// DefaultBumpRevision is how far Restore moves the revision on: more than a
// cluster is likely to have written after the snapshot was taken.
const DefaultBumpRevision = 1_000_000_000

// RestoreConfig says what to restore, and for which member of a new cluster.
// Each member gets a directory of its own from the same snapshot, with the same
// InitialCluster, InitialClusterToken and BumpRevision.
type RestoreConfig struct {
	// Snapshot is the file: of latchkey, or of etcd 3.6 or 3.7.
	Snapshot string
	// SkipHashCheck takes a file without a hash at its end, such as a copy of
	// the file member/snap/db of a member that is stopped.
	SkipHashCheck bool

	// Name, DataDir, InitialCluster, InitialClusterToken and AdvertisePeerURLs
	// are as in Config, with the same defaults.
	Name, DataDir       string
	InitialCluster      string
	InitialClusterToken string
	AdvertisePeerURLs   []string

	// BumpRevision is added to the snapshot's revision, and all revisions up to
	// there count as compacted: neither a token nor a watcher's position that
	// was given out after the snapshot was taken can come again. Default
	// DefaultBumpRevision; negative: revisions go on where the snapshot ends.
	BumpRevision int64
}

// Restored tells what Restore made.
type Restored struct {
	Name, DataDir       string
	ClusterID, MemberID uint64
	Members             int
	Snapshot            SnapshotInfo
	// Revision and CompactRevision are those that the new cluster begins with.
	Revision, CompactRevision int64
	// Detached are keys that named a lease which does not exist. They are kept
	// without it.
	Detached int
}

// Restore makes the data directory of a new member from a snapshot. DataDir
// must not exist, or be empty. The directory of the member appears by one
// rename: after an error or a crash there is none, and Restore can be repeated.
//
// Identifiers are made as for a new cluster, from a token that also holds what
// was restored. So the cluster is a new one even if the token is that of the
// old one, and members that were restored from different snapshots, or not at
// all, refuse each other.
func Restore(c RestoreConfig) (Restored, error) {
	out, err := restore(c)
	if err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	return out, nil
}

func restore(c RestoreConfig) (out Restored, err error) {
	conf := Config{
		Name: c.Name, DataDir: c.DataDir, InitialCluster: c.InitialCluster,
		InitialClusterToken: c.InitialClusterToken, AdvertisePeerURLs: c.AdvertisePeerURLs,
	}.withDefaults()
	if len(conf.AdvertisePeerURLs) == 0 {
		conf.AdvertisePeerURLs = conf.ListenPeerURLs
	}
	if err := conf.Validate(); err != nil {
		return out, err
	}
	bump := c.BumpRevision
	if bump == 0 {
		bump = DefaultBumpRevision
	}
	bump = max(bump, 0)
	src, err := openSnapshot(c.Snapshot, !c.SkipHashCheck)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if err := src.CheckVersion(); err != nil {
		return out, fmt.Errorf("%w: %w", ErrNotSnapshot, err)
	}
	conf.InitialClusterToken += restoredToken(src.About(), bump)
	members, id, err := initialMembers(conf, conf.AdvertisePeerURLs, newPlaces(context.Background(), conf.resolver()).sameURLs)
	if err != nil {
		return out, err
	}
	dir := layout{root: conf.DataDir}
	lock, err := claimEmptyDir(dir)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	out = Restored{
		Name: conf.Name, DataDir: conf.DataDir, ClusterID: id.ClusterID, MemberID: id.MemberID,
		Members: len(members), Snapshot: snapshotInfo(src.About()),
	}
	var done checkpoint.Imported
	err = makeMember(dir, id, members, func(path string, m checkpoint.Meta) (err error) {
		done, err = src.Import(path, checkpoint.ImportConfig{Meta: m, Members: members, Bump: bump})
		if err != nil {
			return err
		}
		return loads(path)
	})
	if err != nil {
		err = errors.Join(err, os.RemoveAll(dir.unborn()))
	}
	out.Revision, out.CompactRevision, out.Detached = done.Revision, done.Compact, done.Detached
	return out, err
}

// restoredToken tells apart what is restored, and how.
func restoredToken(a checkpoint.About, bump int64) string {
	b := binary.BigEndian.AppendUint64(nil, a.Digest)
	b = binary.BigEndian.AppendUint64(b, uint64(a.Revision))
	b = binary.BigEndian.AppendUint64(b, uint64(bump))
	return fmt.Sprintf("/restored/%x", b)
}

// claimEmptyDir locks a data directory that holds nothing but what a restore
// that did not finish has left, and a volume's own lost+found.
func claimEmptyDir(l layout) (*os.File, error) {
	if err := disk.OS().MkdirAll(l.root); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := lockDataDir(l)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(l.root)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read data directory: %w", err), lock.Close())
	}
	for _, e := range entries {
		switch e.Name() {
		case filepath.Base(l.lock()), filepath.Base(l.unborn()), "lost+found":
		default:
			return nil, errors.Join(fmt.Errorf("%w: %s is not empty, it has %s; choose another data-dir",
				ErrForeignDataDir, l.root, e.Name()), lock.Close())
		}
	}
	return lock, nil
}

// loads checks that a member will be able to start on a checkpoint.
func loads(path string) error {
	s, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	_, err = s.Load(state.Config{HistoryBytes: windowBytes})
	return errors.Join(err, s.Close())
}
