package discovery

import (
	"context"
	"time"
)

const (
	defaultHealthEvery = 5 * time.Second
	defaultHealthFall  = 2
	defaultHealthRise  = 1
)

// Health says how an instance looks after itself. The zero value of each field but
// Check means its default.
type Health struct {
	// Check returns nil when the instance can serve. Its context ends after Timeout.
	Check func(ctx context.Context) error
	// Every is the time from one check to the next. Default 5 s.
	Every time.Duration
	// Timeout bounds one check. Default: Every.
	Timeout time.Duration
	// Fall is how many checks have to fail, one after the other, before the
	// instance is taken out. Default 2.
	Fall int
	// Rise is how many have to succeed, one after the other, before it is put
	// back. Default 1.
	Rise int
}

func (h Health) withDefaults() Health {
	if h.Every <= 0 {
		h.Every = defaultHealthEvery
	}
	if h.Timeout <= 0 {
		h.Timeout = h.Every
	}
	if h.Fall <= 0 {
		h.Fall = defaultHealthFall
	}
	if h.Rise <= 0 {
		h.Rise = defaultHealthRise
	}
	return h
}

// once runs one check.
func (h Health) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	return h.Check(ctx)
}

// pass runs checks until one succeeds. Without that, it returns the last failure
// when ctx ends.
func (h Health) pass(ctx context.Context) error {
	for {
		err := h.once(ctx)
		if err == nil {
			return nil
		}
		if !sleep(ctx, h.Every) {
			return err
		}
	}
}

// run runs checks, of an instance that is up, until ctx ends, and tells each
// change.
func (h Health) run(ctx context.Context, tell func(up bool)) {
	up, streak := true, 0 // streak counts results that speak for a change
	for sleep(ctx, h.Every) {
		ok := h.once(ctx) == nil
		if ctx.Err() != nil {
			return
		}
		if ok == up {
			streak = 0
			continue
		}
		streak++
		if up && streak >= h.Fall || !up && streak >= h.Rise {
			up, streak = !up, 0
			tell(up)
		}
	}
}

// sleep returns false when ctx ends before the time is over.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
