package replica

import (
	"errors"
	"fmt"
	"math"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Bounds that are not configurable. All sizes in bytes.
const (
	maxAppendBytes      = 1 << 20  // entries in one message to a follower, if more than one
	maxInflightBytes    = 32 << 20 // appends to one follower that it has not acknowledged
	maxInflightAppends  = 512      // the same, in messages
	maxUncommittedBytes = 64 << 20 // proposals in a leader's log that are not committed
	maxApplyingBytes    = 16 << 20 // entries handed out in Apply and not acknowledged
	maxOrigins          = 4096     // origins whose sequence a leader remembers; more means as many restarts in one term
)

// Defaults of [Config].
const (
	DefaultMaxEntryBytes      = 1 << 20
	DefaultMaxBatchesInFlight = 2
	DefaultMaxQueueBytes      = 64 << 20
	DefaultMaxQueued          = 1 << 16
	DefaultMaxLogBytes        = 16 << 20
)

// Config configures a [Replica]. The zero value of a Max field means its default.
type Config struct {
	ID     uint64 // this member; not 0
	Origin uint64 // random a start, not 0: tells the batches of this start from those of earlier ones

	ElectionTicks  int // a follower that hears nothing for one to two times this campaigns; above HeartbeatTicks
	HeartbeatTicks int // a leader sends heartbeats this often

	Log     Recovered
	Applied uint64      // what the state machine has applied; equals Log.Snapshot.Index
	Logger  raft.Logger // nil: silent

	MaxEntryBytes      int // a batch is split above this; a single larger proposal still travels, alone
	MaxBatchesInFlight int // unresolved batches of this member and term, above which proposals gather
	MaxQueueBytes      int // proposals queued and not packed, in bytes
	MaxQueued          int // proposals queued and not packed, and likewise reads
	MaxLogBytes        int // entries kept for followers behind, beyond those that no checkpoint holds
}

// Recovered is what storage gave back at the start.
type Recovered struct {
	Snapshot            Snapshot // the durable checkpoint; its ConfState names the members
	BaseIndex, BaseTerm uint64   // the entry before the first of Entries
	Entries             []*raftpb.Entry
	HardState           *raftpb.HardState // nil: none was written yet
}

func (c Config) withDefaults() Config {
	setDefault(&c.MaxEntryBytes, DefaultMaxEntryBytes)
	setDefault(&c.MaxBatchesInFlight, DefaultMaxBatchesInFlight)
	setDefault(&c.MaxQueueBytes, DefaultMaxQueueBytes)
	setDefault(&c.MaxQueued, DefaultMaxQueued)
	setDefault(&c.MaxLogBytes, DefaultMaxLogBytes)
	if c.Logger == nil {
		c.Logger = silent{}
	}
	return c
}

func setDefault(v *int, def int) {
	if *v == 0 {
		*v = def
	}
}

func (c Config) validate() error {
	switch {
	case c.ID == 0 || c.ID >= math.MaxUint64-1: // the last two are raft's names for its storage
		return fmt.Errorf("replica: bad member id %x", c.ID)
	case c.Origin == 0:
		return errors.New("replica: no origin")
	case c.HeartbeatTicks < 1 || c.ElectionTicks <= c.HeartbeatTicks:
		return fmt.Errorf("replica: an election timeout of %d ticks with a heartbeat of %d", c.ElectionTicks, c.HeartbeatTicks)
	case min(c.MaxEntryBytes, c.MaxBatchesInFlight, c.MaxQueueBytes, c.MaxQueued, c.MaxLogBytes) < 1:
		return errors.New("replica: a negative limit")
	}
	return c.Log.validate(c.Applied)
}

// Continues tells whether the log goes on from the checkpoint. It does not after a crash between the installation of a
// received checkpoint and the log's restart behind it; the log's entries are of no use then, and the caller completes
// the interrupted step: it restarts the log behind the checkpoint and keeps the HardState's term and vote.
func (rec Recovered) Continues() bool {
	at := rec.Snapshot.Index
	switch {
	case at < rec.BaseIndex || at > rec.BaseIndex+uint64(len(rec.Entries)):
		return false
	case at == rec.BaseIndex:
		return rec.Snapshot.Term == rec.BaseTerm
	}
	return rec.Entries[at-rec.BaseIndex-1].GetTerm() == rec.Snapshot.Term
}

// validate refuses logs that raft would panic on, or worse, accept.
func (rec Recovered) validate(applied uint64) error {
	if rec.Snapshot.ConfState == nil {
		return errors.New("replica: recovered no members")
	}
	term := rec.BaseTerm
	for i, e := range rec.Entries {
		if e.GetIndex() != rec.BaseIndex+1+uint64(i) || e.GetTerm() < term {
			return fmt.Errorf("replica: recovered log has entry %d of term %d at position %d, after term %d",
				e.GetIndex(), e.GetTerm(), rec.BaseIndex+1+uint64(i), term)
		}
		term = e.GetTerm()
	}
	last := rec.BaseIndex + uint64(len(rec.Entries))
	switch {
	case applied != rec.Snapshot.Index:
		return fmt.Errorf("replica: applied is %d but the checkpoint is at %d", applied, rec.Snapshot.Index)
	case applied < rec.BaseIndex:
		return fmt.Errorf("replica: the log starts after %d, but only %d is applied", rec.BaseIndex, applied)
	case applied > last:
		return fmt.Errorf("replica: the log ends at %d, but %d is applied", last, applied)
	case !rec.Continues():
		return fmt.Errorf("replica: the log does not continue the checkpoint at %d", applied)
	case rec.HardState.GetCommit() > last:
		return fmt.Errorf("replica: the log ends at %d, but %d was committed", last, rec.HardState.GetCommit())
	}
	return nil
}

// hardState is what raft starts with. The stored commit index may lag behind what was applied, since a commit is
// written without a sync; applied implies committed. The stored term may lag behind the log's only if none was ever
// stored, as in a new cluster whose log starts behind a made checkpoint; no vote was given in that term then.
func (rec Recovered) hardState(applied uint64) *raftpb.HardState {
	term, vote := rec.HardState.GetTerm(), rec.HardState.GetVote()
	lastTerm := rec.BaseTerm
	if n := len(rec.Entries); n > 0 {
		lastTerm = rec.Entries[n-1].GetTerm()
	}
	if term < lastTerm {
		term, vote = lastTerm, 0
	}
	commit := max(rec.HardState.GetCommit(), applied)
	return &raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}
