package shard

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
)

// sim is a fleet over a store, in one thread: what happens next is drawn from a
// seed. Requests and answers are lost, come late or twice; workers die, or live
// on after their session; tokens are stolen; history is compacted.
type sim struct {
	*store
	r      *rand.Rand
	now    int64
	faults float64
	limits Limits
	plant  Fault
	shards []int // in use
	old    []int // that were, and may have items

	net     []*packet
	shares  bool     // workers share transactions
	parcels []parcel // that wait for that
	writers []*simWriter
	workers []*simWorker
	born    int // workers so far

	fates
	seen   counts
	broken string
	trace  func(format string, args ...any) // of a replay
}

// fates are what is known of jobs, by their names.
type fates struct {
	want   map[string]bool // whose writer was told that they are in
	due    map[string]int64
	runs   map[string]int
	ended  map[string]int  // by a plain end that was confirmed
	killed map[string]int  // workers that died while they ran it
	dead   map[string]bool // that was redriven
}

// counts are what happened in a run, so that a quiet one can be told.
type counts struct {
	Lost, Late, Twice, Crashes, Zombies, Steals, Retries, Redriven, Compactions, Drains, Reshards, Txs, Shared int
}

// packet is a request on its way.
type packet struct {
	txn     Txn
	done    func(*Answer) // nil once nobody waits for it
	again   func()        // the sender's clock has run out
	answer  *Answer
	applied bool
}

func newSim(seed int64, plant Fault) *sim {
	x := &sim{
		store: newStore(), r: rand.New(rand.NewSource(seed)), faults: 0.08, plant: plant, now: 1_000,
		limits: Limits{Lanes: 2, Crashes: 4, Group: 1, Planted: plant}, shards: []int{0, 1, 2},
		fates: fates{
			want: make(map[string]bool), due: make(map[string]int64), runs: make(map[string]int),
			ended: make(map[string]int), killed: make(map[string]int), dead: make(map[string]bool),
		},
	}
	x.shares = seed%2 == 0
	if seed%3 == 0 {
		x.limits.Weights = []int{3, 1}
	}
	x.configure()
	for i := range 3 {
		x.writers = append(x.writers, &simWriter{sim: x, left: 14, seed: 1, tag: uint32(i + 1)})
		x.workers = append(x.workers, x.boot())
	}
	return x
}

// configure writes the configuration: which shards are in use, with marks.
func (x *sim) configure() {
	t := Txn{Then: []Op{put(ConfigKey, []byte(fmt.Sprint(x.shards)))}}
	for _, n := range x.shards {
		for lane := range x.limits.Lanes {
			mark := MarkKey(n, lane)
			t.Then = append(t.Then, nest(Txn{If: []Compare{missing(mark)}, Then: []Op{put(mark, []byte(Bound(0)))}}))
		}
	}
	x.txn(t)
}

func (x *sim) fail(format string, args ...any) {
	if x.broken == "" {
		x.broken = fmt.Sprintf(format, args...)
	}
}

// send puts a request on its way; it is sent again until it is answered.
func (x *sim) send(t Txn, again *bool, done func(*Answer)) {
	p := &packet{txn: t, done: done}
	p.again = func() {
		if again != nil {
			*again = true
		}
		x.send(t, again, done)
	}
	x.net = append(x.net, p)
}

// step of the network: a random packet gets on, or is lost, late or doubled.
func (x *sim) deliver() {
	if len(x.net) == 0 {
		return
	}
	i := x.r.Intn(len(x.net))
	p := x.net[i]
	remove := func() {
		x.net[i] = x.net[len(x.net)-1]
		x.net = x.net[:len(x.net)-1]
	}
	roll := x.r.Float64()
	switch {
	case !p.applied && roll < x.faults:
		x.seen.Lost++
		remove()
		if p.done != nil {
			p.again()
		}
	case p.done != nil && roll < 2*x.faults: // the sender gives up: it may be executed late, or was
		x.seen.Late++
		p.done = nil
		if p.applied {
			remove()
		}
		p.again()
	case !p.applied:
		p.answer, p.applied = x.txn(p.txn), true
		if x.trace != nil && writes(p.txn) {
			x.trace("rev %d ok=%v %s", p.answer.Revision, p.answer.Succeeded, p.txn.describe())
		}
		if roll > 1-x.faults/4 && writes(p.txn) { // executed once more, much later
			x.seen.Twice++
			x.net = append(x.net, &packet{txn: p.txn, again: func() {}})
		}
		if p.done == nil {
			x.drop(p)
		}
	default:
		remove()
		p.done(p.answer)
	}
}

func (x *sim) drop(p *packet) {
	x.net = slices.DeleteFunc(x.net, func(q *packet) bool { return q == p })
}

// describe tells what a transaction writes, for a trace.
func (t Txn) describe() string {
	var b strings.Builder
	for _, c := range t.If {
		fmt.Fprintf(&b, "[%s %d %v %d %s] ", c.Key, c.Field, c.Less, c.Rev, c.Value)
	}
	for _, op := range t.Then {
		switch {
		case op.Kind == Put && strings.HasPrefix(op.Key, ClaimPrefix):
			entries, _ := DecodeJournal(op.Value)
			fmt.Fprintf(&b, "journal %s:", op.Key)
			for _, e := range entries {
				fmt.Fprintf(&b, " %s@%d f%d c%d p%v %s %x;", e.Key, e.Create, e.Failures, e.Crashes, e.Parked, e.Group, e.Done)
			}
		case op.Kind == Put:
			fmt.Fprintf(&b, "put %s; ", op.Key)
		case op.Kind == Delete:
			fmt.Fprintf(&b, "del %s; ", op.Key)
		case op.Kind == Nest:
			fmt.Fprintf(&b, "(%s) ", op.Txn.describe())
		}
	}
	return b.String()
}

func writes(t Txn) bool {
	return slices.ContainsFunc(t.Then, func(op Op) bool { return op.Kind != Get })
}

// ---- writers
