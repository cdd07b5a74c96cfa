package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
)

// Condition is what a data directory is.
type Condition string

// The conditions.
const (
	// DirFresh: there is no member in it.
	DirFresh Condition = "fresh"
	// DirHealthy: a member can start on it.
	DirHealthy Condition = "healthy"
	// DirInUse: a process has it open, so that nothing else can be said.
	DirInUse Condition = "in use"
	// DirEtcd: it is a data directory of etcd.
	DirEtcd Condition = "etcd"
	// DirForeign: it holds something else, or parts of two members.
	DirForeign Condition = "foreign"
	// DirDamaged: a member's files are not what was written.
	DirDamaged Condition = "damaged"
	// DirUnreadable: it could not be read to the end.
	DirUnreadable Condition = "unreadable"
)

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	SeverityOK      Severity = "ok"
	SeverityWarning Severity = "warning"
	SeverityError   Severity = "error"
)

// Finding is one thing that Examine saw.
type Finding struct {
	Severity Severity
	Part     string // "lock", "files", "checkpoint", "log", "together", "disk" or "permissions"
	Text     string // one sentence
	// File and Offset say where damage is; empty when the finding is not of one place.
	File   string
	Offset int64
}

// Examination is what Examine found.
type Examination struct {
	DataDir   string
	Condition Condition
	Findings  []Finding
	// Advice is one sentence that says what to do.
	Advice string
	// What the member's files say of it, as far as they could be read.
	ClusterID, MemberID uint64
	Members             int
	Revision            int64
	CheckpointIndex     uint64 // last entry that the checkpoint has
	LastIndex           uint64 // last entry of the log
}

// Examine looks at a data directory, explains what it is and whether a member
// can start on it, and changes nothing. No member can start while it looks. It
// reads everything, which takes as long as a start and as much memory.
func Examine(dataDir string) Examination {
	x := &examiner{l: layout{root: dataDir}, Examination: Examination{DataDir: dataDir, Condition: DirHealthy}}
	x.run()
	x.advise()
	return x.Examination
}

// examiner collects findings. The worst condition stays.
type examiner struct {
	Examination
	l layout

	checkpoint   checkpoint.Examined
	checkpointOK bool
	logOK        bool
}

func (x *examiner) say(s Severity, part, format string, args ...any) {
	x.Findings = append(x.Findings, Finding{Severity: s, Part: part, Text: fmt.Sprintf(format, args...)})
}

// is sets a condition that ends the examination, with the reason.
func (x *examiner) is(c Condition, part, format string, args ...any) {
	x.Condition = c
	s := SeverityError
	if c == DirFresh || c == DirEtcd || c == DirInUse {
		s = SeverityOK
	}
	x.say(s, part, format, args...)
}

func (x *examiner) run() {
	entries, err := os.ReadDir(x.l.root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.is(DirFresh, "files", "%s does not exist", x.l.root)
		return
	case err != nil:
		x.is(DirUnreadable, "files", "%s", err)
		return
	}
	lock, err := shareDataDir(x.l)
	switch {
	case errors.Is(err, ErrDataDirInUse):
		x.inUse()
		return
	case err != nil:
		x.is(DirUnreadable, "lock", "%s", err)
		return
	}
	defer lock.Close()
	x.say(SeverityOK, "lock", "no process has the directory open")
	if !x.member(entries) {
		return
	}
	x.space()
	x.permissions()
	x.examineCheckpoint()
	x.examineLog()
}

func (x *examiner) inUse() {
	if pid := lockHolder(x.l.lock()); pid > 0 {
		x.is(DirInUse, "lock", "process %d has the directory open", pid)
		return
	}
	x.is(DirInUse, "lock", "a process has the directory open")
}

// member says whether there are files of one of our members to look at.
func (x *examiner) member(entries []os.DirEntry) bool {
	var others []string
	for _, e := range entries {
		switch e.Name() {
		case "member":
			return x.layout()
		case filepath.Base(x.l.unborn()):
			x.say(SeverityOK, "files", "%s is of a start or a restore that did not finish; the next one removes it", e.Name())
		case filepath.Base(x.l.lock()), "lost+found":
		default:
			others = append(others, e.Name())
		}
	}
	if len(others) > 0 {
		x.is(DirForeign, "files", "there is no member in it, but %s", few3(others))
		return false
	}
	x.is(DirFresh, "files", "there is no member in it")
	return false
}

// few3 names some files.
func few3(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}

// layout tells our member from etcd's, whose files have the same folders.
func (x *examiner) layout() bool {
	names := func(dir string) (list []string) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			x.is(DirUnreadable, "files", "%s", err)
		}
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	etcd, temps, torn := 0, 0, 0
	for _, name := range names(x.l.wal()) {
		switch {
		case strings.HasSuffix(name, ".wal") && strings.Contains(name, "-"):
			etcd++
		case strings.Contains(name, ".torn-"):
			torn++
		}
	}
	for _, name := range names(x.l.snap()) {
		switch {
		case strings.HasSuffix(name, ".snap"):
			etcd++
		case strings.HasSuffix(name, ".tmp"):
			temps++
		}
	}
	if x.Condition == DirUnreadable {
		return false
	}
	if etcd > 0 {
		x.is(DirEtcd, "files", "etcd has written its log here")
		return false
	}
	if temps > 0 {
		x.say(SeverityOK, "files", "%d files of a checkpoint that did not arrive; the next start removes them", temps)
	}
	if torn > 0 {
		x.say(SeverityOK, "files", "%d copies of what earlier crashes cut off the log", torn)
	}
	return true
}

func (x *examiner) examineCheckpoint() {
	var err error
	x.checkpoint, err = checkpoint.Examine(x.l.db())
	e := x.checkpoint
	x.ClusterID, x.MemberID, x.Members = e.ClusterID, e.MemberID, e.Members
	x.Revision, x.CheckpointIndex = e.Revision, e.Index
	switch {
	case err == nil:
		x.checkpointOK = true
		x.say(SeverityOK, "checkpoint", "whole: %d keys and %d leases at revision %d, index %d; member %x of cluster %x, which has %d",
			e.Keys, e.Leases, e.Revision, e.Index, e.MemberID, e.ClusterID, e.Members)
	case errors.Is(err, checkpoint.ErrInUse):
		x.is(DirInUse, "checkpoint", "%s", err)
	case errors.Is(err, fs.ErrNotExist):
		x.is(DirDamaged, "checkpoint", "%s is missing", x.l.db())
	case errors.Is(err, checkpoint.ErrDamaged):
		x.is(DirDamaged, "checkpoint", "%s", err)
	case errors.Is(err, checkpoint.ErrForeign):
		x.foreignCheckpoint(err)
	default:
		x.is(DirUnreadable, "checkpoint", "%s", err)
	}
}

// foreignCheckpoint tells a database of etcd from any other file.
func (x *examiner) foreignCheckpoint(err error) {
	if src, serr := checkpoint.OpenSource(x.l.db(), false); serr == nil {
		origin := src.About().Origin
		if serr := src.Close(); serr == nil && origin == checkpoint.OriginEtcd {
			x.is(DirEtcd, "checkpoint", "%s is a database of etcd", x.l.db())
			return
		}
	}
	x.is(DirForeign, "checkpoint", "%s", err)
}
