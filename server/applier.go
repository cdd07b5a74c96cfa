package server

import (
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// applier is the goroutine that applies committed entries to the machine,
// publishes what changed and answers those who wait.
type applier struct {
	inbox *mailbox[applyWork]
	store *store
	// published is told of each batch after it is applied and before anybody
	// is answered: watchers, the leases' clock and the counters follow it.
	published func(b batchInfo)
	// tokens is told what a batch said of them before anybody can find it applied.
	tokens  func([]state.AuthEvent)
	applied func(*replica.Apply)
	fail    func(error)
	took    func(time.Duration) // is told how long each batch took to apply
	stop    chan struct{}
	done    chan struct{}

	// busy is held by whoever applies: run, or a turn of the loop for what is small
	// and finds nobody in front of it. It is taken before the inbox is looked at, so
	// entries are applied in their order whoever does it.
	busy     sync.Mutex
	later    completions // owned by run
	sweeping bool        // protected by busy: a compaction has versions left to remove
	failed   bool        // protected by busy: the member ends, and nothing more is applied

	mu     sync.Mutex // protects waits and sweptTo
	waits  []sweepWait
	swept_ int64 // versions that a compaction up to here removed are gone
}

// applyWork is one thing for the applier: entries to apply, or a function to
// run between two batches, when no entry is half applied.
type applyWork struct {
	apply *replica.Apply
	do    func()
}

// batchInfo is what a batch of entries changed.
type batchInfo struct {
	index, term       uint64
	revision, compact int64
	live, history     int64 // bytes
	bytes             int64 // of the commands
	leaseCount        int
	events            state.History
	alarms            []state.Alarm
	accusations       uint64
	leases            []state.LeaseEvent
	roster            *roster // nil if it is as before
}

// sweepWait is somebody who waits for a compaction's removal of versions.
type sweepWait struct {
	revision int64
	done     chan struct{} // closed when swept
}

// sweepSlice is how many keys one slice of a compaction visits: well under a
// millisecond, so that a put is not held up.
const sweepSlice = 500

func (a *applier) run() {
	defer close(a.done)
	var spare []applyWork
	for {
		sweeping, ok := a.turn(&spare)
		if !ok {
			return
		}
		if sweeping { // go on at once, but let go of busy in between
			select {
			case <-a.stop:
				return
			default:
				continue
			}
		}
		select {
		case <-a.stop:
			return
		case <-a.inbox.wake:
		}
	}
}

// turn applies what waits and removes one slice of what a compaction left.
func (a *applier) turn(spare *[]applyWork) (sweeping, ok bool) {
	a.busy.Lock()
	defer a.busy.Unlock()
	if a.failed {
		return false, false
	}
	work := a.inbox.take(*spare)
	for i := range work {
		if work[i].do != nil {
			work[i].do()
			continue
		}
		if err := a.apply(work[i].apply); err != nil {
			a.failed = true
			a.fail(fmt.Errorf("apply: %w", err))
			return false, false
		}
	}
	*spare = work
	if a.sweeping {
		a.sweep()
	}
	return a.sweeping, true
}

// tryNow applies w on the caller's goroutine if that is sure to be short and
// nobody is in front of it, which spares a member that is not busy two changes
// of goroutine a write. It never waits.
func (a *applier) tryNow(w *replica.Apply, later *completions) bool {
	if !few(w) || !a.busy.TryLock() {
		return false
	}
	defer a.busy.Unlock()
	if a.sweeping || a.failed || !a.inbox.empty() {
		return false
	}
	commands, err := decode(w)
	if err == nil {
		if !a.short(commands) {
			return false
		}
		err = a.applyDecoded(w, commands, later)
	}
	if err != nil {
		a.failed = true
		a.fail(fmt.Errorf("apply: %w", err))
		return false
	}
	if a.sweeping {
		a.inbox.put(applyWork{do: func() {}}) // wakes run
	}
	return true
}

// shortCommands is how many commands the loop may apply itself: some tens of
// microseconds.
const shortCommands = 32

// few reports whether w has few commands, and some: an election's empty entry
// may start the leases' clock, which takes long.
func few(w *replica.Apply) bool {
	n := 0
	for i := range w.Entries {
		n += len(w.Entries[i].Commands)
		if n > shortCommands || len(w.Entries[i].Commands) == 0 {
			return false
		}
	}
	return true
}

// shortKeys is how many keys the ranges of the commands that the loop applies
// itself may have in all.
const shortKeys = 128

// short reports whether applying the commands is sure to take little time: each
// touches single keys, or reads a range that has few. Any other may visit every
// key there is. The caller holds busy.
func (a *applier) short(entries [][]state.Command) bool {
	keys := shortKeys
	for _, commands := range entries {
		for _, c := range commands {
			switch r := c.Request.(type) {
			case *pb.PutRequest, *pb.LeaseGrantRequest:
			case *pb.DeleteRangeRequest:
				if len(r.GetRangeEnd()) > 0 {
					return false
				}
			case *pb.TxnRequest:
				if !a.shortTxn(r, &keys) {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}

// shortTxn takes the keys of r's ranges off those that are allowed.
func (a *applier) shortTxn(r *pb.TxnRequest, keys *int) bool {
	if len(r.GetCompare())+len(r.GetSuccess())+len(r.GetFailure()) > shortCommands {
		return false
	}
	for _, c := range r.GetCompare() {
		if len(c.GetRangeEnd()) > 0 {
			return false
		}
	}
	for _, branch := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			if len(op.GetRequestDeleteRange().GetRangeEnd()) > 0 || op.GetRequestTxn() != nil || !a.shortRange(op.GetRequestRange(), keys) {
				return false
			}
		}
	}
	return true
}

// shortRange takes the keys of r, which may be nil, off those that are allowed. What
// is read of the past may be on the disk.
func (a *applier) shortRange(r *pb.RangeRequest, keys *int) bool {
	if r.GetRevision() > 0 {
		return false
	}
	if len(r.GetRangeEnd()) > 0 {
		a.store.with(func(m *state.Machine) { *keys -= m.CountTo(*keys, r.GetKey(), r.GetRangeEnd()) })
	}
	return *keys > 0
}

// answer is one finished proposal.
type answer struct {
	to       *waiter
	response proto.Message
	err      error
}

func (a *applier) apply(w *replica.Apply) error {
	commands, err := decode(w)
	if err != nil {
		return err
	}
	if err := a.applyDecoded(w, commands, &a.later); err != nil {
		return err
	}
	a.applied(w)
	a.later.tell()
	return nil
}

func (a *applier) applyDecoded(w *replica.Apply, commands [][]state.Command, later *completions) error {
	var answers []answer
	var info batchInfo
	s := a.store
	began := time.Now()
	s.mu.Lock()
	m := s.machine
	for i := range w.Entries {
		e := &w.Entries[i]
		results := m.Apply(e.Index, e.Term, commands[i])
		for _, c := range e.Commands {
			info.bytes += int64(len(c))
		}
		if e.ConfChange != nil {
			e.Refused = e.Refused || results[0].Err != nil
		}
		for k := range e.Proposals {
			if errors.Is(results[k].Err, state.ErrArchive) {
				s.mu.Unlock()
				return results[k].Err
			}
			answers = append(answers, answer{
				e.Proposals[k].Value.(*waiter), results[k].Response, results[k].Err,
			})
		}
	}
	info.index, info.term = m.Applied()
	info.revision, info.compact = m.Revision(), m.CompactRevision()
	size := m.Size()
	info.live, info.history, info.leaseCount = size.Live, size.History, m.LeaseCount()
	info.events = m.History()
	info.leases = m.TakeLeaseEvents()
	if changesRoster(commands) {
		info.roster = rosterOf(m)
	}
	a.tokens(m.TakeAuthEvents())
	info.alarms, info.accusations = m.Alarms(), m.Accusations()
	s.advanced(info.index)
	s.mu.Unlock()
	a.took(time.Since(began))

	a.published(info)
	s.release(later)
	for _, ans := range answers {
		ans.to.finish(ans.response, ans.err, later)
	}
	a.startSweep(info.compact)
	return nil
}

// decode returns the commands of each entry. A member that proposed a command
// has it decoded already; it is the same command, so the outcome is the same
// everywhere.
func decode(w *replica.Apply) ([][]state.Command, error) {
	entries := make([][]state.Command, len(w.Entries))
	for i := range w.Entries {
		e := &w.Entries[i]
		commands := make([]state.Command, len(e.Commands))
		for k, data := range e.Commands {
			if e.Proposals != nil {
				commands[k] = e.Proposals[k].Value.(*waiter).command
				continue
			}
			c, err := state.DecodeCommand(data)
			if err != nil {
				return nil, fmt.Errorf("entry %d, command %d: %w", e.Index, k, err)
			}
			commands[k] = c
		}
		entries[i] = commands
	}
	return entries, nil
}

// startSweep notes that a compaction has versions to remove.
func (a *applier) startSweep(compact int64) {
	a.mu.Lock()
	behind := a.swept_ < compact
	a.mu.Unlock()
	a.sweeping = a.sweeping || behind
}

// sweep removes one slice of what the last compaction left behind. It runs
// between batches, on the goroutine that applies, so it needs no more locking
// than a batch and a put waits for one slice at most.
func (a *applier) sweep() {
	var more bool
	var compact int64
	a.store.with(func(m *state.Machine) {
		more = m.Sweep(sweepSlice)
		compact = m.CompactRevision()
	})
	if more {
		return
	}
	a.sweeping = false
	a.mu.Lock()
	defer a.mu.Unlock()
	a.swept_ = compact
	rest := a.waits[:0]
	for _, w := range a.waits {
		if w.revision <= compact {
			close(w.done)
		} else {
			rest = append(rest, w)
		}
	}
	a.waits = rest
}

// sweepWaitsMax bounds those who wait for a physical compaction.
const sweepWaitsMax = 1000

var errTooManySweepWaits = fmt.Errorf("%w: %d wait for a physical compaction", rpc.ErrTooManyRequests, sweepWaitsMax)

// swept returns a channel that is closed once the versions that a compaction
// at revision removes are gone from memory.
func (a *applier) swept(revision int64) (<-chan struct{}, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := sweepWait{revision, make(chan struct{})}
	if a.swept_ >= revision {
		close(w.done)
		return w.done, nil
	}
	if len(a.waits) >= sweepWaitsMax {
		return nil, errTooManySweepWaits
	}
	a.waits = append(a.waits, w)
	return w.done, nil
}
