package server

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/wal"
)

const (
	// defaultStallTimeout is the default of Checks.StallTimeout, unless two
	// election timeouts are more.
	defaultStallTimeout = 30 * time.Second
	// slowDiskMin is the least time after which a write of the log makes its
	// leader hand over, if an election timeout is not more: a handover is not
	// free, and shorter waits are common where a disk has other work to do.
	slowDiskMin = time.Second
	// yieldEvery is the least time between two handovers by one member: where all
	// disks are slow, changing the leader is no help.
	yieldEvery = time.Minute
)

// diskWatch tells how long the write to the log that is under way has taken.
type diskWatch struct {
	began atomic.Int64          // nanoseconds since epoch, plus one; 0 while nothing is written
	epoch time.Time             // immutable
	took  func(seconds float64) // is told how long each write with a sync took
	last  atomic.Int64          // nanoseconds that the last write with a sync took
}

// quickSync is how long a sync takes at most for who waits for it to do nothing else meanwhile.
const quickSync = time.Millisecond

// quick reports whether the last write took little time.
func (d *diskWatch) quick() bool { return d.last.Load() < int64(quickSync) }

func (d *diskWatch) begin() time.Duration {
	now := time.Since(d.epoch)
	d.began.Store(int64(now) + 1)
	return now
}

func (d *diskWatch) end(began time.Duration, synced bool) {
	d.began.Store(0)
	if !synced {
		return
	}
	took := time.Since(d.epoch) - began
	d.last.Store(int64(took))
	if d.took != nil {
		d.took(took.Seconds())
	}
}

// waits returns how long the present write has taken, and which it is.
func (d *diskWatch) waits() (took time.Duration, id int64) {
	began := d.began.Load()
	if began == 0 {
		return 0, 0
	}
	return time.Since(d.epoch) - time.Duration(began-1), began
}

// write writes a batch to the log.
func (a *appender) write(b wal.Batch, sync bool) error {
	began := a.disk.begin()
	defer a.disk.end(began, sync)
	return a.log.Append(b, sync)
}

// watchDisk is told by the loop's clock that the write to the log that is under
// way takes long. A leader then hands over to a
// member with a better disk. If it takes longer than StallTimeout, the member
// ends: it can acknowledge nothing, and as long as it seems to live, it is
// waited for.
func (s *Server) watchDisk(stop <-chan struct{}) {
	var slow int64 // the write that was reported
	var yielded time.Time
	for {
		select {
		case <-stop:
			return
		case <-s.stopped.Done():
			return
		case <-s.loop.slow:
		}
		took, id := s.appender.disk.waits()
		if took > s.cfg.Checks.StallTimeout {
			s.fail(fmt.Errorf("%w: one write of the log has taken %s", ErrStalled, took.Round(time.Millisecond)))
			return
		}
		if took <= s.cfg.Checks.slowDisk || id == slow {
			continue
		}
		slow = id
		s.meters.care.slowSyncs.Add(1)
		s.log.Warn("the log's disk is slow", "waited", took, "leading", s.leading())
		if s.leading() && time.Since(yielded) >= yieldEvery {
			yielded = time.Now()
			s.yield()
		}
	}
}

// lookAtDisk is called when the loop's clock ticks.
func (l *loop) lookAtDisk() {
	if took, _ := l.out.appender.disk.waits(); l.slowAfter > 0 && took > l.slowAfter {
		select {
		case l.slow <- struct{}{}:
		default:
		}
	}
}

// yield hands leadership over because this member's disk is slow.
func (s *Server) yield() {
	ctx, cancel := context.WithTimeout(s.stopped, s.cfg.ElectionTimeout)
	defer cancel()
	s.handOver(ctx)
	if !s.leading() {
		s.meters.care.handovers.Add(1)
		s.log.Warn("leadership was handed over, because the log's disk is slow")
	}
}

// withCareDefaults fills in what concerns checks.
func (c Config) withCareDefaults() Config {
	if c.Checks.StallTimeout == 0 {
		c.Checks.StallTimeout = max(defaultStallTimeout, 2*c.ElectionTimeout)
	}
	if c.Checks.every == 0 {
		c.Checks.every = checkInterval
	}
	if c.Checks.hold == 0 {
		c.Checks.hold = quotaHold
	}
	if c.Checks.slowDisk == 0 {
		c.Checks.slowDisk = max(slowDiskMin, c.ElectionTimeout)
	}
	return c
}

// validateCare reports what can not be used of the checks.
func (c Config) validateCare() error {
	if c.Checks.StallTimeout < c.ElectionTimeout {
		return fmt.Errorf("stall timeout %s must not be below election-timeout %s", c.Checks.StallTimeout, c.ElectionTimeout)
	}
	if c.Checks.CorruptInterval < 0 {
		return fmt.Errorf("corrupt-check-time %s must not be negative", c.Checks.CorruptInterval)
	}
	return nil
}
