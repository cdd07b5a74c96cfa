package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/interop/harness"
)

func TestHistogramKeepsRelativePrecision(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 31, 32, 33, 1000, 999_999, time.Second, time.Hour} {
		var h histogram
		h.add(d)
		require.InDelta(t, float64(d), float64(h.quantile(0.5)), float64(d)/subBuckets+1, "%v", d)
	}
	var h, other histogram
	for i := range 100 {
		h.add(time.Duration(i+1) * time.Millisecond)
		other.add(time.Second)
	}
	require.InEpsilon(t, 50*time.Millisecond, h.quantile(0.5), 0.05)
	require.InEpsilon(t, 99*time.Millisecond, h.quantile(0.99), 0.05)
	h.merge(&other)
	require.EqualValues(t, 200, h.count)
	require.InEpsilon(t, time.Second, h.quantile(0.75), 0.05)
}

func TestMedianAndSpread(t *testing.T) {
	require.Zero(t, median(nil))
	require.Equal(t, 2.0, median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 2, 3}))
	low, high := spread([]float64{1, 3})
	require.Equal(t, []float64{1, 3}, []float64{low, high})
	low, high = spread([]float64{1, 1.1, 1.2, 1.3, 1.4, 9})
	require.LessOrEqual(t, low, 1.25)
	require.GreaterOrEqual(t, high, 1.25)
	require.Less(t, high, 9.0, "one outlier among six does not carry the interval")
}

// The ratio pairs runs of the same pair; a run without its twin counts for
// nothing.
func TestRatiosPairRuns(t *testing.T) {
	r := &Report{}
	add := func(kind harness.Kind, pair int, ops int64) {
		r.Runs = append(r.Runs, &Run{Scenario: "put1", Kind: kind, Pair: pair, Ops: ops, Window: time.Second})
	}
	add(harness.Etcd, 0, 100)
	add(harness.Latchkey, 0, 200)
	add(harness.Etcd, 1, 10)
	add(harness.Latchkey, 1, 30)
	add(harness.Latchkey, 2, 1)
	require.Equal(t, []float64{2, 3}, ratios(r.sideOf("put1", harness.Latchkey), r.sideOf("put1", harness.Etcd), rate))
}

// The longest gap counts from the last success before the kill.
func TestLongestGap(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	w := &writer{times: []time.Time{at(0), at(500), at(501), at(900), at(901)}}
	require.Equal(t, 399*time.Millisecond, w.longestGap(at(600)))
	require.Equal(t, time.Millisecond, w.longestGap(at(901)))
}

// A name means one scenario or one group, and a scenario without a runner for a
// side is not run there.
func TestScenariosHaveNamesOfTheirOwn(t *testing.T) {
	seen := make(map[string]bool)
	for _, f := range faults {
		require.False(t, seen[f.name], f.name)
		seen[f.name] = true
	}
	require.True(t, seen[failoverName])
	for _, g := range groups {
		require.False(t, seen[g.name], g.name)
		seen[g.name] = true
		require.Len(t, findScenarios(g.name), len(g.scenarios))
		for _, s := range g.scenarios {
			require.False(t, seen[s.name], s.name)
			seen[s.name] = true
			require.Len(t, findScenarios(s.name), 1)
		}
	}
	require.Empty(t, findScenarios("no such"))
	run, ours := findScenarios("barrier50")[0].on(harness.Etcd)
	require.Nil(t, run)
	require.False(t, ours)
	run, ours = findScenarios("barrier50")[0].on(harness.Latchkey)
	require.NotNil(t, run)
	require.True(t, ours)
	_, ours = findScenarios("put1")[0].on(harness.Latchkey)
	require.False(t, ours, "the official client on both sides")
}
