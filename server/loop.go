package server

import (
	"log/slog"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
)

// loop is the goroutine that owns the replica. Everything that may change it
// arrives as a value in the mailbox; everything it wants done leaves as Work,
// to the appender, the applier, the peers and the waiting reads. It never
// waits for a disk, a peer or the machine, so heartbeats and elections keep
// their time whatever the load.
type loop struct {
	r        *replica.Replica
	inbox    *mailbox[input]
	out      outputs
	tick     time.Duration
	log      *slog.Logger
	waiting  atomic.Int64  // proposals and reads that entered and have not left
	stop     chan struct{} // closed by close
	done     chan struct{} // closed when run has returned
	lastTick time.Time
	suspect  suspicion
	// appending counts the appends that the appender has and has not handed back.
	appending int
	waits     deadlines
	ticks     uint64
	patience  uint64 // ticks after which a request that is not finished has timed out
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

// ticksMax bounds how many ticks one turn makes up for. After a stall longer
// than that (a suspended process) the messages that arrived meanwhile must be
// read before time goes on, or the member campaigns against a healthy leader.
const ticksMax = 2

func newLoop(r *replica.Replica, out outputs, tick time.Duration, log *slog.Logger) *loop {
	return &loop{
		r: r, inbox: newMailbox[input](), out: out, tick: tick, log: log,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// propose hands a proposal to the replica, or refuses it at once.
func (l *loop) propose(w *waiter) error {
	if l.waiting.Add(1) > waitingMax {
		l.waiting.Add(-1)
		return rpc.ErrTooManyRequests
	}
	l.inbox.put(input{propose: w})
	return nil
}

// read hands a linearizable read to the replica, or refuses it at once.
func (l *loop) read(r *outcome) error {
	if l.waiting.Add(1) > waitingMax {
		l.waiting.Add(-1)
		return rpc.ErrTooManyRequests
	}
	l.inbox.put(input{read: r})
	return nil
}

// do runs f on the loop's goroutine.
func (l *loop) do(f func(r *replica.Replica)) { l.inbox.put(input{do: f}) }

// step hands over a peer's message.
func (l *loop) step(m *raftpb.Message) { l.inbox.put(input{message: m}) }

func (l *loop) close() {
	close(l.stop)
	<-l.done
}

func (l *loop) run() {
	defer close(l.done)
	ticker := time.NewTicker(l.tick)
	defer ticker.Stop()
	l.lastTick = time.Now()
	var spare []input
	l.work()
	for {
		select {
		case <-l.stop:
			return
		case <-l.inbox.wake:
		case now := <-ticker.C:
			l.advance(now)
		}
		inputs := l.inbox.take(spare)
		for i := range inputs {
			l.feed(&inputs[i])
		}
		spare = inputs
		l.work()
	}
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
		l.suspect.tick(l.r)
	}
	l.ticks += uint64(due)
	l.waits.sweep(l.ticks, l.timeOut)
}

// timeOut gives up on a request: what became of a write is then not known.
func (l *loop) timeOut(o *outcome) {
	if l.r.Status().Leader == 0 {
		o.finish(nil, rpc.ErrTimeoutLeaderFailed)
		return
	}
	o.finish(nil, rpc.ErrTimeout)
}

func (l *loop) feed(in *input) {
	switch {
	case in.propose != nil:
		l.waiting.Add(-1)
		l.waits.add(&in.propose.outcome, l.ticks+l.patience)
		if err := l.r.Propose(&in.propose.proposal); err != nil {
			in.propose.finish(nil, rpc.ErrTooManyRequests)
		}
	case in.read != nil:
		l.waiting.Add(-1)
		l.waits.add(in.read, l.ticks+l.patience)
		if err := l.r.Read(in.read); err != nil {
			in.read.finish(nil, rpc.ErrTooManyRequests)
		}
	case in.message != nil:
		if err := l.r.Step(in.message); err != nil {
			l.log.Debug("peer's message refused", "type", in.message.GetType(), "from", in.message.GetFrom(), "err", err)
		}
	case in.appended != nil:
		l.appending--
		l.r.Appended(in.appended)
	case in.applied != nil:
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
		if w.Apply != nil && !l.out.applier.tryNow(w.Apply) {
			l.out.applier.inbox.put(applyWork{apply: w.Apply})
		}
		for _, reads := range w.Reads {
			l.out.store.wake(reads.Index, reads.Values)
		}
		for _, p := range w.Retry {
			l.retry(p)
		}
		for _, p := range w.Unknown {
			p.Value.(*waiter).finish(nil, rpc.ErrTimeoutLeaderFailed)
		}
	}
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
	l.out.appender.inbox.put(a)
}

// retry proposes again what is known not to be in the log: the term it was
// fenced with has passed. So a change of leader is, to a client of this member,
// one slow request.
func (l *loop) retry(p *replica.Proposal) {
	w := p.Value.(*waiter)
	switch {
	case w.gone.Load():
	case w.once:
		w.finish(nil, errStale)
	default:
		if err := l.r.Propose(p); err != nil {
			w.finish(nil, rpc.ErrTooManyRequests)
		}
	}
}
