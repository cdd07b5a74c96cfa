package discovery

import "time"

const (
	defaultEjectErrors = 2
	defaultEjectWindow = 30 * time.Second
	defaultEjectTime   = 30 * time.Second
	defaultEjectMax    = 5 * time.Minute
	defaultEjectShare  = 50
	// ejectDoublings bounds how often the time is doubled.
	ejectDoublings = 16
)

// Ejection says when a Provider stops to use an instance that fails, though it is
// registered. The zero value of each field means its default.
//
// An instance with Errors failures in Window, without a success in between, is
// ejected for Time. Afterwards it is on probation: the next failure ejects it
// again, for twice the time, up to Max, and a success clears it. What a request
// answers that was sent before the ejection does not count.
type Ejection struct {
	Errors int           // default 2
	Window time.Duration // default 30 s
	Time   time.Duration // default 30 s
	Max    time.Duration // default 5 min
	// Share is how many of all instances can be ejected at a time, in percent: when
	// more fail, the fault is likely to be elsewhere. Default 50.
	Share int
	// Off turns it off.
	Off bool
}

func (e Ejection) withDefaults() Ejection {
	if e.Errors <= 0 {
		e.Errors = defaultEjectErrors
	}
	if e.Window <= 0 {
		e.Window = defaultEjectWindow
	}
	if e.Time <= 0 {
		e.Time = defaultEjectTime
	}
	if e.Max <= 0 {
		e.Max = max(defaultEjectMax, e.Time)
	}
	if e.Share <= 0 {
		e.Share = defaultEjectShare
	}
	return e
}

// conduct is how an instance has behaved. It is protected by its Provider's mutex.
type conduct struct {
	failures  []time.Time // without a success since, the oldest first; at most Ejection.Errors
	until     time.Time   // of the ejection
	ejections int         // one after the other; not zero after the end of one means probation
}

// ejected says whether the instance is not to be used.
func (c *conduct) ejected(now time.Time) bool { return now.Before(c.until) }

// success clears an instance.
func (c *conduct) success(now time.Time) {
	if !c.ejected(now) {
		c.failures, c.ejections = nil, 0
	}
}

// failure notes one, and says whether the instance deserves to be ejected.
func (c *conduct) failure(now time.Time, e Ejection) bool {
	if e.Off || c.ejected(now) {
		return false
	}
	for len(c.failures) > 0 && (now.Sub(c.failures[0]) >= e.Window || len(c.failures) >= e.Errors) {
		c.failures = c.failures[1:]
	}
	c.failures = append(c.failures, now)
	return c.ejections > 0 || len(c.failures) >= e.Errors
}

// eject begins an ejection.
func (c *conduct) eject(now time.Time, e Ejection) {
	c.failures = nil
	c.until = now.Add(min(e.Max, e.Time<<min(c.ejections, ejectDoublings)))
	c.ejections++
}
