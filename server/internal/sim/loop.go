package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// packKeys is how many keys a step of packing looks at: few, so that a pass is many steps.
const packKeys = 7

// pump does what the loop goroutine does after each input.
func (n *node) pump() {
	for n.up {
		w, ok := n.rep.Work()
		if !ok {
			return
		}
		if w.Changed {
			n.changed()
		}
		if w.Append != nil {
			n.appendQueue = append(n.appendQueue, w.Append)
			n.appendNext()
		}
		if w.Apply != nil {
			n.applyQueue = append(n.applyQueue, w.Apply)
			n.applyNext()
		}
		for _, m := range w.Send {
			n.s.net.send(n, m)
		}
		for _, reads := range w.Reads {
			for _, v := range reads.Values {
				n.confirm(reads.Index, v)
			}
		}
		n.serveReads()
		for _, p := range w.Retry {
			n.retry(p.Value.(*request))
		}
		for _, p := range w.Unknown {
			p.Value.(*request).done(unknown, nil)
		}
	}
}

func (n *node) changed() {
	st := n.rep.Status()
	if st.Role == replica.Leader && (n.role != replica.Leader || n.term != st.Term) {
		n.s.truth.elected(n, st)
	}
	n.term, n.role, n.lead = st.Term, st.Role, st.Leader
	n.leadershipChanged()
}

func (n *node) appendNext() {
	if len(n.appending) > 0 || len(n.appendQueue) == 0 {
		return
	}
	n.appending, n.appendQueue = n.appendQueue, nil
	takes := 5 * time.Microsecond
	for _, a := range n.appending {
		if a.Sync {
			takes = min(n.slow*(n.s.Sync/4+n.s.around(n.s.Sync)), maxSync)
		}
	}
	n.early = n.s.Mutant.is(EarlyAppended) && !hasSnapshot(n.appending)
	if n.early {
		n.appended()
	}
	n.s.afterOn(n, takes, n.appendDone)
}

func (n *node) appendDone() {
	if n.failSync {
		n.disk.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpSync {
				n.s.counts.SyncFailures++
				return errSync
			}
			return nil
		})
	}
	err := n.write(n.appending)
	n.disk.SetFault(nil)
	if err != nil {
		n.stopped()
		return
	}
	if !n.early {
		n.appended()
	}
	n.appending = nil
	n.appendNext()
	n.pump()
}

// appended tells the replica that what was being written is durable.
func (n *node) appended() {
	for _, a := range n.appending {
		if a.Snapshot != nil {
			n.installed()
		}
		n.rep.Appended(a)
	}
}

// installed replaces the machine after its checkpoint was.
func (n *node) installed() {
	n.s.counts.Snapshots++
	var err error
	if n.mach, err = n.store.load(n.machineConfig()); err != nil {
		n.s.violate("state", "member %d can not load an installed checkpoint: %v", n.id, err)
	}
	n.s.truth.compareDigest(n)
	n.wake()
}

func (n *node) applyNext() {
	if n.applying || len(n.applyQueue) == 0 {
		return
	}
	n.applying = true
	n.s.afterOn(n, min(n.late*n.s.around(30*time.Microsecond*time.Duration(len(n.applyQueue[0].Entries))), maxSync), n.applyDone)
}

func (n *node) applyDone() {
	a := n.applyQueue[0]
	n.applyQueue = n.applyQueue[1:]
	n.applying = false
	for i := range a.Entries {
		n.apply(&a.Entries[i])
	}
	n.rep.Applied(a)
	n.checkConfiguration(a.Entries[len(a.Entries)-1].Index)
	if n.mach.Sweep(16) {
		n.s.note("sweep", n.id)
	}
	n.wake()
	n.applyNext()
	n.pump()
}

// apply applies an entry, unless an installed checkpoint has it.
func (n *node) apply(e *replica.Entry) {
	if e.Index <= n.index() {
		for _, p := range e.Proposals {
			p.Value.(*request).done(unknown, nil)
		}
		return
	}
	if e.Index != n.index()+1 {
		n.s.violate("log", "member %d applies entry %d after %d", n.id, e.Index, n.index())
	}
	commands := make([]state.Command, len(e.Commands))
	for i, data := range e.Commands {
		var err error
		if commands[i], err = state.DecodeCommand(data); err != nil {
			n.s.violate("log", "member %d can not decode entry %d: %v", n.id, e.Index, err)
		}
	}
	n.s.truth.applying(n, *e, commands)
	results := n.mach.Apply(e.Index, e.Term, commands)
	if e.ConfChange != nil {
		e.Refused = e.Refused || results[0].Err != nil && !n.s.Mutant.is(CarriedOut)
	}
	n.s.truth.applied(n, *e)
	if _, removed := slices.BinarySearch(n.mach.RemovedMembers(), n.id); removed {
		n.leave()
	}
	for i, p := range e.Proposals {
		p.Value.(*request).done(applied, &results[i])
	}
}

// wake tells all who wait for something to be applied.
func (n *node) wake() {
	n.followLeases()
	n.serveReads()
	for _, w := range n.s.watchers {
		if w.node == n {
			w.wake()
		}
	}
}

// propose puts a command into the log. done is called at most once: not at all if the node dies.
func (n *node) propose(data []byte, term uint64, done func(outcome, *state.Result)) {
	r := &request{data: data, term: term, done: done}
	r.proposal = &replica.Proposal{Data: data, Value: r, Term: term}
	if n.s.Mutant.is(AckEarly) && term == 0 {
		early := r.done
		early(applied, nil)
		r.done = func(outcome, *state.Result) {}
	}
	if n.rep.Propose(r.proposal) != nil {
		r.done(notApplied, nil)
		return
	}
	n.pump()
}

// retry proposes again what did not happen, a few times.
func (n *node) retry(r *request) {
	n.s.counts.Retried++
	r.tries++
	if n.s.Mutant.is(ExpireUnfenced) {
		r.term, r.proposal.Term = 0, 0
	}
	if r.term != 0 || r.tries > 3 || n.rep.Propose(r.proposal) != nil {
		r.done(notApplied, nil)
	}
}

// read asks for a linearizable read. serve is not called if the node dies.
func (n *node) read(serve func(*reading)) {
	r := &reading{floor: n.s.truth.index(), serve: serve}
	if n.s.Mutant.is(UnconfirmedReads) {
		n.serve(confirmed{r: r})
		return
	}
	if n.rep.Read(r) == nil {
		n.pump()
	}
}

func (n *node) confirm(index uint64, v any) {
	switch v := v.(type) {
	case *reading:
		n.reads = append(n.reads, confirmed{index, v})
	case *renewal:
		n.renewed(v)
	}
}

func (n *node) serveReads() {
	for i := 0; i < len(n.reads); i++ {
		if c := n.reads[i]; c.index <= n.index() {
			n.reads = append(n.reads[:i], n.reads[i+1:]...)
			i--
			n.serve(c)
		}
	}
}

func (n *node) serve(c confirmed) {
	c.r.view = n.mach.View()
	if at := c.r.view.AppliedIndex(); at < c.r.floor || c.index != 0 && c.index < c.r.floor {
		n.s.violate("read", "member %d answers a read at index %d, confirmed at %d, that began after %d was applied",
			n.id, at, c.index, c.r.floor)
	}
	n.s.counts.Reads++
	c.r.serve(c.r)
}

func (n *node) saveLater() {
	n.s.afterOn(n, n.s.Checkpoints/2+n.s.around(n.s.Checkpoints), func() {
		n.saveLater()
		n.save()
	})
}

// save makes a checkpoint of what changed, as the checkpoint goroutine does: the changes are taken at once, durable
// later, and worth nothing if a received checkpoint was installed in between.
func (n *node) save() {
	if n.saving {
		return
	}
	ch := n.mach.TakeChanges()
	if ch.Empty() {
		return
	}
	n.saving = true
	installs := n.installs
	n.s.afterOn(n, n.s.around(n.s.SaveTime), func() {
		n.saving = false
		if n.installs != installs {
			return
		}
		n.s.Mutant.save(n, &ch)
		if ch.Index < n.store.index {
			n.s.violate("state", "member %d saves index %d over %d", n.id, ch.Index, n.store.index)
		}
		n.store = n.store.save(ch)
		n.s.counts.Checkpoints++
		n.s.note("checkpoint", n.id, ch.Index, uint64(len(n.store.rows)))
		n.rep.Checkpointed(replica.Snapshot{Index: ch.Index, Term: ch.Term, ConfState: n.store.conf})
		n.mach.Archived(ch.Revision)
		if n.packed == "" {
			n.mach.Shrink()
		}
		n.packed = n.mach.Pack(n.packed, packKeys)
		if err := n.wal.Release(ch.Index); err != nil {
			panic(fmt.Sprintf("release: %v", err))
		}
		n.pump()
	})
}

func hasSnapshot(appends []*replica.Append) bool {
	return slices.ContainsFunc(appends, func(a *replica.Append) bool { return a.Snapshot != nil })
}
