package sim

import (
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/lease"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// maxSync bounds how long a slow disk takes for a sync, so that what began before everything was healed is over soon.
const maxSync = 400 * time.Millisecond

// node is a member: the packages under test and the glue that the server has between them. The glue's loop, append,
// apply and checkpoint goroutines are events here, so their steps interleave in every order that goroutines could have.
type node struct {
	s    *sim
	id   uint64
	rate float64 // of its clock, for ever

	// Survives everything.
	disk     *disk.Mem
	store    *checkpoint
	readID   []byte                 // of its last read index, for a mutant
	received map[uint64]*checkpoint // transferred and durable, not installed, by index
	installs int
	rot      *rot // nil unless its log was damaged since it ended
	lost     bool // its log is damaged, so it never starts again
	standing

	up          bool
	epoch       int // counts starts and crashes
	pausedUntil time.Duration
	slow        time.Duration // factor on syncs
	late        time.Duration // factor on applies
	failSync    bool          // the next sync fails
	process
}

// process is what is lost when it ends.
type process struct {
	wal  *wal.Log
	rep  *replica.Replica
	mach *state.Machine

	term uint64 // what the last Work told
	role replica.Role
	lead uint64

	appendQueue []*replica.Append
	appending   []*replica.Append
	early       bool // what is being appended was acknowledged already, for a mutant
	applyQueue  []*replica.Apply
	applying    bool
	saving      bool
	packed      string // where packing goes on
	reads       []confirmed
	leases      leases
}

// request is a proposal's waiter.
type request struct {
	data     []byte
	term     uint64
	tries    int
	done     func(outcome, *state.Result)
	proposal *replica.Proposal
}

// outcome is what a request's waiter is told.
type outcome int

const (
	applied outcome = iota
	notApplied
	unknown
)

// reading is a linearizable read under way.
type reading struct {
	floor uint64 // the highest index applied anywhere when it began
	view  *state.View
	serve func(*reading)
}

// confirmed is a read that waits for its index to be applied.
type confirmed struct {
	index uint64
	r     *reading
}

func newNode(s *sim, id uint64) *node {
	rate := 1 + s.ClockSpread*(2*s.rng.Float64()-1)
	return &node{s: s, id: id, rate: rate, slow: 1, late: 1, disk: disk.NewMem(s.rng.Uint64()), received: make(map[uint64]*checkpoint)}
}

// local is the node's clock.
func (n *node) local(t time.Duration) time.Time { return time.Unix(0, int64(float64(t)*n.rate)) }

func (n *node) leads() bool { return n.role == replica.Leader }

func (n *node) index() uint64 {
	index, _ := n.mach.Applied()
	return index
}

// start begins a process on what the storage has.
func (n *node) start() {
	s := n.s
	n.epoch++
	n.up, n.pausedUntil, n.failSync = true, 0, false
	last := n.process
	n.process = process{leases: leases{clock: lease.New()}}
	rec, ok := n.recover()
	if !ok {
		s.note("refused", n.id)
		n.process = last // clients may know what it had
		n.kill()
		return
	}
	var err error
	if n.mach, err = n.store.load(n.machineConfig()); err != nil {
		s.violate("state", "member %d can not load its checkpoint: %v", n.id, err)
	}
	n.rep, err = replica.New(replica.Config{
		ID: n.id, Origin: s.rng.Uint64() | 1, ElectionTicks: electionTicks, HeartbeatTicks: heartbeatTicks,
		Log: rec, Applied: n.store.index, MaxEntryBytes: s.EntryBytes, MaxBatchesInFlight: s.BatchesInFlight,
		MaxLogBytes: s.LogBytes,
	})
	if err != nil {
		s.violate("log", "member %d can not restart: %v", n.id, err)
	}
	s.note("start", n.id, n.store.index, uint64(len(rec.Entries)), rec.HardState.GetTerm())
	s.truth.compareDigest(n)
	n.tickLater()
	n.saveLater()
	n.pump()
}

func (n *node) restart() {
	if n.lost || n.gone {
		return
	}
	if n.s.Mutant.is(Amnesia) && n.s.faulty && n.s.chance(0.5) {
		n.forget()
	}
	n.s.counts.Restarts++
	n.start()
}

// kill ends the process: what was written stays, synced or not.
func (n *node) kill() {
	if !n.up {
		return
	}
	n.up, n.role = false, replica.Follower
	n.epoch++
	clear(n.received)
}

// powerCut ends the process and loses what was not synced, in the middle of a log write if one is under way.
func (n *node) powerCut() {
	if !n.up {
		return
	}
	s := n.s
	s.counts.PowerCuts++
	if len(n.appending) > 0 && s.chance(0.7) {
		s.counts.TornWrites++
		left := s.rng.IntN(4)
		n.disk.SetFault(func(op disk.Op) error {
			if op.Kind != disk.OpWrite && op.Kind != disk.OpSync {
				return nil
			}
			if left--; left < 0 {
				return errCrash
			}
			return nil
		})
		_ = n.write(n.appending)
		n.disk.SetFault(nil)
	}
	n.up, n.role = false, replica.Follower
	n.epoch++
	clear(n.received)
	n.disk.Crash()
}

// stopped ends the process on an I/O error.
func (n *node) stopped() {
	n.s.note("stopped", n.id)
	n.kill()
	n.s.after(n.s.around(n.s.Outage), func() {
		if !n.up {
			n.restart()
		}
	})
}

func (n *node) tickLater() {
	n.s.afterOn(n, time.Duration(float64(tickEvery)/n.rate), func() {
		n.tickLater()
		n.rep.Tick()
		n.expire()
		n.pump()
	})
}

func (n *node) describe() string {
	if !n.up {
		return fmt.Sprintf("member %d down", n.id)
	}
	st := n.rep.Status()
	return fmt.Sprintf("member %d %s term %d leader %d commit %d applied %d last %d pending %d queued %d",
		n.id, st.Role, st.Term, st.Leader, st.Commit, st.Applied, st.LastIndex, st.Pending, st.Queued)
}
