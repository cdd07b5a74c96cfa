package client

import "time"

// clock is the time as sessions need it. Everything else uses package time directly.
type clock interface{ now() instant }

// instant is a moment on two clocks, both counted from the start of the client. The monotonic one never jumps but stands
// still while the machine is suspended; the wall clock jumps but keeps counting. Where they disagree, somebody slept.
type instant struct{ mono, wall time.Duration }

// since returns the monotonic time from t0 to t, and by how much the wall clock ran ahead of it in between.
func (t instant) since(t0 instant) (elapsed, jump time.Duration) {
	elapsed = t.mono - t0.mono
	return elapsed, max(0, (t.wall-t0.wall)-elapsed)
}

type realClock struct{ start time.Time }

func systemClock() clock { return realClock{start: time.Now()} }

func (c realClock) now() instant {
	now := time.Now()
	// Round(0) strips the monotonic reading, so that the second difference is one of wall clocks.
	return instant{mono: now.Sub(c.start), wall: now.Round(0).Sub(c.start.Round(0))}
}
