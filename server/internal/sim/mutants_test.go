package sim

import (
	"errors"
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
	EarlyAppended:    {first: 1, seeds: 20, oracles: lost, tune: func(o *Options) { o.Crashes = ms(300) }},
	AckEarly:         {first: 1, seeds: 20, oracles: []string{"ack", "history"}},
	UnconfirmedReads: {first: 1, seeds: 20, oracles: []string{"read", "history"}},
	ReusedReadID:     {first: 8, seeds: 40, oracles: []string{"read", "history"}},
	ForgetTombstone:  {first: 1, seeds: 20, oracles: []string{"state", "watch", "read"}},
	CheckpointAhead:  {first: 1, seeds: 20, oracles: []string{"state", "log", "watch", "read"}},
	ExpireUnfenced:   {first: 8, seeds: 40, oracles: []string{"lease"}},
	ShortDeadlines:   {first: 1, seeds: 20, oracles: []string{"lease"}},
	RenewUnconfirmed: {first: 100, seeds: 60, oracles: []string{"lease"}, tune: func(o *Options) {
		o.Stalls, o.TTL, o.Lockers, o.Outage = ms(1200), 1, 12, ms(600)
	}},
	DropVote: {first: 1, seeds: 60, oracles: []string{"leader", "log"}, tune: func(o *Options) {
		o.Members, o.VoteCrashes, o.Campaigns, o.Delay, o.Sync = 5, 0.5, ms(30), ms(10), us(500)
	}},
	StaleBatch: {first: 1, seeds: 20, oracles: []string{"ack"}, tune: func(o *Options) {
		o.Transfers, o.Campaigns, o.TailChance, o.Tail, o.Reorder = ms(150), ms(300), 0.2, ms(800), true
	}},
	RepeatedBatch: {first: 1, seeds: 20, oracles: []string{"ack"}},
	LockUnchecked: {first: 1, seeds: 20, oracles: []string{"lock"}, tune: func(o *Options) {
		o.Lockers, o.TTL, o.LockerPauses = 6, 1, 0.5
	}},
	WatchSkips: {first: 1, seeds: 20, oracles: []string{"watch"}},
}

// TestMutants plants each bug and requires that runs under faults catch it.
func TestMutants(t *testing.T) {
	for _, m := range Mutants() {
		t.Run(m.String(), func(t *testing.T) {
			h, ok := hunts[m]
			require.True(t, ok)
			for seed := h.first; seed < h.first+h.seeds; seed++ {
				o := Draw(seed)
				o.Mutant = m
				if h.tune != nil {
					h.tune(&o)
				}
				r := run(t, seed, o)
				if r.Err == nil {
					continue
				}
				var v *Violation
				require.True(t, errors.As(r.Err, &v))
				t.Logf("caught by seed %d: %.160s", seed, v.Error())
				if !slices.Contains(h.oracles, v.Oracle) {
					t.Errorf("caught by the oracle %q; expected one of %q", v.Oracle, h.oracles)
				}
				return
			}
			t.Errorf("not caught in %d seeds", h.seeds)
		})
	}
}
