package sim

import (
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

// Options are everything that a seed decides besides the draws during the run.
type Options struct {
	Load
	Network
	Faults
	Tuning
	Members     int
	ClockSpread float64 // clocks run at 1 +- this, each at its own rate
	Mutant      Mutant
}

// Load is what clients do.
type Load struct {
	Active        time.Duration // how long, and how long there are faults
	Clients       int
	Lockers       int
	Watchers      int
	Think         time.Duration // mean pause of a client between operations
	Keys          int
	HistoryPerKey int           // operations on a key before it gives way to another
	Burst         time.Duration // mean time between bursts of writes
	BurstMax      int
	Compactions   time.Duration // mean time between; 0: none
	TTL           int64         // of the lockers' leases, in seconds
	LockerPauses  float64       // how likely a locker is to do nothing for about as long
}

// Network is what happens to messages.
type Network struct {
	Delay           time.Duration // mean
	TailChance      float64       // of a delay by Tail more
	Tail            time.Duration
	Loss, Duplicate float64
	Reorder         bool // messages overtake each other on one link
}

// Faults are mean times between faults; 0 turns one off.
type Faults struct {
	Outage       time.Duration // mean time that faults last
	Partitions   time.Duration
	Crashes      time.Duration // of any member
	LeaderKills  time.Duration // crashes of a leader with writes under way
	VoteCrashes  float64       // share of votes after which the voter crashes for a moment
	PowerCuts    float64       // share of crashes that lose what was not synced
	Pauses       time.Duration
	Stalls       time.Duration // of a leader, with its connections
	Isolations   time.Duration // of a leader, for longer than a lease lasts
	Rivals       time.Duration // between elections with two candidates
	Rot          time.Duration // of one member's log, once a run at most
	SlowDisks    time.Duration
	SyncFailures time.Duration
	Transfers    time.Duration
	Campaigns    time.Duration
	Reconfigs    time.Duration // changes of members, of which some are refused
	LateApplies  time.Duration // of a member that applies far behind its log
}

// Tuning sets the limits of the members, low enough to be reached.
type Tuning struct {
	Sync            time.Duration // mean duration of a sync
	Checkpoints     time.Duration // mean time between those of a member
	SaveTime        time.Duration // mean duration of one
	SegmentBytes    int64
	LogBytes        int
	HistoryBytes    int
	EntryBytes      int
	BatchesInFlight int
}

// Draw makes the options of a seed. Each seed has a subset of the faults, at rates of its own.
func Draw(seed uint64) Options {
	rng := rand.New(rand.NewPCG(seed, 0x0b710))
	o := Options{Members: 3}
	o.Load = Load{
		Active: 6 * time.Second, Clients: 3 + rng.IntN(4), Lockers: 2 + rng.IntN(2), Watchers: 2,
		Think: ms(5 + rng.IntN(20)), Keys: 3 + rng.IntN(5), HistoryPerKey: 20 + rng.IntN(80),
		Burst: ms(30 + rng.IntN(150)), BurstMax: 2 + rng.IntN(24), TTL: int64(1 + rng.IntN(2)),
	}
	o.Tuning = Tuning{
		Sync: us(100 + rng.IntN(4000)), Checkpoints: ms(50 + rng.IntN(500)), SaveTime: ms(1 + rng.IntN(60)),
		SegmentBytes: 1 << (13 + rng.IntN(6)), LogBytes: 1 << (9 + rng.IntN(9)), HistoryBytes: 1 << (12 + rng.IntN(8)),
		EntryBytes: 1 << (8 + rng.IntN(12)), BatchesInFlight: 1 + rng.IntN(3),
	}
	o.Delay, o.Outage, o.PowerCuts = us(100+rng.IntN(2000)), ms(400), rng.Float64()
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
	o.Loss = [...]float64{0, 0.05, 0.3}[rng.IntN(3)] * rng.Float64()
	o.Duplicate = [...]float64{0, 0.1}[rng.IntN(2)] * rng.Float64()
	o.ClockSpread = [...]float64{0, 0.2}[rng.IntN(2)] * rng.Float64()
	o.VoteCrashes = [...]float64{0, 0.3}[rng.IntN(2)] * rng.Float64()
	o.LockerPauses = [...]float64{0, 0.3}[rng.IntN(2)]
	o.Reorder = rng.IntN(2) == 0
	if rng.IntN(2) == 0 {
		o.TailChance, o.Tail = 0.05*rng.Float64(), ms(20+rng.IntN(400))
	}
	maybe(&o.Isolations, 2000, 8000)
	maybe(&o.Rivals, 500, 3000)
	if rng.IntN(3) == 0 {
		o.Rot = ms(500 + rng.IntN(5000))
	}
	maybe(&o.Reconfigs, 150, 800)
	maybe(&o.LateApplies, 500, 3000)
	return o
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }
func us(n int) time.Duration { return time.Duration(n) * time.Microsecond }
