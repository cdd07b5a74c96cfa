package main

import (
	"math/bits"
	"time"
)

// subBits sets the resolution of a histogram: 2^subBits buckets for each power
// of two, an error of at most 1/2^subBits of the value.
const (
	subBits    = 5
	subBuckets = 1 << subBits
	buckets    = (64 - subBits) * subBuckets
)

// histogram counts durations. It is owned by one goroutine until merged.
type histogram struct {
	count  int64
	bucket [buckets]int64
}

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift*subBuckets + int(v>>shift)
}

// bucketValue is the middle of a bucket.
func bucketValue(i int) time.Duration {
	if i < subBuckets {
		return time.Duration(i)
	}
	shift := i/subBuckets - 1
	base := uint64(i%subBuckets+subBuckets) << shift
	return time.Duration(base + (uint64(1)<<shift)/2)
}

func (h *histogram) add(d time.Duration) {
	h.count++
	h.bucket[min(bucketOf(d), buckets-1)]++
}

func (h *histogram) merge(o *histogram) {
	h.count += o.count
	for i, n := range o.bucket {
		h.bucket[i] += n
	}
}

// quantile returns the value below which the share q of all values lies; 0 for
// an empty histogram.
func (h *histogram) quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := int64(q * float64(h.count-1))
	for i, n := range h.bucket {
		if rank < n {
			return bucketValue(i)
		}
		rank -= n
	}
	return bucketValue(buckets - 1)
}
