package server

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// examineLog reads the log and holds it against the checkpoint. Without a
// checkpoint to compare with, the log is read for itself.
func (x *examiner) examineLog() {
	if x.Condition == DirEtcd || x.Condition == DirInUse {
		return
	}
	log, err := wal.Inspect(wal.Config{FS: disk.ReadOnly(), Dir: x.l.wal()})
	var damage *wal.DamageError
	switch {
	case err == nil:
	case errors.As(err, &damage):
		x.Condition = DirDamaged
		x.Findings = append(x.Findings, Finding{
			Severity: SeverityError, Part: "log", Text: damage.Error(), File: damage.File, Offset: damage.Offset,
		})
		return
	case errors.Is(err, wal.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		x.is(DirDamaged, "log", "%s holds no log", x.l.wal())
		return
	case errors.Is(err, wal.ErrForeign), errors.Is(err, wal.ErrVersion):
		x.is(DirForeign, "log", "%s", err)
		return
	default:
		x.is(DirUnreadable, "log", "%s", err)
		return
	}
	x.logOK = true
	x.LastIndex = log.Base.Index + uint64(len(log.Entries))
	ended := "after a crash"
	if log.Clean {
		ended = "cleanly"
	}
	x.say(SeverityOK, "log", "whole: %d segments, entries %d to %d, ended %s", log.Segments, log.Base.Index+1, x.LastIndex, ended)
	if log.Torn != nil {
		x.say(SeverityOK, "log", "%s ends in %d bytes at offset %d that a crash cut off; they were never acknowledged, and the next start sets them aside",
			log.Torn.File, log.Torn.Bytes, log.Torn.Offset)
	}
	if err := decodable(log); err != nil {
		x.is(DirDamaged, "log", "%s", err)
	}
	if x.checkpointOK {
		x.together(log)
	}
}

// decodable checks that all entries say something to this program.
func decodable(log wal.Inspection) error {
	for _, e := range log.Entries {
		if len(e.GetData()) == 0 || e.GetType() != raftpb.EntryNormal {
			continue
		}
		b, err := replica.DecodeBatch(e.GetData())
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		for i, data := range b.Commands {
			if _, err := state.DecodeCommand(data); err != nil {
				return fmt.Errorf("entry %d, command %d: %w", e.GetIndex(), i, err)
			}
		}
	}
	return nil
}

// together holds log and checkpoint against each other, as a start does.
func (x *examiner) together(log wal.Inspection) {
	meta := x.checkpoint.Meta
	rec := recoveredLog(meta, log.Recovery)
	switch id := (wal.Identity{ClusterID: meta.ClusterID, MemberID: meta.MemberID}); {
	case log.Identity != id:
		x.is(DirForeign, "together", "the checkpoint is of member %x of cluster %x, the log of member %x of cluster %x",
			id.MemberID, id.ClusterID, log.Identity.MemberID, log.Identity.ClusterID)
	case log.Base.Index > meta.Index:
		x.is(DirDamaged, "together", "entries %d to %d are missing between the checkpoint and the log", meta.Index+1, log.Base.Index)
	case !rec.Continues():
		x.say(SeverityOK, "together", "the checkpoint came from the leader and is ahead of the log, which the next start begins anew")
	case log.HardState.GetCommit() > x.LastIndex:
		x.is(DirDamaged, "together", "the log ends at entry %d, but %d was committed", x.LastIndex, log.HardState.GetCommit())
	default:
		x.say(SeverityOK, "together", "the log goes on from the checkpoint; a start replays up to %d entries", x.LastIndex-meta.Index)
	}
}

// spaceWarnBytes is what should be free at least, besides room for another copy
// of the checkpoint: some segments of the log, and what a checkpoint adds.
const spaceWarnBytes = 256 << 20

func (x *examiner) space() {
	var stat unix.Statfs_t
	if err := unix.Statfs(x.l.root, &stat); err != nil {
		x.say(SeverityWarning, "disk", "free space is not known: %s", err)
		return
	}
	free := int64(stat.Bavail) * int64(stat.Bsize)
	need := int64(spaceWarnBytes)
	if info, err := os.Stat(x.l.db()); err == nil {
		need += info.Size()
	}
	if free < need {
		x.say(SeverityWarning, "disk", "%d MiB are free, less than the %d MiB that a member should have", free>>20, need>>20)
		return
	}
	x.say(SeverityOK, "disk", "%d MiB are free", free>>20)
}

// permissions looks at who may do what. The member needs to write, and nobody
// else needs to read: values may be secrets.
func (x *examiner) permissions() {
	bad := false
	for _, path := range []string{x.l.root, x.l.member(), x.l.wal(), x.l.snap(), x.l.db()} {
		if err := unix.Access(path, unix.R_OK|unix.W_OK); err != nil && !errors.Is(err, fs.ErrNotExist) {
			x.say(SeverityWarning, "permissions", "this user can not write to %s; the member's must", path)
			bad = true
		}
	}
	if info, err := os.Stat(x.l.db()); err == nil && info.Mode().Perm()&0o077 != 0 && letsOthersIn(x.l) {
		x.say(SeverityWarning, "permissions", "others can read %s", x.l.db())
		bad = true
	}
	if !bad {
		x.say(SeverityOK, "permissions", "this user can write, and others can not read")
	}
}

// letsOthersIn says whether the folders let others through to the files.
func letsOthersIn(l layout) bool {
	for _, dir := range []string{l.root, l.member(), l.snap()} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o011 == 0 {
			return false
		}
	}
	return true
}

// lockHolder finds the process that has a lock on a file, where the system tells.
func lockHolder(path string) (pid int) {
	var stat unix.Stat_t
	if unix.Stat(path, &stat) != nil {
		return 0
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer f.Close()
	inode := fmt.Sprintf(":%d", stat.Ino)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[3] != "WRITE" || !strings.HasSuffix(fields[5], inode) {
			continue
		}
		if _, err := fmt.Sscan(fields[4], &pid); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}

// advise says what to do.
func (x *examiner) advise() {
	db := x.l.db()
	switch x.Condition {
	case DirFresh:
		x.Advice = "Start a member with this directory, or restore a snapshot into it with \"latchkey snapshot restore\"."
	case DirHealthy:
		x.Advice = "Start the member: its data is whole."
		for _, f := range x.Findings {
			if f.Severity == SeverityWarning {
				x.Advice = "The data is whole: see to the warnings, then start the member."
			}
		}
	case DirInUse:
		x.Advice = "Ask the running member with \"latchkey status\", or stop it and examine the directory again."
	case DirEtcd:
		x.Advice = fmt.Sprintf("To move to latchkey, save a snapshot of the running etcd with \"latchkey snapshot save\" and restore it into another directory; "+
			"if etcd can not run any more, restore %s with --skip-hash-check, which lacks what only etcd's log has.", db)
	case DirForeign:
		x.Advice = "Choose another data-dir, or bring back the files that this member wrote; never mix those of two members."
	case DirUnreadable:
		x.Advice = "Run this as the member's user, and see to the error above."
	case DirDamaged:
		x.Advice = x.adviseDamaged()
	}
}

func (x *examiner) adviseDamaged() string {
	switch {
	case x.Members > 1:
		return "Keep the directory for diagnosis, remove this member from the cluster with \"latchkey member remove\", and add it again with an empty one."
	case x.checkpointOK:
		return fmt.Sprintf("Keep the directory for diagnosis, and restore your newest snapshot, or %s with \"latchkey snapshot restore --skip-hash-check\", "+
			"which has everything up to revision %d.", x.l.db(), x.Revision)
	default:
		return "Keep the directory for diagnosis; if the cluster has other members, remove this one and add it again with an empty directory, else restore your newest snapshot."
	}
}
