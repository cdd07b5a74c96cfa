package sim

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"
)

// Violation is a broken rule.
type Violation struct {
	Oracle string // see the package comment; "panic" for a panic of the code under test
	Text   string
}

// Error names the oracle and tells what it saw.
func (v *Violation) Error() string { return v.Oracle + ": " + v.Text }

// Report is the outcome of a run.
type Report struct {
	Counts Counts
	Trace  uint64        // equal for equal runs
	Time   time.Duration // virtual
	Err    error         // a *Violation, or nil
}

// sim is one run.
type sim struct {
	Options
	schedule
	seed   uint64
	rng    *rand.Rand
	nodes  []*node
	net    *network
	truth  *truth
	counts Counts
	trace  uint64

	load     bool // clients start operations
	faulty   bool // faults happen
	isolated bool // a leader is, for now
	clients  []*kvClient
	lockers  []*locker
	watchers []*watcher
	keys     []clientKey
	history  []*operation
	values   int // distinct values written
}

// Run runs one cluster. It is deterministic as long as crypto/rand is; see the package comment.
func Run(seed uint64, o Options) (r Report) {
	s := &sim{Options: o, seed: seed, rng: newRand(seed), load: true, faulty: true}
	defer func() {
		switch p := recover().(type) {
		case nil:
		case *Violation:
			r.Err = p
		default:
			r.Err = &Violation{Oracle: "panic", Text: fmt.Sprintf("%v\n%s", p, debug.Stack())}
		}
		s.counts.Runs = 1
		r.Counts, r.Trace, r.Time = s.counts, s.trace, s.now
	}()
	s.boot()
	s.startClients()
	s.startFaults()
	s.runUntil(o.Active)
	s.heal()
	s.checkLiveness()
	s.drain()
	s.finish()
	return r
}

func (s *sim) violate(oracle, format string, args ...any) {
	panic(&Violation{Oracle: oracle, Text: fmt.Sprintf("at %v: ", s.now) + fmt.Sprintf(format, args...)})
}

func (s *sim) boot() {
	s.net = newNetwork(s)
	s.truth = newTruth(s)
	for i := range s.Members {
		s.nodes = append(s.nodes, newNode(s, uint64(i+1)))
	}
	for _, n := range s.nodes {
		n.create()
		s.truth.members = n.store.members
	}
	for _, n := range s.nodes {
		n.start()
	}
}

// after runs fn later, whatever happens to any node.
func (s *sim) after(d time.Duration, fn func()) { s.push(event{at: s.now + d, run: fn}) }

// afterOn runs fn on a node later, unless the node is restarted before.
func (s *sim) afterOn(n *node, d time.Duration, fn func()) {
	s.push(event{at: s.now + d, node: n, epoch: n.epoch, run: fn})
}

// arriveAt runs fn on whatever start of a node is there then. It may be down.
func (s *sim) arriveAt(n *node, at time.Duration, fn func()) {
	s.push(event{at: at, node: n, any: true, run: fn})
}

// runUntil lets virtual time pass.
func (s *sim) runUntil(end time.Duration) {
	for {
		e, ok := s.pop(end)
		if !ok {
			break
		}
		s.now = e.at
		if e.node != nil {
			if !e.any && e.epoch != e.node.epoch {
				continue
			}
			if e.node.pausedUntil > s.now {
				e.at = e.node.pausedUntil // its place among the others is kept
				s.insert(e)
				continue
			}
		}
		s.counts.Events++
		e.run()
	}
	s.now = end
}

// note adds to the trace, by FNV-1a.
func (s *sim) note(what string, numbers ...uint64) {
	const prime = 1099511628211
	h := s.trace ^ uint64(s.now)
	for _, c := range []byte(what) {
		h = (h ^ uint64(c)) * prime
	}
	for _, n := range numbers {
		for shift := 0; shift < 64; shift += 16 {
			h = (h ^ n>>shift&0xffff) * prime
		}
	}
	s.trace = h
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x51b)) }

func (s *sim) chance(p float64) bool { return p > 0 && s.rng.Float64() < p }

// around draws a duration with the given mean, most of them below it and a few well above.
func (s *sim) around(mean time.Duration) time.Duration {
	return time.Duration(float64(mean) * min(s.rng.ExpFloat64(), 5))
}

func (s *sim) pick() *node {
	members := s.current()
	return members[s.rng.IntN(len(members))]
}

// leader returns the member that leads the latest term, if it is up.
func (s *sim) leader() *node {
	var best *node
	for _, n := range s.nodes {
		if n.up && n.leads() && (best == nil || n.term > best.term) {
			best = n
		}
	}
	return best
}

// heal ends all faults and brings everybody back whose disk is sound.
func (s *sim) heal() {
	s.faulty = false
	s.net.heal()
	for _, n := range s.nodes {
		n.slow, n.late, n.pausedUntil, n.failSync = 1, 1, 0, false
		if !n.up {
			n.restart()
		}
	}
}

// checkLiveness requires a write and a read through every member in time.
func (s *sim) checkLiveness() {
	slowest := electionTimeout
	members := s.members()
	for _, n := range members {
		slowest = max(slowest, time.Duration(float64(electionTimeout)/n.rate))
	}
	wrote, read := make([]bool, len(members)), make([]bool, len(members))
	for i, n := range members {
		var probe func()
		probe = func() {
			if !wrote[i] {
				s.put(n, "probe/"+fmt.Sprint(i), s.value(), func(o outcome, _ int64) { wrote[i] = wrote[i] || o == applied })
			}
			if !read[i] {
				n.read(func(*reading) { read[i] = true })
			}
			if !wrote[i] || !read[i] {
				s.after(electionTimeout/2, probe)
			}
		}
		probe()
	}
	s.runUntil(s.now + 10*slowest)
	for i, n := range members {
		if !slices.Contains(s.members(), n) {
			continue // it was removed
		}
		if !wrote[i] || !read[i] {
			s.violate("liveness", "10 election timeouts after everything was healed, member %d: wrote %v, read %v; %s",
				n.id, wrote[i], read[i], n.describe())
		}
	}
}

// drain ends the load and lets leases run out.
func (s *sim) drain() {
	s.load = false
	s.runUntil(s.now + time.Duration(float64(s.TTL+1)*1.3*float64(time.Second)) + 2*electionTimeout)
	for range 20 {
		if s.settled() {
			return
		}
		s.runUntil(s.now + electionTimeout)
	}
	for _, n := range s.members() {
		if !n.up {
			s.violate("liveness", "member %d is down", n.id)
		}
		if infos := n.mach.Leases(); len(infos) > 0 {
			s.violate("liveness", "lease %x has not ended on member %d", infos[0].ID, n.id)
		}
	}
	s.violate("liveness", "the members do not catch up: %s, %s", s.members()[0].describe(), s.members()[1].describe())
}

func (s *sim) settled() bool {
	for _, n := range s.members() {
		if !n.up || len(n.mach.Leases()) > 0 || n.index() != uint64(len(s.truth.entries))+bootIndex {
			return false
		}
	}
	return true
}

// finish compares the members for the last time and checks what can be checked only at the end.
func (s *sim) finish() {
	for _, n := range s.members() {
		s.truth.compareDigest(n)
	}
	for _, w := range s.watchers {
		w.finish()
	}
	s.truth.finish()
	s.checkHistory()
	for _, n := range s.nodes {
		n.kill()
	}
}

// value returns a value that is written once in a run.
func (s *sim) value() string {
	s.values++
	return fmt.Sprintf("v%d", s.values)
}
