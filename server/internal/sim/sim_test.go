package sim

import (
	"flag"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

var (
	oneSeed   = flag.Uint64("seed", 0, "run this seed only, and tell its options and trace")
	manySeeds = flag.Uint64("seeds", 0, "run this many seeds in place of the quick number")
	firstSeed = flag.Uint64("first", 1, "the first of them")
)

// quickSeeds is how many run by default.
const quickSeeds = 60

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run is deterministic: raft draws its election timeouts from crypto/rand.
func run(t *testing.T, seed uint64, o Options) Report {
	cryptotest.SetGlobalRandom(t, seed)
	return Run(seed, o)
}

func check(t *testing.T, seed uint64, o Options, r Report) {
	t.Helper()
	if r.Err != nil {
		t.Errorf("seed %d, after %v: %v\noptions: %+v\ncounts: %v\nreplay: go test ./server/internal/sim -run TestSeeds -seed=%d",
			seed, r.Time, r.Err, o, r.Counts, seed)
	}
}

// TestSeeds runs clusters under faults. One in a hundred runs twice, to see that a seed decides everything.
func TestSeeds(t *testing.T) {
	first, count := *firstSeed, uint64(quickSeeds)
	if *manySeeds > 0 {
		count = *manySeeds
	}
	if *oneSeed > 0 {
		first, count = *oneSeed, 1
	}
	var sum Counts
	began := time.Now()
	for seed := first; seed < first+count; seed++ {
		o := Draw(seed)
		r := run(t, seed, o)
		sum.Add(r.Counts)
		check(t, seed, o, r)
		if seed%100 == 1 || *oneSeed > 0 {
			again := run(t, seed, o)
			require.Equal(t, r.Trace, again.Trace, "seed %d", seed)
			require.Equal(t, r.Counts, again.Counts, "seed %d", seed)
		}
		if *oneSeed > 0 {
			t.Logf("trace %x after %v of virtual time, options %+v", r.Trace, r.Time, o)
		}
	}
	took := time.Since(began)
	t.Logf("%d seeds in %v, %.1f a second: %v", count, took.Round(time.Millisecond), float64(count)/took.Seconds(), sum)
	if count >= quickSeeds {
		requireEnough(t, sum)
	}
}

// requireEnough fails when too little happened: a quiet run proves nothing.
func requireEnough(t *testing.T, sum Counts) {
	for _, floor := range []struct {
		name   string
		got    int
		perRun float64
	}{
		{"entries", sum.Entries, 300},
		{"commands", sum.Commands, 600},
		{"acknowledged writes", sum.Acked, 500},
		{"linearizable reads", sum.Reads, 100},
		{"local reads", sum.LocalReads, 50},
		{"reads of old revisions", sum.OldReads, 50},
		{"elections", sum.Elections, 3},
		{"crashes", sum.Crashes, 3},
		{"power cuts", sum.PowerCuts, 1},
		{"leader crashes during writes", sum.LeaderKills, 0.8},
		{"crashes during a log write", sum.TornWrites, 0.1},
		{"crashes after a vote", sum.VoteCrashes, 0.1},
		{"damaged logs refused", sum.RotRefused, 0.1},
		{"failed syncs", sum.SyncFailures, 0.5},
		{"partitions", sum.Partitions, 3},
		{"pauses", sum.Pauses, 1},
		{"stalls", sum.Stalls, 0.5},
		{"leaders isolated", sum.Isolations, 0.3},
		{"rival candidates", sum.Rivals, 0.5},
		{"transfers", sum.Transfers, 1},
		{"changes of members", sum.Reconfigurations, 2},
		{"members joined", sum.Joined, 1},
		{"learners promoted", sum.Promoted, 0.3},
		{"members removed", sum.Removed, 0.5},
		{"checkpoints", sum.Checkpoints, 30},
		{"snapshots installed", sum.Snapshots, 0.5},
		{"compactions", sum.Compactions, 2},
		{"renewals", sum.Renewals, 15},
		{"lease expiries", sum.Expiries, 2},
		{"locks", sum.Locks, 4},
		{"locks lost", sum.LocksLost, 1},
		{"guarded writes", sum.GuardedWrites, 8},
		{"events watched", sum.Watched, 800},
		{"watches moved", sum.WatchesMoved, 20},
		{"watches compacted", sum.WatchesCompacted, 0.05},
		{"digests compared", sum.Digests, 15},
		{"history operations", sum.HistoryOps, 200},
		{"histories decided", sum.Histories - sum.Undecided, 0.95},
	} {
		if at := floor.perRun * float64(sum.Runs); float64(floor.got) < at {
			t.Errorf("only %d %s in %d runs, %.0f expected at least", floor.got, floor.name, sum.Runs, at)
		}
	}
}

// slowNetwork makes a round trip take about as long as a follower waits for an answer to a read index, and elections
// and crashes frequent.
func slowNetwork(o *Options) {
	o.Crashes, o.Outage, o.Campaigns, o.Delay, o.Sync = ms(40), ms(5), ms(40), ms(20), us(500)
}

// TestRegressions runs seeds that found something, with the options that made it likely. A change to Draw makes them
// mean something else: then undo the fix for a moment and look for others.
func TestRegressions(t *testing.T) {
	for _, c := range []struct {
		seed  uint64
		tune  func(*Options)
		found string
	}{
		{8, slowNetwork, "a follower asked for a read index again before the answer could come, for ever"},
		{11, slowNetwork, "the same"},
		{5, nil, "the event window of the machine stayed over its limit"},
		{21, nil, "the same after a compaction"},
	} {
		o := Draw(c.seed)
		o.Isolations, o.Rivals, o.Rot, o.Reconfigs, o.LateApplies = 0, 0, 0, 0, 0 // there were none yet
		if c.tune != nil {
			c.tune(&o)
		}
		r := run(t, c.seed, o)
		if r.Err != nil {
			t.Errorf("this once found that %s", c.found)
		}
		check(t, c.seed, o, r)
	}
}

func TestQuietClusterLosesNothing(t *testing.T) {
	o := Draw(1)
	o.Loss, o.Duplicate, o.TailChance, o.ClockSpread, o.LockerPauses = 0, 0, 0, 0, 0
	o.Partitions, o.Crashes, o.LeaderKills, o.Pauses, o.Stalls, o.SlowDisks = 0, 0, 0, 0, 0, 0
	o.SyncFailures, o.Transfers, o.Campaigns, o.Isolations, o.Rivals, o.Rot = 0, 0, 0, 0, 0, 0
	o.Reconfigs, o.LateApplies = 0, 0
	r := run(t, 1, o)
	check(t, 1, o, r)
	require.Zero(t, r.Counts.Uncertain+r.Counts.NotApplied+r.Counts.Retried+r.Counts.LocksLost)
	require.Equal(t, 1, r.Counts.Elections)
}

func TestScheduleKeepsOrder(t *testing.T) {
	var s schedule
	var got []int
	for i, at := range []time.Duration{5, 3, 5, 1, 3, 9, 1} {
		s.push(event{at: at, run: func() { got = append(got, i) }})
	}
	for {
		e, ok := s.pop(8)
		if !ok {
			break
		}
		e.run()
	}
	require.Equal(t, []int{3, 6, 1, 4, 0, 2}, got)
	require.Len(t, s.events, 1)
}

func TestCountsAddAndPrint(t *testing.T) {
	a := Counts{Runs: 1, Locks: 2}
	a.Add(Counts{Runs: 1, Undecided: 3})
	require.Equal(t, Counts{Runs: 2, Locks: 2, Undecided: 3}, a)
	require.Equal(t, "runs 2, locks 2, histories undecided 3", a.String())
	require.Empty(t, Counts{}.String())
}
