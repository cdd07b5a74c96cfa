package sim

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// bootIndex and bootTerm are where every member's log starts: behind a checkpoint of an empty store.
const (
	bootIndex = 1
	bootTerm  = 1
	clusterID = 0xc1
	logDir    = "/wal"
)

var (
	errSync  = errors.New("sim: sync failed")
	errCrash = errors.New("sim: crashed in the middle")
)

// checkpoint is a durable checkpoint: what the server has in bbolt. Immutable; a save makes another.
type checkpoint struct {
	index, term       uint64
	revision, compact int64
	rows              []*state.Version // in revision order
	leases            []state.LeaseInfo
	members           []state.Member
	removed           []uint64
	conf              *raftpb.ConfState
}

// save returns the checkpoint after the changes, as one transaction would leave it.
func (c *checkpoint) save(ch state.Changes) *checkpoint {
	next := &checkpoint{
		index: ch.Index, term: ch.Term, revision: ch.Revision, compact: ch.Compact,
		members: slices.DeleteFunc(slices.Clone(c.members), func(m state.Member) bool {
			return slices.Contains(ch.RemovedMembers, m.ID)
		}),
		removed: append(slices.Clone(c.removed), ch.RemovedMembers...),
	}
	removed := make(map[state.Revision]bool, len(ch.Removed))
	for _, rev := range ch.Removed {
		removed[rev] = true
	}
	next.rows = make([]*state.Version, 0, len(c.rows)+len(ch.Versions))
	for _, rows := range [][]*state.Version{c.rows, ch.Versions} {
		for _, v := range rows {
			if !removed[v.Revision()] {
				next.rows = append(next.rows, v)
			}
		}
	}
	changed := make(map[int64]bool)
	for _, l := range ch.Leases {
		changed[l.ID] = true
	}
	for _, id := range ch.RevokedLeases {
		changed[id] = true
	}
	for _, l := range c.leases {
		if !changed[l.ID] {
			next.leases = append(next.leases, l)
		}
	}
	next.leases = append(next.leases, ch.Leases...)
	for _, m := range ch.Members {
		if i := slices.IndexFunc(next.members, func(old state.Member) bool { return old.ID == m.ID }); i >= 0 {
			next.members[i] = m
		} else {
			next.members = append(next.members, m)
		}
	}
	next.conf = confOf(next.members)
	return next
}

// confOf is raft's configuration of these members.
func confOf(members []state.Member) *raftpb.ConfState {
	return replica.ConfState(state.New(state.Config{Members: members}).Voters())
}

// load rebuilds the machine from the checkpoint.
func (c *checkpoint) load(cfg state.Config) (*state.Machine, error) {
	l := state.NewLoader(cfg)
	for _, m := range c.members {
		if err := l.Member(m); err != nil {
			return nil, fmt.Errorf("member: %w", err)
		}
	}
	for _, id := range c.removed {
		if err := l.RemovedMember(id); err != nil {
			return nil, fmt.Errorf("removed member: %w", err)
		}
	}
	for _, info := range c.leases {
		if err := l.Lease(info); err != nil {
			return nil, fmt.Errorf("lease: %w", err)
		}
	}
	for _, v := range c.rows {
		if err := l.Version(v); err != nil {
			return nil, fmt.Errorf("version: %w", err)
		}
	}
	return l.Finish(c.index, c.term, c.revision, c.compact)
}

// archive shows a node's checkpoint to its machine.
type archive struct{ n *node }

// Version implements state.Archive.
func (a archive) Version(rev state.Revision) (*state.Version, error) {
	rows := a.n.store.rows
	i := sort.Search(len(rows), func(i int) bool { return rows[i].Revision().Compare(rev) >= 0 })
	if i < len(rows) && rows[i].Revision() == rev {
		return rows[i], nil
	}
	return nil, nil
}

// Scan implements state.Archive.
func (a archive) Scan(from, to int64, fn func(*state.Version) bool) error {
	rows := a.n.store.rows
	i := sort.Search(len(rows), func(i int) bool { return rows[i].Mod >= from })
	for ; i < len(rows) && rows[i].Mod <= to; i++ {
		if !fn(rows[i]) {
			break
		}
	}
	return nil
}

func (n *node) walConfig() wal.Config {
	return wal.Config{
		FS: n.disk, Dir: logDir, Identity: wal.Identity{ClusterID: clusterID, MemberID: n.id},
		SegmentBytes: n.s.SegmentBytes, Inline: true, Salt: n.s.rng.Uint64,
	}
}

func (n *node) machineConfig() state.Config {
	return state.Config{HistoryBytes: n.s.HistoryBytes, Archive: archive{n}, ClusterID: clusterID}
}

// create makes the member's empty storage.
func (n *node) create() {
	n.store = &checkpoint{index: bootIndex, term: bootTerm, revision: 1, compact: -1}
	for i := range n.s.Members {
		n.store.members = append(n.store.members, state.Member{ID: uint64(i + 1), Name: fmt.Sprint("m", i+1)})
	}
	n.store.conf = confOf(n.store.members)
	n.createLog(wal.Base{Index: bootIndex, Term: bootTerm})
}

func (n *node) createLog(base wal.Base) {
	log, err := wal.Create(n.walConfig(), base)
	if err != nil {
		panic(err)
	}
	if err := log.Close(); err != nil {
		panic(err)
	}
}

// recover opens the storage and returns what the replica continues from; false if the log is damaged.
func (n *node) recover() (replica.Recovered, bool) {
	log, rec, err := wal.Open(n.walConfig())
	if n.rot != nil && !n.foundRot(rec, err) {
		return replica.Recovered{}, false
	}
	if err != nil {
		n.s.violate("log", "member %d: recovery refuses a log that nobody damaged: %v", n.id, err)
	}
	n.wal = log
	out := replica.Recovered{
		Snapshot:  replica.Snapshot{Index: n.store.index, Term: n.store.term, ConfState: n.store.conf},
		BaseIndex: rec.Base.Index, BaseTerm: rec.Base.Term, Entries: rec.Entries, HardState: rec.HardState,
	}
	if !out.Continues() { // a crash between the installation of a checkpoint and the log's restart behind it
		n.s.counts.LogResets++
		base := wal.Base{Index: n.store.index, Term: n.store.term}
		if err := n.wal.Append(wal.Batch{Reset: &base, HardState: rec.HardState}, true); err != nil {
			panic(err)
		}
		out.BaseIndex, out.BaseTerm, out.Entries = base.Index, base.Term, nil
	}
	return out, true
}

// write carries out appends with at most one sync, as the append goroutine does.
func (n *node) write(appends []*replica.Append) error {
	sync := false
	for i, a := range appends {
		b := wal.Batch{Entries: a.Entries, HardState: a.HardState}
		if a.Snapshot != nil {
			n.install(a.Snapshot)
			b.Reset = &wal.Base{Index: n.store.index, Term: n.store.term}
		}
		sync = sync || a.Sync
		n.s.Mutant.batch(n, &b)
		now := sync && (i == len(appends)-1 || a.Snapshot != nil) && !n.s.Mutant.is(SkipSync)
		if err := n.wal.Append(b, now); err != nil {
			return fmt.Errorf("append: %w", err)
		}
	}
	return nil
}

// install makes a received checkpoint the member's own, atomically, before the log is restarted behind it.
func (n *node) install(snapshot *raftpb.Snapshot) {
	index := snapshot.GetMetadata().GetIndex()
	ck := n.received[index]
	switch {
	case ck == nil:
		n.s.violate("log", "member %d is to install a checkpoint at %d that it never received", n.id, index)
	case ck.index < n.store.index:
		n.s.violate("log", "member %d goes back from the checkpoint at %d to one at %d", n.id, n.store.index, ck.index)
	}
	n.store = ck
	for at := range n.received { // a newer one may be on its way through raft already
		if at <= index {
			delete(n.received, at)
		}
	}
	n.installs++
}
