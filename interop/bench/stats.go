package main

import (
	"math/rand/v2"
	"slices"
)

const (
	resamples     = 2000
	bootstrapSeed = 1 // one table, one interval: the same data gives the same figures
	minForCI      = 4 // fewer values than this show their range instead
)

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// spread returns the 95 % bootstrap interval of the median, or the range of the
// values when there are too few to resample.
func spread(values []float64) (low, high float64) {
	if len(values) == 0 {
		return 0, 0
	}
	if len(values) < minForCI {
		return slices.Min(values), slices.Max(values)
	}
	rng := rand.New(rand.NewPCG(bootstrapSeed, uint64(len(values))))
	medians := make([]float64, resamples)
	sample := make([]float64, len(values))
	for i := range medians {
		for j := range sample {
			sample[j] = values[rng.IntN(len(values))]
		}
		medians[i] = median(sample)
	}
	slices.Sort(medians)
	return medians[resamples*25/1000], medians[resamples*975/1000]
}
