package main

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/recipes/fence"
)

// tenure is the time for which one worker held the lock, and trusted it.
type tenure struct {
	worker string
	token  fence.Token
	from   time.Time
	to     time.Time
	// writes counts those that the store acknowledged; recorded says that the
	// cluster acknowledged a record of the tenure.
	writes   int
	recorded bool
}

// tenures collects what the workers report.
type tenures struct {
	mu  sync.Mutex // protects all
	all []tenure
}

func (t *tenures) add(one tenure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, one)
}

func (t *tenures) snapshot() []tenure {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.all)
}

// check is one question about the whole run, and its answer.
type check struct {
	name   string
	detail string
	faults []string
}

func (c *check) faultf(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// judge asks whether the lock did its work. It believes nothing but the
// store's own contents and journal, and the clock of this process.
func judge(value int, journal []entry, held []tenure) []check {
	return []check{checkWrites(value, journal, held), checkTokens(journal), checkOverlap(held)}
}

// Every write that a worker was told is done has to be in the number: it was
// counted up once for each of them.
func checkWrites(value int, journal []entry, held []tenure) check {
	acknowledged := 0
	for _, t := range held {
		acknowledged += t.writes
	}
	c := check{
		name:   "No write was lost",
		detail: fmt.Sprintf("%d were acknowledged, the store counted to %d", acknowledged, value),
	}
	if acknowledged != value {
		c.faultf("%d writes were acknowledged, but the store holds %d", acknowledged, value)
	}
	if len(journal) != acknowledged {
		c.faultf("%d writes were acknowledged, but the journal has %d", acknowledged, len(journal))
	}
	if acknowledged == 0 {
		c.faultf("nobody wrote anything, so nothing was shown")
	}
	return c
}

// In the order in which the store took the writes, tokens never get smaller,
// and a token belongs to one worker.
func checkTokens(journal []entry) check {
	c := check{name: "Tokens only grew"}
	var last entry
	for i, e := range journal {
		switch {
		case i > 0 && e.token < last.token:
			c.faultf("write %d by %s has token %d, after %d by %s", i+1, e.worker, e.token, last.token, last.worker)
		case i > 0 && e.token == last.token && e.worker != last.worker:
			c.faultf("%s and %s both had token %d", last.worker, e.worker, e.token)
		}
		last = e
	}
	if len(journal) > 0 {
		c.detail = fmt.Sprintf("from %d to %d", journal[0].token, last.token)
	}
	return c
}

// No tenure begins before the one before it has ended.
func checkOverlap(held []tenure) check {
	c := check{name: "Nobody overlapped"}
	held = slices.SortedFunc(slices.Values(held), func(a, b tenure) int { return cmp.Compare(a.token, b.token) })
	workers := make(map[string]bool)
	for i, t := range held {
		workers[t.worker] = true
		if i == 0 {
			continue
		}
		before := held[i-1]
		if t.token == before.token {
			c.faultf("%s and %s both held the lock with token %d", before.worker, t.worker, t.token)
		}
		if t.from.Before(before.to) {
			c.faultf("%s held the lock %s before %s had let go of it", t.worker, before.to.Sub(t.from), before.worker)
		}
	}
	c.detail = fmt.Sprintf("%d holders in turn, among %d workers", len(held), len(workers))
	return c
}
