package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"

	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// BackedUp tells what Backup made.
type BackedUp struct {
	File     string
	Snapshot SnapshotInfo
	// Replayed are the entries of the log that were added to the checkpoint.
	Replayed int
	// Left are entries of the log that the member did not know to be committed.
	// The other members may have them; of a single member there are none.
	Left int
}

// Backup writes the data of a member that is stopped as a snapshot: the checkpoint,
// and the committed part of the log above it. It changes nothing in dataDir. The
// file must not exist. The member must not be running (ErrDataDirInUse); a running
// one is asked for a snapshot instead.
func Backup(dataDir, file string) (BackedUp, error) {
	out, err := backup(layout{root: dataDir}, file)
	if err != nil {
		return BackedUp{}, fmt.Errorf("backup of %s: %w", dataDir, err)
	}
	return out, nil
}

func backup(l layout, file string) (out BackedUp, err error) {
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return out, fmt.Errorf("%s: %w", file, errors.Join(err, fs.ErrExist))
	}
	if _, err := os.Stat(l.db()); errors.Is(err, fs.ErrNotExist) {
		return out, fmt.Errorf("%w: it holds no member", ErrForeignDataDir)
	}
	lock, err := shareDataDir(l)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	work, err := os.MkdirTemp(filepath.Dir(file), filepath.Base(file)+".tmp-")
	if err != nil {
		return out, fmt.Errorf("create working directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	store, err := copyCheckpoint(l.db(), filepath.Join(work, "db"))
	if err != nil {
		return out, directoryError(err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if out.Replayed, out.Left, err = replayLog(l, store); err != nil {
		return out, directoryError(err)
	}
	out.File = file
	out.Snapshot, err = WriteSnapshot(file, func(w io.Writer) error { return writeHashed(w, store) })
	return out, err
}

// shareDataDir keeps a member from starting on a directory while somebody reads
// it, and refuses if one runs. It writes nothing, so a directory without a lock
// file, which no member has run on, is not locked.
func shareDataDir(l layout) (io.Closer, error) {
	f, err := os.Open(l.lock())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return io.NopCloser(nil), nil
	case err != nil:
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%w: a process has %s open; stop it, or ask it with \"latchkey snapshot save\"", ErrDataDirInUse, l.root)
	}
	return f, nil
}

// copyCheckpoint opens a copy: replaying writes to it.
func copyCheckpoint(from, to string) (*checkpoint.Store, error) {
	src, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close(), src.Close()); err != nil {
		return nil, fmt.Errorf("copy checkpoint: %w", err)
	}
	return checkpoint.Open(to)
}

// replayLog applies what the log has above the checkpoint, as far as the member
// knew it to be committed, and saves it. A single voter's log is all committed.
func replayLog(l layout, store *checkpoint.Store) (replayed, left int, err error) {
	meta := store.Meta()
	log, err := wal.Inspect(wal.Config{
		FS: disk.ReadOnly(), Dir: l.wal(), Identity: wal.Identity{ClusterID: meta.ClusterID, MemberID: meta.MemberID},
	})
	if err != nil {
		return 0, 0, err
	}
	rec := recoveredLog(meta, log.Recovery)
	if !rec.Continues() {
		if log.Base.Index > meta.Index {
			return 0, 0, gapError(log.Base.Index, meta.Index)
		}
		return 0, 0, nil // a checkpoint of the leader has just arrived
	}
	m, err := store.Load(state.Config{HistoryBytes: windowBytes})
	if err != nil {
		return 0, 0, err
	}
	committed := committedIndex(meta, log)
	for _, e := range log.Entries {
		switch {
		case e.GetIndex() <= meta.Index:
		case e.GetIndex() > committed:
			left++
		default:
			if err := applyEntry(m, e); err != nil {
				return 0, 0, err
			}
			replayed++
		}
	}
	return replayed, left, store.Save(m.TakeChanges(), nil)
}

// committedIndex is how much of a log is known to be committed: what the member
// was told, or all that a member has which is alone.
func committedIndex(meta checkpoint.Meta, log wal.Inspection) uint64 {
	told := log.HardState.GetCommit()
	voters := meta.ConfState.GetVoters()
	if len(voters) != 1 || voters[0] != meta.MemberID || len(meta.ConfState.GetVotersOutgoing()) > 0 || len(log.Entries) == 0 {
		return told
	}
	for _, e := range log.Entries {
		if e.GetIndex() > meta.Index && e.GetType() != raftpb.EntryNormal {
			return told // it may not be alone for all of it
		}
	}
	return max(told, log.Entries[len(log.Entries)-1].GetIndex())
}

// applyEntry applies one committed entry to a machine outside of a member.
// Changes of the membership have no effect: whoever restores the snapshot makes
// a new one.
func applyEntry(m *state.Machine, e *raftpb.Entry) error {
	var commands []state.Command
	if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
		b, err := replica.DecodeBatch(e.GetData())
		if err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrDamagedDataDir, e.GetIndex(), err)
		}
		if b.Term == e.GetTerm() {
			for _, data := range b.Commands {
				c, err := state.DecodeCommand(data)
				if err != nil {
					return fmt.Errorf("%w: entry %d: %w", ErrDamagedDataDir, e.GetIndex(), err)
				}
				commands = append(commands, c)
			}
		}
	}
	for _, r := range m.Apply(e.GetIndex(), e.GetTerm(), commands) {
		if errors.Is(r.Err, state.ErrArchive) {
			return r.Err
		}
	}
	return nil
}
