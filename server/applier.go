package server

import (
	"fmt"
	"sync"

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
	applied   func(*replica.Apply)
	fail      func(error)
	stop      chan struct{}
	done      chan struct{}

	sweeping bool // owned by run: a compaction has versions left to remove

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
	events            state.History
	leases            []state.LeaseEvent
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
		if !a.sweeping {
			select {
			case <-a.stop:
				return
			case <-a.inbox.wake:
			}
		} else {
			select {
			case <-a.stop:
				return
			case <-a.inbox.wake:
			default:
				a.sweep()
				continue
			}
		}
		work := a.inbox.take(spare)
		for i := range work {
			if work[i].do != nil {
				work[i].do()
				continue
			}
			if err := a.apply(work[i].apply); err != nil {
				a.fail(fmt.Errorf("apply: %w", err))
				return
			}
		}
		spare = work
		if a.sweeping {
			a.sweep()
		}
	}
}

// answer is one finished proposal.
type answer struct {
	to       *waiter
	response proto.Message
	err      error
}

func (a *applier) apply(w *replica.Apply) error {
	var answers []answer
	var info batchInfo
	s := a.store
	s.mu.Lock()
	m := s.machine
	for i := range w.Entries {
		var err error
		answers, err = applyEntry(m, &w.Entries[i], answers)
		if err != nil {
			s.mu.Unlock()
			return err
		}
	}
	info.index, info.term = m.Applied()
	info.revision, info.compact = m.Revision(), m.CompactRevision()
	size := m.Size()
	info.live, info.history = size.Live, size.History
	info.events = m.History()
	info.leases = m.TakeLeaseEvents()
	s.advanced(info.index)
	s.mu.Unlock()

	a.published(info)
	s.release()
	for _, ans := range answers {
		ans.to.finish(ans.response, ans.err)
	}
	a.applied(w)
	a.startSweep(info.compact)
	return nil
}

// applyEntry applies one entry and adds the answers of those who wait for it
// on this member. A member that proposed a command has it decoded already; it
// is the same command, so the outcome is the same everywhere.
func applyEntry(m *state.Machine, e *replica.Entry, answers []answer) ([]answer, error) {
	commands := make([]state.Command, len(e.Commands))
	for i, data := range e.Commands {
		if e.Proposals != nil {
			commands[i] = e.Proposals[i].Value.(*waiter).command
			continue
		}
		c, err := state.DecodeCommand(data)
		if err != nil {
			return nil, fmt.Errorf("entry %d, command %d: %w", e.Index, i, err)
		}
		commands[i] = c
	}
	results := m.Apply(e.Index, e.Term, commands)
	for i := range e.Proposals {
		answers = append(answers, answer{
			e.Proposals[i].Value.(*waiter), results[i].Response, results[i].Err,
		})
	}
	return answers, nil
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
