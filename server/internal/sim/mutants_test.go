package sim

import (
	"errors"
	"flag"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// hunt tells how a mutant is caught: by which oracles, within how many seeds from which on, and with what options, which
// make its kind of accident likely.
type hunt struct {
	first, seeds uint64
	oracles      []string
	tune         func(*Options)
}

// lost are the oracles that see a member forget what it had promised; raft itself panics when it sees that first.
var lost = []string{"panic", "log", "leader", "ack", "state", "history", "read", "liveness"}

var hunts = map[Mutant]hunt{
	SkipSync:         {first: 1, seeds: 20, oracles: lost, tune: func(o *Options) { o.Crashes, o.PowerCuts = ms(300), 1 }},
	EarlyAppended:    {first: 1, seeds: 20, oracles: lost, tune: func(o *Options) { o.Crashes, o.PowerCuts, o.Sync = ms(300), 1, ms(10) }},
	AckEarly:         {first: 1, seeds: 20, oracles: []string{"ack", "history"}},
	UnconfirmedReads: {first: 1, seeds: 20, oracles: []string{"read", "history"}},
	ReusedReadID: {first: 1, seeds: 40, oracles: []string{"read", "history"}, tune: func(o *Options) {
		o.Think, o.Transfers, o.Crashes, o.Clients = ms(3), ms(200), ms(500), 8
	}},
	ForgetTombstone: {first: 1, seeds: 20, oracles: []string{"state", "watch", "read"}},
	CheckpointAhead: {first: 1, seeds: 20, oracles: []string{"state", "log", "watch", "read"}},
	ExpireUnfenced: {first: 8, seeds: 40, oracles: []string{"lease"}, tune: func(o *Options) {
		o.Reconfigs, o.LateApplies = 0, 0
		o.Lockers, o.TTL, o.LockerPauses, o.Campaigns, o.Transfers = 6, 1, 0.5, ms(150), ms(300)
	}},
	ShortDeadlines: {first: 1, seeds: 20, oracles: []string{"lease"}},
	// A lease of a second is renewed five times in it, and a leader without connections leads on for one to two election
	// timeouts: every client that keeps to it for so long is told a lie. A third leader would hide that by beginning anew.
	RenewUnconfirmed: {first: 1, seeds: 20, oracles: []string{"lease"}, tune: func(o *Options) {
		o.Isolations, o.TTL, o.Lockers = ms(500), 1, 6
		o.Crashes, o.LeaderKills, o.Stalls, o.Transfers, o.Campaigns, o.Rivals = 0, 0, 0, 0, 0, 0
	}},
	DropVote: {first: 1, seeds: 40, oracles: []string{"leader", "log"}, tune: func(o *Options) {
		o.Members, o.VoteCrashes, o.Rivals, o.Delay, o.Sync = 3, 0.7, ms(60), ms(10), us(200)
		o.Crashes, o.LeaderKills, o.Partitions, o.Isolations, o.Stalls, o.Pauses, o.SlowDisks = 0, 0, 0, 0, 0, 0, 0
	}},
	StaleBatch: {first: 1, seeds: 20, oracles: []string{"ack"}, tune: func(o *Options) {
		o.Transfers, o.Campaigns, o.TailChance, o.Tail, o.Reorder = ms(150), ms(300), 0.2, ms(800), true
	}},
	RepeatedBatch: {first: 1, seeds: 20, oracles: []string{"ack"}},
	LockUnchecked: {first: 1, seeds: 20, oracles: []string{"lock"}, tune: func(o *Options) {
		o.Lockers, o.TTL, o.LockerPauses = 6, 1, 0.5
	}},
	WatchSkips: {first: 1, seeds: 20, oracles: []string{"watch"}},
	LearnerVouches: {first: 1, seeds: 40, oracles: []string{"read", "history"}, tune: func(o *Options) {
		o.Members, o.Reconfigs, o.Isolations, o.Think, o.Clients, o.TTL = 3, ms(200), ms(200), ms(3), 10, 1
		o.Crashes, o.LeaderKills, o.Stalls, o.Pauses, o.Rot, o.Partitions = 0, 0, 0, 0, 0, 0
	}},
	MinorityVouches: {first: 1, seeds: 40, oracles: []string{"read", "history"}, tune: func(o *Options) {
		o.Members, o.Reconfigs, o.Partitions, o.Think, o.Clients, o.Campaigns = 5, ms(800), ms(200), ms(3), 8, ms(150)
	}},
	Amnesia:       {first: 1, seeds: 20, oracles: lost, tune: func(o *Options) { o.Crashes, o.Rot = ms(200), 0 }},
	ForgetRemoved: {first: 1, seeds: 20, oracles: []string{"state"}, tune: func(o *Options) { o.Reconfigs, o.Crashes = ms(200), ms(300) }},
	CarriedOut:    {first: 1, seeds: 20, oracles: []string{"members", "panic"}, tune: func(o *Options) { o.Reconfigs = ms(100) }},
}

// leastCaught is the share of a mutant's seeds that must catch it, so that no hunt lives on luck.
const leastCaught = 0.1

var wholeHunt = flag.Bool("hunt", false, "run all seeds of every mutant, also when enough have caught it, to tell the share")

// TestMutants plants each bug and requires that runs under faults catch it, by more than a lucky seed.
func TestMutants(t *testing.T) {
	for _, m := range Mutants() {
		t.Run(m.String(), func(t *testing.T) {
			h, ok := hunts[m]
			require.True(t, ok)
			enough := leastCaught * float64(h.seeds)
			var caught []uint64
			ran := uint64(0)
			for ran < h.seeds && (*wholeHunt || float64(len(caught)) < enough) {
				seed := h.first + ran
				ran++
				v := h.run(t, m, seed)
				if v == nil {
					continue
				}
				if len(caught) == 0 {
					t.Logf("caught first by seed %d: %.160s", seed, v.Error())
				}
				caught = append(caught, seed)
				if !slices.Contains(h.oracles, v.Oracle) {
					t.Errorf("seed %d: caught by the oracle %q; expected one of %q", seed, v.Oracle, h.oracles)
				}
			}
			t.Logf("caught by %d of %d seeds, of which %d ran: %d", len(caught), h.seeds, ran, caught)
			if float64(len(caught)) < enough {
				t.Errorf("caught by %d of %d seeds, %.0f%% expected at least", len(caught), h.seeds, 100*leastCaught)
			}
		})
	}
}

// run runs one seed with the bug and returns what it broke, or nil.
func (h hunt) run(t *testing.T, m Mutant, seed uint64) *Violation {
	o := Draw(seed)
	o.Mutant = m
	if h.tune != nil {
		h.tune(&o)
	}
	r := run(t, seed, o)
	if r.Err == nil {
		return nil
	}
	var v *Violation
	require.True(t, errors.As(r.Err, &v))
	return v
}
