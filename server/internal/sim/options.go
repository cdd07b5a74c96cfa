package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// The cluster's clockwork, in the time of a member whose clock is right.
const (
	tickEvery       = 20 * time.Millisecond
	electionTicks   = 10
	heartbeatTicks  = 2
	electionTimeout = electionTicks * tickEvery
)

// Options are everything that a seed decides besides the draws during the run. A mean of 0 turns a fault off.
type Options struct {
	Members  int
	Clients  int
	Lockers  int
	Watchers int
	Active   time.Duration // load and faults
	Think    time.Duration // mean pause of a client between operations
	Burst    time.Duration // mean time between bursts of writes
	BurstMax int
	Keys     int

	Loss, Duplicate float64 // of messages
	Reorder         bool    // messages overtake each other on one link
	Delay           time.Duration
	TailChance      float64
	Tail            time.Duration
	Sync            time.Duration // mean duration of a sync
	ClockSpread     float64       // clocks run at 1 +- this

	Partitions   time.Duration // mean time between
	Crashes      time.Duration // of any member
	Outage       time.Duration // mean time that faults last
	LeaderKills  time.Duration // crashes of a leader with writes under way
	PowerCuts    float64       // share of crashes that lose what was not synced
	Pauses       time.Duration
	Stalls       time.Duration // of a leader, with its connections
	SlowDisks    time.Duration
	SyncFailures time.Duration
	Transfers    time.Duration
	Campaigns    time.Duration

	SegmentBytes    int64
	LogBytes        int
	HistoryBytes    int
	EntryBytes      int
	BatchesInFlight int
	Checkpoints     time.Duration // between checkpoints of a member
	SaveTime        time.Duration // mean duration of one
	Compactions     time.Duration
	TTL             int64 // of the lockers' leases, in seconds
	LockerPauses    float64
	Mutant          Mutant
	HistoryPerKey   int // operations on a key before it gives way to another
}

// Draw makes the options of a seed. Each seed has a subset of the faults, at rates of its own.
func Draw(seed uint64) Options {
	rng := rand.New(rand.NewPCG(seed, 0x0b710))
	o := Options{
		Members: 3, Clients: 3 + rng.IntN(4), Lockers: 2 + rng.IntN(2), Watchers: 2,
		Active: 6 * time.Second, Think: ms(5 + rng.IntN(20)), Burst: ms(30 + rng.IntN(150)), BurstMax: 2 + rng.IntN(24),
		Keys:  3 + rng.IntN(5),
		Delay: us(100 + rng.IntN(2000)), Sync: us(100 + rng.IntN(4000)), PowerCuts: rng.Float64(), Outage: ms(400),
		SegmentBytes: 1 << (13 + rng.IntN(6)), LogBytes: 1 << (9 + rng.IntN(9)), HistoryBytes: 1 << (12 + rng.IntN(8)),
		EntryBytes: 1 << (8 + rng.IntN(12)), BatchesInFlight: 1 + rng.IntN(3),
		Checkpoints: ms(50 + rng.IntN(500)), SaveTime: ms(1 + rng.IntN(60)), TTL: int64(1 + rng.IntN(2)),
		HistoryPerKey: 20 + rng.IntN(80),
	}
	if rng.IntN(3) == 0 {
		o.Members = 5
	}
	maybe := func(d *time.Duration, least, most int) {
		if rng.IntN(3) > 0 {
			*d = ms(least + rng.IntN(most-least))
		}
	}
	maybe(&o.Partitions, 300, 2000)
	maybe(&o.Crashes, 300, 2500)
	maybe(&o.LeaderKills, 400, 2500)
	maybe(&o.Pauses, 500, 3000)
	maybe(&o.SlowDisks, 500, 3000)
	maybe(&o.SyncFailures, 800, 4000)
	maybe(&o.Transfers, 300, 3000)
	maybe(&o.Campaigns, 500, 3000)
	maybe(&o.Compactions, 200, 1500)
	maybe(&o.Stalls, 1000, 5000)
	switch rng.IntN(3) {
	case 1:
		o.Loss = 0.05 * rng.Float64()
	case 2:
		o.Loss = 0.3 * rng.Float64()
	}
	if rng.IntN(2) == 0 {
		o.Duplicate = 0.1 * rng.Float64()
	}
	o.Reorder = rng.IntN(2) == 0
	if rng.IntN(2) == 0 {
		o.TailChance, o.Tail = 0.05*rng.Float64(), ms(20+rng.IntN(400))
	}
	if rng.IntN(2) == 0 {
		o.ClockSpread = 0.2 * rng.Float64()
	}
	if rng.IntN(2) == 0 {
		o.LockerPauses = 0.3
	}
	return o
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }
func us(n int) time.Duration { return time.Duration(n) * time.Microsecond }

// Counts say how much happened in one run or, added up, in many.
type Counts struct {
	Runs, Events                               int
	Entries, Commands, Acked, Uncertain        int
	NotApplied, Retried, Repeated              int
	Reads, LocalReads, OldReads                int
	Elections, Crashes, PowerCuts, LeaderKills int
	TornWrites, SyncFailures, Restarts         int
	Partitions, Pauses, Stalls                 int
	SlowDisks, Transfers                       int
	Checkpoints, Snapshots, LogResets          int
	Compactions, Renewals, Expiries            int
	Locks, LocksLost, GuardedWrites, Watched   int
	WatchesMoved, WatchesCompacted             int
	Digests, Histories, HistoryOps, Undecided  int
}

// Add adds c to the sum.
func (sum *Counts) Add(c Counts) {
	a, b := sum.fields(), c.fields()
	for i := range a {
		*a[i].n += *b[i].n
	}
}

// String lists the counts that are not 0.
func (c Counts) String() string {
	out := ""
	for _, f := range c.fields() {
		if *f.n != 0 {
			out += fmt.Sprintf("%s %d, ", f.name, *f.n)
		}
	}
	return out[:max(0, len(out)-2)]
}

type countField struct {
	name string
	n    *int
}

func (c *Counts) fields() []countField {
	return []countField{
		{"runs", &c.Runs},
		{"events", &c.Events},
		{"entries", &c.Entries},
		{"commands", &c.Commands},
		{"acknowledged", &c.Acked},
		{"uncertain", &c.Uncertain},
		{"not applied", &c.NotApplied},
		{"retried", &c.Retried},
		{"repeated messages", &c.Repeated},
		{"reads", &c.Reads},
		{"local reads", &c.LocalReads},
		{"reads of old revisions", &c.OldReads},
		{"elections", &c.Elections},
		{"crashes", &c.Crashes},
		{"power cuts", &c.PowerCuts},
		{"leader crashes during writes", &c.LeaderKills},
		{"crashes during a log write", &c.TornWrites},
		{"failed syncs", &c.SyncFailures},
		{"restarts", &c.Restarts},
		{"partitions", &c.Partitions},
		{"pauses", &c.Pauses},
		{"stalls", &c.Stalls},
		{"slow disks", &c.SlowDisks},
		{"transfers", &c.Transfers},
		{"checkpoints", &c.Checkpoints},
		{"snapshots installed", &c.Snapshots},
		{"logs restarted at recovery", &c.LogResets},
		{"compactions", &c.Compactions},
		{"renewals", &c.Renewals},
		{"lease expiries", &c.Expiries},
		{"locks", &c.Locks},
		{"locks lost", &c.LocksLost},
		{"guarded writes", &c.GuardedWrites},
		{"events watched", &c.Watched},
		{"watches moved", &c.WatchesMoved},
		{"watches compacted", &c.WatchesCompacted},
		{"digests compared", &c.Digests},
		{"histories checked", &c.Histories},
		{"history operations", &c.HistoryOps},
		{"histories undecided", &c.Undecided},
	}
}
