package client

import "time"

const (
	// trustDriftPart is how much faster than ours the server's clock may run: one part in a thousand.
	trustDriftPart = 1000
	// trustMarginMax and trustMarginPart bound what is kept free between the end of our trust and the earliest end of
	// the lease, for the time that it takes to stop: a twentieth of the TTL, at most 250 ms.
	trustMarginMax  = 250 * time.Millisecond
	trustMarginPart = 20
)

// trust is what an acknowledged renewal allows to believe. Immutable.
//
// The server counted the TTL from some moment after sentAt, so the lease can not end before sentAt + ttl on the server's
// clock, whatever happened to the acknowledgement on its way. That moment, less what clocks may drift apart and the
// margin, is the deadline: nobody else can own what the session owns before it.
type trust struct {
	sentAt instant // before the renewal left
	ttl    time.Duration
}

// margin is the time kept free at the end, and the jump of the wall clock that counts as a suspension.
func (t *trust) margin() time.Duration { return min(trustMarginMax, t.ttl/trustMarginPart) }

// lifetime is how long after sentAt the trust ends.
func (t *trust) lifetime() time.Duration { return t.ttl - t.ttl/trustDriftPart - t.margin() }

// patience is how long after sentAt the session becomes suspect.
func (t *trust) patience() time.Duration { return t.ttl / 2 }

// state judges the session at a moment. A jump of the wall clock makes it suspect but not lost: the jump may be a
// correction of the clock, and after a real suspension the next renewal tells the truth.
func (t *trust) state(now instant) State {
	elapsed, _ := now.since(t.sentAt)
	switch {
	case elapsed >= t.lifetime():
		return Lost
	case elapsed >= t.patience(), t.suspended(now):
		return Suspect
	}
	return Active
}

// suspended says that the process seems to have been suspended since the renewal, with its monotonic clock.
func (t *trust) suspended(now instant) bool {
	_, jump := now.since(t.sentAt)
	return jump > t.margin()
}

// remaining is the time until the deadline. The jump counts: that much time may have passed unseen.
func (t *trust) remaining(now instant) time.Duration {
	elapsed, jump := now.since(t.sentAt)
	return max(0, t.lifetime()-elapsed-jump)
}
