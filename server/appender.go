package server

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// errStale answers a leader's own decision that a new term has overtaken.
var errStale = errors.New("decided in a term that has passed")

// appender writes the log. All that waits in its mailbox becomes one batch, one
// write and one sync: group commit without a timer. Its goroutine does it, or a
// peer's reader that has nothing else to do: see help.
type appender struct {
	inbox *mailbox[*replica.Append]
	log   *wal.Log
	// install puts a received checkpoint in place of the member's state and
	// returns when it is durable.
	install func(s *raftpb.Snapshot) error
	// synced hands what is durable back to the loop.
	synced func([]*replica.Append)
	fail   func(error)
	stop   chan struct{}
	done   chan struct{}

	// busy is held by whoever writes. It is taken before the inbox is looked at,
	// so the log is written in order whoever does it.
	busy   sync.Mutex
	spare  []*replica.Append // protected by busy
	failed bool              // protected by busy: the member ends, and nothing more is written

	// release is the index up to which the log may be cut, set by the keeper.
	release  atomic.Uint64
	released uint64 // protected by busy
	disk     diskWatch
	// later is a hard state that is to be written with the next batch.
	later atomic.Pointer[raftpb.HardState]
}

func (a *appender) run() {
	defer close(a.done)
	for {
		select {
		case <-a.stop:
			return
		case <-a.inbox.wake:
		}
		a.busy.Lock()
		a.turn()
		a.busy.Unlock()
		a.inbox.rouse() // for what was added and not announced: see nudge
	}
}

// help writes what waits on the caller's goroutine, unless somebody is at it. It
// is for a reader that has read all there is: what comes while it waits for the
// disk is read afterwards, as the next batch, and the sender is a change of
// goroutine nearer to its answer. Nobody may call it whom a disk must not hold up
// that has become slow a moment ago.
func (a *appender) help() {
	if a.busy.TryLock() {
		a.turn()
		a.busy.Unlock()
		a.inbox.rouse()
	}
}

// nudge has what waits written by the appender's goroutine. Whoever is writing looks
// again afterwards, so that nobody needs to be woken for that now: all who hold
// busy rouse once they have let go of it, and what waits was added before.
func (a *appender) nudge() {
	if a.busy.TryLock() {
		a.busy.Unlock()
		a.inbox.rouse()
	}
}

// eager tells who brought work that he may write it himself: the disk is not slow,
// and if a leader's other business would wait, then for a moment only.
func (a *appender) eager(w writes) bool {
	return w != writesNot && a.disk.quick() && (w == writesAll || a.inbox.only(light))
}

// lightBytes is how large entries may be that are written by a leader's reader.
const lightBytes = 4 << 10

// light tells what is written in little more time than nothing.
func light(w *replica.Append) bool {
	n := 0
	for _, e := range w.Entries {
		n += len(e.GetData())
	}
	return n <= lightBytes && w.Snapshot == nil
}

// turn writes what waits. The caller holds busy.
func (a *appender) turn() {
	work := a.inbox.take(a.spare)
	a.spare = work
	if len(work) == 0 || a.failed {
		return
	}
	if err := a.append(work); err != nil {
		// Nothing of this batch is acknowledged, now or later: after a failed
		// sync the kernel may have dropped the pages and marked them clean, so
		// a second sync that succeeds would prove nothing.
		a.failed = true
		a.fail(fmt.Errorf("write-ahead log: %w", err))
		return
	}
	if err := a.cut(); err != nil {
		a.failed = true
		a.fail(fmt.Errorf("cut write-ahead log: %w", err))
	}
}

// cut lets go of segments that a durable checkpoint covers.
func (a *appender) cut() error {
	index := a.release.Load()
	if index == a.released {
		return nil
	}
	a.released = index
	return a.log.Release(index)
}

// append makes work durable, in order, and reports it. A snapshot divides the
// batch: what stands before it must be in the log before the log restarts
// behind it.
func (a *appender) append(work []*replica.Append) error {
	for len(work) > 0 {
		n := 0
		for n < len(work) && work[n].Snapshot == nil {
			n++
		}
		if n > 0 {
			if err := a.appendGroup(work[:n]); err != nil {
				return err
			}
			work = work[n:]
			continue
		}
		if err := a.appendSnapshot(work[0]); err != nil {
			return err
		}
		work = work[1:]
	}
	return nil
}

// appendGroup writes several appends as one batch. Later entries replace
// earlier ones of the same index, as in the log itself, and the last hard
// state stands for all: it is the newest.
func (a *appender) appendGroup(work []*replica.Append) error {
	b := wal.Batch{HardState: a.later.Swap(nil)} // older than any in work
	sync := false
	for _, w := range work {
		b.Entries = joinEntries(b.Entries, w.Entries)
		if w.HardState != nil {
			b.HardState = w.HardState
		}
		sync = sync || w.Sync
	}
	if len(b.Entries) > 0 || b.HardState != nil {
		if err := a.write(b, sync); err != nil {
			return err
		}
	}
	a.synced(work)
	return nil
}

// appendSnapshot installs a received checkpoint. The order makes every crash
// harmless: until the checkpoint's rename the old state and the old log are
// whole; after it the log is behind the checkpoint, which start-up takes as
// this same reset (see recover).
func (a *appender) appendSnapshot(w *replica.Append) error {
	if err := a.install(w.Snapshot); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	meta := w.Snapshot.GetMetadata()
	if hs := a.later.Swap(nil); w.HardState == nil {
		w.HardState = hs
	}
	b := wal.Batch{
		Reset:     &wal.Base{Index: meta.GetIndex(), Term: meta.GetTerm()},
		Entries:   w.Entries,
		HardState: w.HardState,
	}
	if err := a.write(b, true); err != nil {
		return err
	}
	a.synced([]*replica.Append{w})
	return nil
}

// joinEntries appends next to entries; where they overlap, next replaces the
// tail: a new leader's entries take the place of those that lost.
func joinEntries(entries, next []*raftpb.Entry) []*raftpb.Entry {
	if len(entries) == 0 || len(next) == 0 {
		return append(entries, next...)
	}
	first := entries[0].GetIndex()
	start := next[0].GetIndex()
	if start <= first {
		return append(entries[:0], next...)
	}
	if keep := start - first; keep < uint64(len(entries)) {
		entries = entries[:keep]
	}
	return append(entries, next...)
}
