package shard

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Claim is an item that our journal names, until it has ended.
type Claim struct {
	Entry
	Item *Item // nil until it was read

	seq       int64  // age: adopted ones are older than all others
	next      int    // message of a chunk to start next
	running   int    // messages that run, or whose end is under way
	out       []byte // a bit for each of those of a chunk
	notBefore int64  // ms: a retry in place
	unwritten bool   // may start once the journal says so
	explode   bool   // its messages are to become items of their own
	kept      bool   // stays in the journal when we leave, for who adopts it
	over      bool
}

// partEnd is the end of a message of a chunk, and what is written besides the
// journal's note of it.
type partEnd struct {
	job Job
	ops []Op
}

// Job is one message of a claim.
type Job struct {
	Claim *Claim
	Part  int
}

// Item returns the message as an item of its own.
func (j Job) Item() *Item {
	it := j.Claim.Item.part(j.Part)
	it.Failures += j.Claim.Failures
	it.Crashes += j.Claim.Crashes
	return it
}

// Waits says that the job was given back inside its worker: it will be started
// again, as another run.
func (j Job) Waits() bool {
	c := j.Claim
	if c.Item != nil && c.Item.Chunk > 0 {
		return !c.over && !bit(c.Done, j.Part) && !bit(c.out, j.Part)
	}
	return !c.over && c.running == 0
}

// Over says that the claim has ended, or is lost.
func (j Job) Over() bool { return j.Claim.over }

// left counts the messages that have not ended.
func (c *Claim) left() int {
	if c.Item == nil || c.Item.Chunk == 0 {
		return 1
	}
	return c.Item.Chunk - countBits(c.Done, c.Item.Chunk)
}

// crashes counts the workers that ended with it.
func (c *Claim) crashes() int {
	if c.Item == nil {
		return c.Crashes
	}
	return c.Crashes + c.Item.Crashes
}

// startable says that there is a message which was not started.
func (c *Claim) startable() bool {
	return c.Item != nil && !c.over && c.next < c.Item.parts()
}

// skip moves next behind messages that run or have ended.
func (c *Claim) skip() {
	for c.Item.Chunk > 0 && c.next < c.Item.Chunk && (bit(c.Done, c.next) || bit(c.out, c.next)) {
		c.next++
	}
}

// write is one rewriting of our journal, and what else it does.
type write struct {
	value    []byte
	added    []*Claim
	adopted  string // the worker whose journal it takes over
	pending  []*Claim
	parts    []partEnd
	finished []*Claim // chunks of which nothing is left
	exploded []*Claim
}

// write asks for the journal to be rewritten if it should say something else
// than it does. There is one such request at a time.
func (s *Shard) write(now int64, budget int) {
	if !s.dirty && !s.wants(budget) {
		return
	}
	w := &write{}
	key := JournalKey(s.N, s.me)
	t := Txn{If: []Compare{modIs(key, s.jMod)}, Else: []Op{get(TokenKey(s.N)), get(key)}}
	if s.token != 0 && !s.Draining {
		s.adopt(w, &t)
		if !s.Paused && w.adopted == "" {
			s.claim(w, budget)
		}
	}
	if len(w.added) > 0 || w.adopted != "" {
		if s.limits.Planted != BlindClaim {
			t.If = append(t.If, modIs(TokenKey(s.N), s.token))
		}
		if w.adopted == "" {
			t.If = append(t.If, missing(PauseKey))
		}
	} else if !s.dirty {
		return
	}
	s.compose(w, &t, now, key)
	again := &Request{Txn: t, Alone: w.adopted != ""}
	again.done = func(a *Answer) { s.written(w, a, again.Again) }
	s.writing, s.dirty, s.current = true, false, w
	s.wishes = append(s.wishes, again)
}

// wants says that there may be something to adopt or to claim.
func (s *Shard) wants(budget int) bool {
	return s.token != 0 && !s.Draining && (len(s.foreign) > 0 || !s.Paused && budget > 0 && s.Backlog() > 0)
}

// claim picks what to claim: what is ready, in order. Messages of a group that
// others run are passed by, and so is what is more of one group than is useful.
func (s *Shard) claim(w *write, budget int) {
	if budget <= 0 {
		return
	}
	ahead := make(map[string]int)
	for _, c := range s.claims {
		if c.Group != "" {
			ahead[c.Group]++
		}
	}
	at := make([]int, len(s.lanes)) // how much of each lane was looked at
	for budget > 0 && len(s.claims)+len(w.added) < journalMax/4 {
		i := s.turn(at)
		if i < 0 {
			break
		}
		l := s.lanes[i]
		it := l.items[at[i]]
		if s.claims[it.Key] == nil && s.held(it.Group, ahead) {
			at[i]++
			continue
		}
		if at[i] == 0 {
			l.items[0], l.items = nil, l.items[1:]
		} else {
			l.items = slices.Delete(l.items, at[i], at[i]+1)
		}
		if s.claims[it.Key] != nil {
			continue
		}
		ahead[it.Group]++
		budget -= it.parts()
		s.take(i, it.parts())
		s.seq++
		c := &Claim{
			Entry: Entry{Key: it.Key, Create: it.Create, Group: it.Group, Parked: it.Crashes > 0},
			Item:  it, seq: s.seq,
		}
		if s.limits.Weights == nil {
			c.seq += int64(i) << 40 // started before all that is less urgent
		}
		w.added = append(w.added, c)
	}
}

// turn returns the lane to claim from, -1 for none: the most urgent one, or with
// weights the one that has had the least for its own.
func (s *Shard) turn(at []int) int {
	best := -1
	for i, l := range s.lanes {
		left := len(l.items) > at[i]
		switch {
		case len(l.items) == 0 && l.horizon != all:
			return -1 // it is not known yet whether there is something so urgent
		case left && s.limits.Weights == nil:
			return i
		case left && (best < 0 || l.had < s.lanes[best].had):
			best = i
		}
	}
	return best
}

// take counts what is claimed from a lane, by its weight. A lane that had nothing
// to claim for a while does not make up for that.
func (s *Shard) take(i, messages int) {
	l := s.lanes[i]
	l.had += float64(messages) / float64(s.limits.weight(i))
	for j, other := range s.lanes {
		if len(other.items) == 0 {
			s.lanes[j].had = max(other.had, l.had)
		}
	}
}

// held says that no more of the group should be claimed now.
func (s *Shard) held(group string, ahead map[string]int) bool {
	if group == "" {
		return false
	}
	if s.HoldGroups || s.unsure[group] > 0 {
		return true
	}
	for _, f := range s.foreign {
		if f.groups[group] {
			return true
		}
	}
	return ahead[group] >= 2*s.limits.Group
}

// compose fills in what the journal will say.
func (s *Shard) compose(w *write, t *Txn, now int64, key string) {
	var entries []Entry
	for _, c := range s.sorted() {
		if c.Item != nil && c.Item.Chunk > 0 && (c.left() == 0 || s.limits.Planted == ForgottenPart && len(c.Done) > 0) {
			w.finished = append(w.finished, c)
			t.Then = append(t.Then, del(c.Key))
			continue
		}
		if c.explode && c.running == 0 {
			w.exploded = append(w.exploded, c)
			t.Then = append(t.Then, s.explosion(c, now))
			continue
		}
		if c.unwritten {
			w.pending = append(w.pending, c)
		}
		entries = append(entries, c.Entry)
	}
	for _, c := range w.added {
		entries = append(entries, c.Entry)
		if c.Item != nil && c.Item.AtStart && c.Item.Unique != "" {
			t.Then = append(t.Then, s.freeUnique(c.Item))
		}
	}
	if len(entries) > 0 {
		w.value = EncodeJournal(entries)
		t.Then = append(t.Then, put(key, w.value))
	} else if s.jMod != 0 {
		t.Then = append(t.Then, del(key))
	}
	w.parts = slices.Clone(s.parts)
	for _, end := range w.parts {
		t.Then = append(t.Then, end.ops...)
	}
}

// sorted returns the claims in an order that is always the same.
func (s *Shard) sorted() []*Claim {
	return slices.SortedFunc(maps.Values(s.claims), func(a, b *Claim) int { return strings.Compare(a.Key, b.Key) })
}

// written takes the answer of a rewriting. again says that it was sent more than
// once.
func (s *Shard) written(w *write, a *Answer, again bool) {
	s.writing, s.current = false, nil
	if a.Succeeded {
		s.apply(w, a.Revision, 0)
		return
	}
	token, journal := a.Results[0].one(), a.Results[1].one()
	switch {
	case journal.Mod == s.jMod:
		// Not executed. If it was sent twice, the first one may still come, unless
		// the token is gone for good; the next rewriting puts an end to that.
		s.undo(w)
		if again && token.Mod == s.token && s.token != 0 {
			s.doubt, s.dirty = w, true
		}
	case s.says(journal, w):
		s.apply(w, journal.Mod, journal.Create)
	case s.doubt != nil && s.says(journal, s.doubt):
		s.undo(w)
		doubt := s.doubt
		s.reclaim(doubt)
		s.apply(doubt, journal.Mod, journal.Create)
		s.dirty = true
	default:
		s.undo(w)
		s.journalLost()
	}
	for i := 2; i < len(a.Results); i++ {
		if kv := a.Results[i].one(); kv.Key != "" {
			s.setForeign(Record(kv.Key), kv)
		} else {
			s.dropForeign(w.adopted)
		}
	}
	if s.token != 0 && token.Mod != s.token {
		s.lose()
	}
}

// says says whether the journal is as the write leaves it.
func (s *Shard) says(journal KV, w *write) bool {
	return string(journal.Value) == string(w.value) && (journal.Create != 0) == (w.value != nil)
}

// apply notes that a write was executed.
func (s *Shard) apply(w *write, mod, create int64) {
	s.doubt = nil
	switch {
	case w.value == nil:
		s.jMod, s.jCreate = 0, 0
	case create != 0:
		s.jMod, s.jCreate = mod, create
	default:
		if s.jCreate == 0 {
			s.jCreate = mod
		}
		s.jMod = mod
	}
	for _, c := range w.added {
		s.claims[c.Key] = c
		switch {
		case s.Draining:
			s.leave(c)
		case c.Item == nil:
			s.loads = append(s.loads, c)
		default:
			s.enqueue(c)
		}
	}
	for _, c := range w.pending {
		c.unwritten = false
	}
	for _, end := range w.parts {
		s.Ended = append(s.Ended, end.job)
		s.parts = slices.DeleteFunc(s.parts, func(p partEnd) bool { return p.job == end.job })
	}
	for _, c := range append(w.finished, w.exploded...) {
		s.drop(c)
	}
	if w.adopted != "" {
		s.dropAdopted(w.adopted)
	}
}

// undo puts back what a write that was not executed would have taken.
func (s *Shard) undo(w *write) {
	if s.token != 0 && w.adopted == "" {
		for i := len(w.added) - 1; i >= 0; i-- {
			s.back(w.added[i].Item)
		}
	}
	s.dirty = true // what else it said is still to be said
}

// reclaim takes what a doubtful write has claimed after all out of what is ready.
func (s *Shard) reclaim(w *write) {
	for _, c := range w.added {
		for _, l := range s.lanes {
			l.items = slices.DeleteFunc(l.items, func(it *Item) bool { return it.Key == c.Key })
		}
	}
}

// back makes an item ready again, before all others.
func (s *Shard) back(it *Item) {
	l := s.lanes[min(max(0, it.Lane), len(s.lanes)-1)]
	l.items = slices.Insert(l.items, 0, it)
}

// enqueue makes a claim wait for its start.
func (s *Shard) enqueue(c *Claim) {
	c.skip()
	i, _ := slices.BinarySearchFunc(s.order, c, func(a, b *Claim) int {
		return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.Key, b.Key))
	})
	s.order = slices.Insert(s.order, i, c)
}

// journalLost means that somebody else has adopted our claims.
func (s *Shard) journalLost() {
	s.jMod, s.jCreate, s.doubt = 0, 0, nil
	for _, c := range s.sorted() {
		if c.Item != nil {
			for part := range c.Item.parts() {
				s.Lost = append(s.Lost, Job{Claim: c, Part: part})
			}
		}
		s.drop(c)
	}
	s.acks, s.loads, s.parts, s.dirty = nil, nil, nil, false
}
