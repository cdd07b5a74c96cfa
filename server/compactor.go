package server

import (
	"fmt"
	"strconv"
	"time"
)

// retention says how much history auto compaction leaves: what was written in
// the last period, or the last revisions. Both zero: no limit of this kind.
type retention struct {
	period    time.Duration
	revisions int64
}

// parseRetention reads etcd's pair of flags. A plain number is hours in the
// periodic mode, as in etcd.
func parseRetention(mode, value string) (retention, error) {
	n, numeric := int64(0), false
	if v, err := strconv.ParseInt(value, 10, 64); err == nil {
		n, numeric = v, true
	}
	switch mode {
	case "periodic":
		d, err := time.ParseDuration(value)
		if numeric {
			d, err = time.Duration(n)*time.Hour, nil
		}
		if err != nil || d < 0 {
			return retention{}, fmt.Errorf("auto-compaction-retention %q is not a duration such as 1h or 30m", value)
		}
		return retention{period: d}, nil
	case "revision":
		if !numeric || n < 0 {
			return retention{}, fmt.Errorf("auto-compaction-retention %q is not a number of revisions, as mode \"revision\" needs", value)
		}
		return retention{revisions: n}, nil
	default:
		return retention{}, fmt.Errorf("auto-compaction-mode %q is neither \"periodic\" nor \"revision\"", mode)
	}
}

// sample is the revision that the store had at a time.
type sample struct {
	at       time.Time
	revision int64
}

// compactor decides how far history may go. It is a value of the keeper
// goroutine of one member and proposes nothing itself.
type compactor struct {
	keep         retention
	historyBytes int64
	samples      []sample // ascending; of the last period, at most samplesMax
}

// samplesMax is how many times within a period the revision is sampled: the
// precision of a periodic retention.
const samplesMax = 60

// target returns the revision up to which history may be compacted now, or 0.
// history is the size of what is not current.
func (c *compactor) target(now time.Time, revision, compacted, history int64) int64 {
	target := int64(0)
	if c.keep.revisions > 0 {
		target = revision - c.keep.revisions
	}
	if c.keep.period > 0 {
		target = max(target, c.periodic(now, revision))
	}
	if history > c.historyBytes {
		// Half of the history goes at once, so that a store at its bound does not
		// compact with every batch. Revisions are a fair measure of bytes.
		target = max(target, halfway(compacted, revision))
	}
	if target <= max(compacted, 1) {
		return 0
	}
	return target
}

// halfway returns a revision between two, and the later one if there is none: one
// revision may have deleted all that there was.
func halfway(compacted, revision int64) int64 {
	if revision-compacted < 2 {
		return revision
	}
	return compacted + (revision-compacted)/2
}

// periodic returns the revision of one period ago, 0 while there is none.
func (c *compactor) periodic(now time.Time, revision int64) int64 {
	every := c.keep.period / samplesMax
	if n := len(c.samples); n == 0 || now.Sub(c.samples[n-1].at) >= every {
		c.samples = append(c.samples, sample{now, revision})
	}
	old := int64(0)
	for len(c.samples) > 0 && now.Sub(c.samples[0].at) >= c.keep.period {
		old = c.samples[0].revision
		c.samples = c.samples[1:]
	}
	return old
}
