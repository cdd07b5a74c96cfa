package server

import (
	"math"
	"sync/atomic"
	"time"
)

// measures count what the member does, for those who watch over it. All fields
// may be read at any time; those that count only grow.
type measures struct {
	logSyncs    durations // writes of the log that waited for the disk
	saves       durations // checkpoints written
	slowSyncs   atomic.Int64
	handovers   atomic.Int64 // of leadership, because of a slow disk
	leaderships atomic.Int64 // changes of leader seen
	checks      atomic.Int64 // comparisons with the other members that all of them answered
	divergences atomic.Int64 // members found to differ
	refusals    atomic.Int64 // requests refused by the quota or an alarm
}

// durationBuckets is how many bounds a histogram has: 1 ms, twice that, and so
// on up to 8.192 s, etcd's for its log.
const durationBuckets = 14

// durations is a histogram of how long something took.
type durations struct {
	buckets [durationBuckets + 1]atomic.Int64 // the last is for what took longer than all bounds
	nanos   atomic.Int64
}

// bound returns the upper end of a bucket.
func (d *durations) bound(i int) time.Duration {
	if i >= durationBuckets {
		return math.MaxInt64
	}
	return time.Millisecond << i
}

func (d *durations) observe(took time.Duration) {
	i := 0
	for took > d.bound(i) {
		i++
	}
	d.buckets[i].Add(1)
	d.nanos.Add(int64(took))
}

// count returns how many were observed, and how long they took together.
func (d *durations) count() (n int64, sum time.Duration) {
	for i := range d.buckets {
		n += d.buckets[i].Load()
	}
	return n, time.Duration(d.nanos.Load())
}
