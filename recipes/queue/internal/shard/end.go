package shard

import (
	"fmt"
	"slices"
)

// EndKind says how a run has ended.
type EndKind uint8

// The ends of a run.
const (
	Done   EndKind = iota // the job is done, and deleted
	Retry                 // it runs again, at End.At
	Dead                  // it goes to the dead letters
	Return                // it was not really started, and is anybody's again
)

// End is how a run has ended.
type End struct {
	Kind   EndKind
	At     int64  // ms since 1970, of a Retry
	Free   bool   // the run does not count as a failure
	Error  string // of a Retry or Dead
	Result []byte // what is kept of a job that is done; nil for nothing
	Lease  int64  // that the result ends with
}

// Settle ends a run. Its claim is over once Ended or Lost names it.
func (s *Shard) Settle(j Job, e End, now int64) {
	c := j.Claim
	switch {
	case c.over:
	case c.Item.Chunk > 0:
		s.settlePart(j, e, now)
	case e.Kind == Return:
		s.giveBack(c)
	case e.Kind == Retry && c.Group != "" && s.limits.Group == 1:
		// In place, so that no later one of the group passes it by.
		if !e.Free {
			c.Failures++
		}
		if s.Draining { // it is adopted, as it is
			c.running, c.Parked, c.kept, s.dirty = 0, true, true, true
			return
		}
		c.running, c.next, c.notBefore, c.unwritten = 0, 0, e.At, true
		c.Item.LastError = e.Error
		s.dirty = true
		s.enqueue(c)
	case e.Kind == Done && e.Result == nil:
		s.acks = append(s.acks, j)
	default:
		s.move(j, e, now)
	}
}

// giveBack removes a claim from the journal and makes the item ready.
func (s *Shard) giveBack(c *Claim) {
	c.running = 0
	if c.Group != "" && !s.Draining { // so that no later one of the group passes it by
		c.next = 0
		s.enqueue(c)
		return
	}
	s.leave(c)
	switch {
	case s.Draining:
	case c.kept:
		c.kept, c.unwritten, c.next = false, true, 0
		s.enqueue(c)
	case s.token != 0:
		s.back(c.Item)
	}
}

// ack ends what is done: all that has gathered while the last ones were under
// way.
func (s *Shard) ack() {
	if s.acking || len(s.acks) == 0 {
		return
	}
	n := min(len(s.acks), endsMax)
	batch := slices.Clone(s.acks[:n])
	s.acks = slices.Delete(s.acks, 0, n)
	key := JournalKey(s.N, s.me)
	t := Txn{If: []Compare{createIs(key, s.jCreate)}, Else: []Op{get(key)}}
	for _, j := range batch {
		it := j.Claim.Item
		t.Then = append(t.Then, del(it.Key))
		if it.Unique != "" {
			t.Then = append(t.Then, s.freeUnique(it))
		}
	}
	s.acking = true
	s.wishes = append(s.wishes, &Request{Txn: t, done: func(a *Answer) {
		s.acking = false
		if a.Succeeded {
			s.over(batch...)
		} else {
			s.journalGone(a.Results[0].one())
		}
	}})
}

// over notes ends that are in the store.
func (s *Shard) over(jobs ...Job) {
	for _, j := range jobs {
		if !j.Claim.over {
			s.Ended = append(s.Ended, j)
			s.drop(j.Claim)
		}
	}
	// Others look into our journal once the shard is theirs, and whoever adopts it
	// wants to find nothing.
	if s.token == 0 || s.Draining {
		s.dirty = s.dirty || s.jMod != 0
	}
}

// journalGone judges our journal as it was when an end was refused.
func (s *Shard) journalGone(kv KV) {
	if kv.Create != s.jCreate && s.jCreate != 0 {
		s.journalLost()
	}
}

// freeUnique deletes the unique key of a job if it is still its own.
func (s *Shard) freeUnique(it *Item) Op {
	key := UniqueKey(it.Unique)
	return nest(Txn{If: []Compare{{Key: key, Field: Value, Value: []byte(it.Job)}}, Then: []Op{del(key)}})
}

// Guard returns what holds as long as the job is ours and has not ended.
func (s *Shard) Guard(c *Claim) []Compare {
	guard := []Compare{createIs(JournalKey(s.N, s.me), s.jCreate), createIs(c.Key, c.Create)}
	if s.limits.Planted == BlindEnd {
		guard = guard[:1]
	}
	return guard
}

// move ends a run by writing the item elsewhere, or its result.
func (s *Shard) move(j Job, e End, now int64) {
	c := j.Claim
	key := JournalKey(s.N, s.me)
	create := s.jCreate
	t := Txn{If: s.Guard(c), Else: []Op{get(key), get(c.Key)}}
	t.Then = append([]Op{del(c.Key)}, s.ending(j.Item(), e, now, Record(c.Key))...)
	s.wishes = append(s.wishes, &Request{Txn: t, done: func(a *Answer) {
		if a.Succeeded || a.Results[0].one().Create == create {
			s.over(j) // the item is gone: an earlier attempt, or it was cancelled
		} else {
			s.journalGone(a.Results[0].one())
		}
	}})
}

// ending returns what an end writes besides the item's deletion.
func (s *Shard) ending(it *Item, e End, now int64, record string) (ops []Op) {
	unique := it.Unique != "" && e.Kind != Retry && e.Kind != Return
	if e.Error != "" {
		it.LastError = e.Error[:min(len(e.Error), lastWordMax)]
	}
	switch e.Kind {
	case Done:
		if e.Result != nil {
			op := put(ResultKey(it.Job), e.Result)
			op.Lease = e.Lease
			ops = append(ops, op)
		}
	case Return:
		ops = append(ops, put(DueKey(s.N, now, record), it.Encode()))
	case Retry:
		if !e.Free {
			it.Failures++
		}
		if it.AtStart { // it was free since the first start
			it.Unique = ""
		}
		ops = append(ops, put(DueKey(s.N, e.At, record), it.Encode()))
	case Dead:
		ops = append(ops, put(DeadKey(it.Job), it.Encode()))
		if e.Result != nil {
			op := put(ResultKey(it.Job), e.Result)
			op.Lease = e.Lease
			ops = append(ops, op)
		}
	}
	if unique {
		ops = append(ops, s.freeUnique(it))
	}
	return ops
}

func partRecord(key string, part int) string { return fmt.Sprintf("%s.%x", Record(key), part) }

// settlePart ends the run of a message of a chunk: the journal notes it, and in
// the same step the message goes where it has to.
func (s *Shard) settlePart(j Job, e End, now int64) {
	c := j.Claim
	c.running--
	clearBit(c.out, j.Part)
	if e.Kind == Return {
		c.next = min(c.next, j.Part)
		switch {
		case s.Draining && c.running == 0:
			s.leave(c)
		case !slices.Contains(s.order, c):
			s.enqueue(c)
		}
		s.dirty = s.dirty || c.explode
		return
	}
	c.Done = setBit(slices.Clone(c.Done), j.Part)
	ops := s.ending(j.Item(), e, now, partRecord(c.Key, j.Part))
	if len(ops) > 0 {
		ops = []Op{nest(Txn{If: []Compare{createIs(c.Key, c.Create)}, Then: ops})}
	}
	s.parts = append(s.parts, partEnd{job: j, ops: ops})
	s.dirty = true
	if s.Draining && c.running == 0 && c.left() > 0 {
		s.leave(c)
	}
}

// TxGuard returns the conditions and operations that end a job inside a
// transaction of its handler's. ok is false while that is not possible: ask
// again after the next answer. TxDone must follow.
func (s *Shard) TxGuard(j Job) (guard []Compare, ops []Op, ok bool) {
	c := j.Claim
	it := j.Item()
	if c.Item.Chunk == 0 {
		ops = []Op{del(c.Key)}
		if it.Unique != "" {
			ops = append(ops, s.freeUnique(it))
		}
		return s.Guard(c), ops, true
	}
	if s.writing || c.explode {
		return nil, nil, false
	}
	key := JournalKey(s.N, s.me)
	c.Done = setBit(slices.Clone(c.Done), j.Part)
	t := Txn{}
	w := &write{}
	s.parts = append(s.parts, partEnd{job: j})
	s.compose(w, &t, 0, key)
	s.writing, s.dirty, s.current = true, false, w
	return []Compare{modIs(key, s.jMod), createIs(c.Key, c.Create)}, t.Then, true
}

// TxEnd is what came of a handler's transaction.
type TxEnd uint8

// The ends of a handler's transaction.
const (
	Committed TxEnd = iota
	Refused         // the handler's own conditions did not hold: nothing was executed
	Unguarded       // the job is not ours any more, or an earlier attempt was executed
)

// TxDone tells what came of a transaction after TxGuard, at which revision, and
// for Unguarded what our journal and the item were afterwards.
func (s *Shard) TxDone(j Job, end TxEnd, rev int64, journal, item KV) (ended bool) {
	c := j.Claim
	if c.Item.Chunk == 0 {
		switch {
		case end == Committed, end == Unguarded && journal.Create == s.jCreate && item.Create != c.Create:
			s.over(j)
			return true
		case end == Unguarded:
			s.journalGone(journal)
		}
		return false
	}
	w := s.current
	s.writing, s.current = false, nil
	switch {
	case c.over:
		return false
	case end == Committed:
		c.running--
		clearBit(c.out, j.Part)
		s.apply(w, rev, 0)
		return true
	case end == Unguarded && journal.Mod != s.jMod && s.says(journal, w):
		c.running--
		clearBit(c.out, j.Part)
		s.apply(w, journal.Mod, journal.Create)
		return true
	}
	clearBit(c.Done, j.Part)
	s.parts = slices.DeleteFunc(s.parts, func(p partEnd) bool { return p.job == j })
	s.dirty = true
	if end == Unguarded && journal.Create != s.jCreate {
		s.journalLost()
	}
	return false
}

func clearBit(set []byte, i int) {
	if i/8 < len(set) {
		set[i/8] &^= 1 << (i % 8)
	}
}
