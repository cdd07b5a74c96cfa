package lock

import "github.com/latchkey-go/latchkey/client"

// ticket is a contender of a semaphore, as the rules below see it.
type ticket struct {
	key     string
	weight  int64
	waits   bool            // it has said so; one that has not has permits, or is new and about to say so
	created client.Revision // the place in the queue
}

// counts says whether other's permits count against a contender that was created
// at me, given when the limit was changed last.
//
// Those older count, whether they have permits or wait: they come first. Of the
// newer ones, those count that may have been let in beside a larger limit. With
// the limit as it is, nobody newer is let in unless me fits as well.
func counts(other ticket, me, limited client.Revision) bool {
	return other.created < me || !other.waits && other.created > me && other.created < limited
}

// fits says whether weight more permits can be given to a contender, given those
// that count. Those never become more, or heavier, while the limit stays: then,
// what fits once fits for good.
func fits(counted []ticket, weight, limit int64) bool {
	for _, t := range counted {
		if t.weight > limit-weight { // so nothing overflows
			return false
		}
		weight += t.weight
	}
	return weight <= limit
}

// ahead returns whom a contender has to watch that does not fit, given those older
// than it, the newest first. It is the one before it if that one waits too: it will
// say when it has got in, or leave. Behind one that does not wait, the contender is
// the head of the queue, and must watch all that count, and the limit.
func ahead(older []ticket) (t ticket, head bool) {
	if len(older) > 0 && older[0].waits {
		return older[0], false
	}
	return ticket{}, true
}
