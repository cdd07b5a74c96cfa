package server

import (
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"

	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// layout names the files of a data directory. It is etcd's layout, so that an
// operator finds his way.
type layout struct{ root string }

func (l layout) member() string   { return filepath.Join(l.root, "member") }
func (l layout) wal() string      { return filepath.Join(l.member(), "wal") }
func (l layout) snap() string     { return filepath.Join(l.member(), "snap") }
func (l layout) db() string       { return filepath.Join(l.snap(), "db") }
func (l layout) lock() string     { return filepath.Join(l.root, "LOCK") }
func (l layout) unborn() string   { return filepath.Join(l.root, "member.new") }
func (l layout) received() string { return filepath.Join(l.snap(), "received") }

// Errors of a data directory, each wrapped with what to do about it.
var (
	// ErrDataDirInUse: another process has the directory open.
	ErrDataDirInUse = errors.New("data directory is in use")
	// ErrForeignDataDir: the directory holds something else than this member.
	ErrForeignDataDir = errors.New("data directory is not this member's")
	// ErrDamagedDataDir: the directory's files contradict themselves.
	ErrDamagedDataDir = errors.New("data directory is damaged")
)

// lockDataDir keeps a second process off the directory until the file is
// closed, which a crash does as well.
func lockDataDir(l layout) (*os.File, error) {
	if err := os.MkdirAll(l.root, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	f, err := os.OpenFile(l.lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%w: another process has %s open; stop it or choose another data-dir", ErrDataDirInUse, l.root)
	}
	return f, nil
}

// bootstrap makes a new member's directory from the initial cluster. Every
// member computes the same first state, an applied index of 1 with the initial
// members as voters, so no entry needs to be agreed on for it.
func bootstrap(l layout, id wal.Identity, members []state.Member) error {
	return makeMember(l, id, members, func(path string, m checkpoint.Meta) error {
		return checkpoint.Create(path, m, members)
	})
}

// makeMember is bootstrap with any checkpoint for the first state: create makes
// it at path, durably but for its name.
func makeMember(l layout, id wal.Identity, members []state.Member, create func(path string, m checkpoint.Meta) error) error {
	conf := &raftpb.ConfState{}
	for _, m := range members {
		conf.Voters = append(conf.Voters, m.ID)
	}
	return makeMemberAt(l, id, conf, wal.Base{Index: bootIndex, Term: bootTerm}, create)
}

// makeMemberAt is makeMember with raft's configuration, and where the log begins:
// one that joins begins with nothing, before every log, and gets a checkpoint. The
// directory appears under its name by one rename: a crash before leaves nothing
// that a later start would take for a member.
func makeMemberAt(l layout, id wal.Identity, conf *raftpb.ConfState, base wal.Base, create func(path string, m checkpoint.Meta) error) error {
	if err := os.RemoveAll(l.unborn()); err != nil {
		return fmt.Errorf("remove half-made member: %w", err)
	}
	fresh := layoutAt(l.unborn())
	for _, dir := range []string{fresh.wal, fresh.snap} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("create member directory: %w", err)
		}
	}
	meta := checkpoint.Meta{
		Index: base.Index, Term: base.Term, ConfState: conf,
		ClusterID: id.ClusterID, MemberID: id.MemberID,
	}
	if err := create(filepath.Join(fresh.snap, "db"), meta); err != nil {
		return fmt.Errorf("create checkpoint: %w", err)
	}
	log, err := wal.Create(wal.Config{FS: disk.OS(), Dir: fresh.wal, Identity: id}, base)
	if err != nil {
		return fmt.Errorf("create log: %w", err)
	}
	if err := log.Close(); err != nil {
		return fmt.Errorf("close new log: %w", err)
	}
	for _, dir := range []string{fresh.snap, l.unborn()} {
		if err := disk.OS().SyncDir(dir); err != nil {
			return fmt.Errorf("sync new member directory: %w", err)
		}
	}
	if err := os.Rename(l.unborn(), l.member()); err != nil {
		return fmt.Errorf("name member directory: %w", err)
	}
	return disk.OS().SyncDir(l.root)
}

// bootIndex and bootTerm are where every new cluster's log begins.
const (
	bootIndex = 1
	bootTerm  = 1
)

type freshDirs struct{ wal, snap string }

func layoutAt(member string) freshDirs {
	return freshDirs{wal: filepath.Join(member, "wal"), snap: filepath.Join(member, "snap")}
}

// initialMembers computes ids and identity of a new cluster as etcd does: a
// member is the hash of its peer URLs and the token, the cluster the hash of
// its members. Equal flags give equal ids on every member. This member's URLs may
// be named there and advertised as addresses, if same says that they are the same.
func initialMembers(c Config, advertisePeers []string, same func(a, b []string) bool) ([]state.Member, wal.Identity, error) {
	spec := c.InitialCluster
	if spec == "" {
		parts := make([]string, len(advertisePeers))
		for i, u := range advertisePeers {
			parts[i] = c.Name + "=" + u
		}
		spec = strings.Join(parts, ",")
	}
	cluster, err := parseCluster(spec)
	if err != nil {
		return nil, wal.Identity{}, err
	}
	mine, ok := cluster[c.Name]
	if !ok {
		return nil, wal.Identity{}, fmt.Errorf("initial-cluster does not name this member, %q", c.Name)
	}
	if !same(mine, advertisePeers) {
		return nil, wal.Identity{}, fmt.Errorf("initial-cluster says %q is at %s, but initial-advertise-peer-urls is %s",
			c.Name, strings.Join(mine, ","), strings.Join(advertisePeers, ","))
	}
	var members []state.Member
	var id wal.Identity
	for name, urls := range cluster {
		m := state.Member{ID: memberID(urls, c.InitialClusterToken), Name: name, PeerURLs: urls}
		if name == c.Name {
			id.MemberID = m.ID
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b state.Member) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	h := sha1.New()
	for i, m := range members {
		if i > 0 && members[i-1].ID == m.ID {
			return nil, wal.Identity{}, fmt.Errorf("initial-cluster gives %q and %q the same peer URLs", members[i-1].Name, m.Name)
		}
		_ = binary.Write(h, binary.BigEndian, m.ID)
	}
	id.ClusterID = binary.BigEndian.Uint64(h.Sum(nil))
	return members, id, nil
}

func memberID(urls []string, token string) uint64 {
	sorted := slices.Sorted(slices.Values(urls))
	sum := sha1.Sum([]byte(strings.Join(sorted, "") + token))
	return binary.BigEndian.Uint64(sum[:])
}

func sameURLs(a, b []string) bool {
	trim := func(urls []string) []string {
		out := make([]string, len(urls))
		for i, u := range urls {
			out[i] = strings.TrimSuffix(u, "/")
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(trim(a), trim(b))
}
