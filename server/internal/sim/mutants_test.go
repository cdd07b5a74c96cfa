package sim

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// hunts tells for each mutant within how many seeds it must be caught, and what makes its kind of accident likely.
var hunts = map[Mutant]struct {
	seeds uint64
	tune  func(*Options)
}{
	SkipSync:         {seeds: 40, tune: func(o *Options) { o.Crashes, o.PowerCuts = ms(300), 1 }},
	EarlyAppended:    {seeds: 40, tune: func(o *Options) { o.Crashes = ms(300) }},
	AckEarly:         {seeds: 20},
	UnconfirmedReads: {seeds: 20},
	ReusedReadID:     {seeds: 40},
	ForgetTombstone:  {seeds: 20},
	CheckpointAhead:  {seeds: 20},
	ExpireUnfenced:   {seeds: 40},
	ShortDeadlines:   {seeds: 40},
	RenewUnconfirmed: {seeds: 40, tune: func(o *Options) {
		o.Stalls, o.TTL, o.Lockers, o.Outage = ms(1200), 1, 12, ms(600)
	}},
	DropVote: {seeds: 40, tune: func(o *Options) {
		o.Crashes, o.Outage, o.Campaigns, o.Delay, o.Sync = ms(40), ms(5), ms(40), ms(20), us(500)
	}},
	StaleBatch: {seeds: 40, tune: func(o *Options) {
		o.Transfers, o.Campaigns, o.TailChance, o.Tail, o.Reorder = ms(150), ms(300), 0.2, ms(800), true
	}},
	RepeatedBatch: {seeds: 20},
	LockUnchecked: {seeds: 40},
	WatchSkips:    {seeds: 20},
}

// TestMutants plants each bug and requires that a run under faults catches it.
func TestMutants(t *testing.T) {
	for _, m := range Mutants() {
		t.Run(m.String(), func(t *testing.T) {
			hunt := hunts[m]
			require.NotZero(t, hunt.seeds)
			for seed := uint64(1); seed <= hunt.seeds; seed++ {
				o := Draw(seed)
				o.Mutant = m
				if hunt.tune != nil {
					hunt.tune(&o)
				}
				if r := run(t, seed, o); r.Err != nil {
					var v *Violation
					require.True(t, errors.As(r.Err, &v))
					t.Logf("caught by seed %d: %.160s", seed, v.Error())
					return
				}
			}
			t.Errorf("not caught in %d seeds", hunt.seeds)
		})
	}
}
