package server

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
)

// loop owns the replica. Everything that may change it arrives as a value in
// the mailbox; everything it wants done leaves as Work, to the appender, the
// applier, the peers and the waiting reads. A turn takes all that waits and
// hands out what follows from it. It never waits for a disk, a peer or the
// machine, so heartbeats and elections keep their time whatever the load.
//
// One turn runs at a time, on the goroutine of whoever brought something and
// found nobody at it: a handler, a peer's reader, the appender. While a member
// is not busy a request so costs no change of goroutine. The loop's own
// goroutine, run, has the clock, and takes what came during another's turn: so
// nobody works for others for longer than one turn. (The idea is flat combining,
// Hendler et al., SPAA 2010.)
type loop struct {
	inbox    *mailbox[input]
	out      outputs
	tick     time.Duration
	log      *slog.Logger
	patience uint64        // ticks after which a request that is not finished has timed out
	failed   atomic.Int64  // requests whose outcome is not known
	waiting  atomic.Int64  // proposals and reads that entered and have not left
	stop     chan struct{} // closed by close
	done     chan struct{} // closed when run has returned

	slowAfter time.Duration // a write of the log that takes longer is slow; 0 for none
	slow      chan struct{} // capacity 1: the write that is under way is slow

	owner sync.Mutex // protects the fields below: held for a turn
	turns
}

// turns is what the turns of a loop hand to each other.
type turns struct {
	r         *replica.Replica
	closed    bool // no further turn
	spare     []input
	later     *completions // of this turn
	lastTick  time.Time
	ticks     uint64
	waits     deadlines
	suspect   suspicion
	gapMax    uint64 // applyGapMax
	appending int    // appends that the appender has and has not handed back
	applying  int    // applies that the applier has and has not handed back
}

// outputs is where Work goes.
type outputs struct {
	appender *appender
	applier  *applier
	store    *store
	send     func([]*raftpb.Message)
	changed  func(replica.Status) // leader, term or role changed
}

// input is one thing for the replica; one field is set.
type input struct {
	propose  *waiter
	read     *outcome
	message  *raftpb.Message
	appended *replica.Append
	applied  *replica.Apply
	do       func(r *replica.Replica)
}

// waitingMax bounds the requests of one member that wait for the log: beyond
// it a request is refused at once, with nothing done.
const waitingMax = 100_000

// applyGapMax is how many entries may be committed and not applied here before
// new proposals are refused, as in etcd.
const applyGapMax = 5000

// overloaded reports whether this member applies too slowly for more.
func (l *loop) overloaded() bool { return l.r.Behind() > l.gapMax }

// ticksMax bounds how many ticks one turn makes up for. After a stall longer
// than that (a suspended process) the messages that arrived meanwhile must be
// read before time goes on, or the member campaigns against a healthy leader.
const ticksMax = 2

func newLoop(r *replica.Replica, out outputs, tick time.Duration, log *slog.Logger) *loop {
	l := &loop{
		inbox: newMailbox[input](), out: out, tick: tick, log: log,
		stop: make(chan struct{}), done: make(chan struct{}), slow: make(chan struct{}, 1),
	}
	l.r, l.later, l.gapMax = r, new(completions), applyGapMax
	return l
}

// propose hands a proposal to the replica, or refuses it at once. One that is
// not waited for is only left: its caller calls helpIfDue, after more of them.
func (l *loop) propose(w *waiter) error { return l.enter(input{propose: w}, w.to != nil) }

// proposeLater is propose for a caller that holds a lock that a turn needs.
func (l *loop) proposeLater(w *waiter) error {
	err := l.enter(input{propose: w}, true)
	l.inbox.rouse()
	return err
}

// read hands a linearizable read to the replica, or refuses it at once, as
// propose does.
func (l *loop) read(r *outcome) error { return l.enter(input{read: r}, r.to != nil) }

func (l *loop) enter(in input, leave bool) error {
	if l.waiting.Add(1) > waitingMax {
		l.waiting.Add(-1)
		return rpc.ErrTooManyRequests
	}
	l.inbox.add(in)
	if !leave {
		l.help()
	}
	return nil
}

// do runs f on the replica in a later turn. The caller may hold any lock.
func (l *loop) do(f func(r *replica.Replica)) { l.inbox.put(input{do: f}) }

// step hands over what came from a peer at once. It may also write to the log, as
// far as write says, and so wait for the disk. The caller must not hold a lock that
// a turn needs.
func (l *loop) step(messages []*raftpb.Message, write writes) {
	for _, m := range messages {
		l.inbox.add(input{message: m})
	}
	l.takeTurn(write)
}

// appended hands back what is durable.
func (l *loop) appended(work []*replica.Append) {
	for _, a := range work {
		l.inbox.add(input{appended: a})
	}
	l.help()
}

// help takes a turn unless somebody is at it. No input is left behind: one that
// was added while another goroutine had the turn is seen by that goroutine
// after it has let go of owner, because it was added before TryLock failed.
func (l *loop) help() { l.takeTurn(writesNot) }

// writes is what somebody who takes a turn may write to the log himself.
type writes int

const (
	writesNot   writes = iota
	writesLight        // a little: a leader's reader
	writesAll          // a follower's reader
)

func (l *loop) takeTurn(write writes) {
	if !l.owner.TryLock() {
		return
	}
	later := l.turn()
	l.owner.Unlock()
	l.inbox.rouse()
	eager := l.out.appender.eager(write)
	if !eager {
		l.out.appender.nudge()
	}
	later.done()
	if eager {
		l.out.appender.help()
	}
}

// helpIfDue is help for those who only may have brought something.
func (l *loop) helpIfDue() {
	if l.inbox.isDue() {
		l.takeTurn(writesLight)
	}
}

func (l *loop) close() {
	close(l.stop)
	<-l.done
}

func (l *loop) run() {
	defer close(l.done)
	ticker := time.NewTicker(l.tick)
	defer ticker.Stop()
	l.owner.Lock()
	l.lastTick = time.Now()
	l.work()
	l.owner.Unlock()
	l.out.appender.nudge()
	for alert := false; ; {
		var now time.Time
		select {
		case <-l.stop:
			l.owner.Lock()
			l.closed = true
			l.owner.Unlock()
			return
		case <-l.inbox.wake:
		case now = <-ticker.C:
		}
		l.owner.Lock()
		if !now.IsZero() {
			l.advance(now)
			l.lookAtDisk()
			l.suspect.tick(l.r)
		}
		later := l.turn()
		if was := alert; was != l.suspect.any() {
			alert = !was
			ticker.Reset(l.period(alert))
		}
		l.owner.Unlock()
		l.inbox.rouse()
		l.out.appender.nudge()
		later.done()
	}
}

// period is the time between two looks at the clock.
func (l *loop) period(alert bool) time.Duration {
	if alert {
		return min(l.tick, suspicionTick)
	}
	return l.tick
}

// turn takes what waits and hands out what follows. The caller holds owner, and
// tells those who are to be told once it has let go of it.
func (l *loop) turn() *completions {
	if l.closed {
		return nil
	}
	inputs := l.inbox.take(l.spare)
	for i := range inputs {
		l.feed(&inputs[i])
	}
	l.spare = inputs
	l.work()
	later := l.later
	if len(later.list) == 0 {
		return nil
	}
	l.later = spareCompletions.Get().(*completions)
	return later
}

// advance gives the replica the ticks that are due.
func (l *loop) advance(now time.Time) {
	due := int(now.Sub(l.lastTick) / l.tick)
	if due > ticksMax {
		l.log.Debug("the loop was stalled", "for", now.Sub(l.lastTick))
		l.lastTick = now
		due = ticksMax
	} else {
		l.lastTick = l.lastTick.Add(time.Duration(due) * l.tick)
	}
	for range due {
		l.r.Tick()
	}
	l.ticks += uint64(due)
	l.waits.sweep(l.ticks, l.timeOut)
}

// timeOut gives up on a request: what became of a write is then not known.
func (l *loop) timeOut(o *outcome) {
	l.failed.Add(1)
	if l.r.Status().Leader == 0 {
		o.finish(nil, rpc.ErrTimeoutLeaderFailed, l.later)
		return
	}
	o.finish(nil, rpc.ErrTimeout, l.later)
}

func (l *loop) feed(in *input) {
	switch {
	case in.propose != nil:
		l.waiting.Add(-1)
		l.waits.add(&in.propose.outcome, l.ticks+l.patience)
		if l.overloaded() || l.r.Propose(&in.propose.proposal) != nil {
			in.propose.finish(nil, rpc.ErrTooManyRequests, l.later)
		}
	case in.read != nil:
		l.waiting.Add(-1)
		l.waits.add(in.read, l.ticks+l.patience)
		if err := l.r.Read(in.read); err != nil {
			in.read.finish(nil, rpc.ErrTooManyRequests, l.later)
		}
	case in.message != nil:
		if err := l.r.Step(in.message); err != nil {
			l.log.Debug("peer's message refused", "type", in.message.GetType(), "from", in.message.GetFrom(), "err", err)
		}
	case in.appended != nil:
		l.appending--
		l.r.Appended(in.appended)
	case in.applied != nil:
		l.applying--
		l.r.Applied(in.applied)
	case in.do != nil:
		in.do(l.r)
	}
}

// work hands out all that the replica wants done. Messages leave before the
// append is even written: a leader may replicate an entry while it syncs its
// own copy (Ongaro's thesis, 10.2.1); what must wait for the sync, raft holds
// back as the append's responses.
func (l *loop) work() {
	for {
		w, ok := l.r.Work()
		if !ok {
			return
		}
		if w.Changed {
			l.out.changed(l.r.Status())
		}
		if len(w.Send) > 0 {
			l.out.send(w.Send)
		}
		if w.Append != nil {
			l.append(w.Append)
		}
		if w.Apply != nil {
			l.apply(w.Apply)
		}
		for _, reads := range w.Reads {
			l.out.store.wake(reads.Index, reads.Values, l.later)
		}
		for _, p := range w.Retry {
			l.retry(p)
		}
		for _, p := range w.Unknown {
			l.failed.Add(1)
			p.Value.(*waiter).finish(nil, rpc.ErrTimeoutLeaderFailed, l.later)
		}
	}
}

// apply applies a now, if that is short and nothing is in front of it, or hands
// it to the applier.
func (l *loop) apply(a *replica.Apply) {
	if l.applying == 0 && l.out.applier.tryNow(a, l.later) {
		l.r.Applied(a)
		return
	}
	l.applying++
	l.out.applier.inbox.put(applyWork{apply: a})
}

// append hands a to the appender. What only tells the log how far it is
// committed does not wake it: that need not be durable, since a member learns it
// again from the leader, so it is written with the next entries. Acknowledging it
// here keeps the order only while nothing is on its way.
func (l *loop) append(a *replica.Append) {
	if l.appending == 0 && !a.Sync && len(a.Entries) == 0 && a.Snapshot == nil {
		l.out.appender.later.Store(a.HardState)
		l.r.Appended(a)
		return
	}
	l.appending++
	l.out.appender.inbox.add(a) // the turn's end sees that it is written
}

// retry proposes again what is known not to be in the log: the term it was
// fenced with has passed. So a change of leader is, to a client of this member,
// one slow request.
func (l *loop) retry(p *replica.Proposal) {
	w := p.Value.(*waiter)
	switch {
	case w.abandoned():
		w.finish(nil, errStale, l.later) // which nobody reads, but it frees what is kept for the call
	case w.once:
		w.finish(nil, errStale, l.later)
	default:
		if err := l.r.Propose(p); err != nil {
			w.finish(nil, rpc.ErrTooManyRequests, l.later)
		}
	}
}
