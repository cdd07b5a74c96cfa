// Package rendezvous chooses who is responsible for something, so that all who
// know the same candidates choose the same one, and so that a candidate that comes
// or goes changes no more choices than it must.
//
// The scores are part of what programs of different versions have to agree on:
// they must not change.
package rendezvous

import "math"

// The constants of FNV-1a, and of the finalizer of SplitMix64, which spreads the
// few differing bits of short names over all of the hash.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
	mixFirst  = 0xbf58476d1ce4e5b9
	mixSecond = 0x94d049bb133111eb
)

// mantissaBits is how many bits of a hash a float64 can hold.
const mantissaBits = 53

// Score returns how much a candidate wants an item: of all candidates the one
// with the largest score gets it, of equal ones the one whose name is first. A
// candidate gets a share of all items in proportion to its weight; one without
// weight gets none, with a score of zero.
func Score(candidate, item string, weight uint32) float64 {
	if weight == 0 {
		return 0
	}
	// A number above 0 and below 1, each equally likely.
	u := (float64(hash(candidate, item)>>(64-mantissaBits)) + 0.5) / (1 << mantissaBits)
	return -float64(weight) / math.Log(u)
}

func hash(candidate, item string) uint64 {
	h := uint64(fnvOffset)
	for i := range len(candidate) {
		h = (h ^ uint64(candidate[i])) * fnvPrime
	}
	h *= fnvPrime // a zero byte, so that "ab", "c" and "a", "bc" differ
	for i := range len(item) {
		h = (h ^ uint64(item[i])) * fnvPrime
	}
	h = (h ^ h>>30) * mixFirst
	h = (h ^ h>>27) * mixSecond
	return h ^ h>>31
}
