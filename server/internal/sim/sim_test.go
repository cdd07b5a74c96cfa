package sim

import (
	"flag"
	"fmt"
	"testing"
	"testing/cryptotest"
	"time"
)

var (
	oneSeed   = flag.Uint64("seed", 0, "run this seed only, with its trace")
	manySeeds = flag.Uint64("seeds", 0, "run this many seeds in place of the quick number")
	firstSeed = flag.Uint64("first", 1, "the first of them")
)

// quickSeeds is what runs by default.
const quickSeeds = 40

func run(t *testing.T, seed uint64, o Options) Report {
	cryptotest.SetGlobalRandom(t, seed)
	return Run(seed, o)
}

func fail(t *testing.T, seed uint64, o Options, r Report) {
	t.Helper()
	t.Errorf("seed %d, after %v: %v\noptions: %+v\ncounts: %v\nreplay: go test ./server/internal/sim -run TestSeeds -seed=%d",
		seed, r.Time, r.Err, o, r.Counts, seed)
}

// TestSeeds runs clusters under faults.
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
		if r.Err != nil {
			fail(t, seed, o, r)
		}
		if *oneSeed > 0 {
			fmt.Printf("trace %x, virtual time %v, options %+v\n", r.Trace, r.Time, o)
		}
	}
	took := time.Since(began)
	t.Logf("%d seeds in %v, %.1f a second: %v", count, took.Round(time.Millisecond), float64(count)/took.Seconds(), sum)
}
