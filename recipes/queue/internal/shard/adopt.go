package shard

import (
	"maps"
	"slices"
)

// foreign is the journal of another worker of our shard.
type foreign struct {
	kv      KV
	entries []Entry
	groups  map[string]bool
	dead    bool // its worker's session is over
}

// setForeign notes what another's journal says. Items that are not in it any
// more have ended, or were given back.
func (s *Shard) setForeign(worker string, kv KV) {
	old := s.foreign[worker]
	if old != nil && kv.Mod <= old.kv.Mod {
		return
	}
	entries, _ := DecodeJournal(kv.Value) // what is damaged in it names nothing
	f := &foreign{kv: kv, entries: entries, groups: make(map[string]bool), dead: old != nil && old.dead}
	kept := make(map[string]bool)
	for _, e := range entries {
		kept[e.Key] = true
		s.parked[e.Key], s.known[e.Key] = true, true
		if e.Group != "" {
			f.groups[e.Group] = true
		}
	}
	s.foreign[worker] = f
	if old != nil {
		s.unpark(old, kept)
	}
}

// dropForeign notes that another's journal is gone.
func (s *Shard) dropForeign(worker string) {
	if f := s.foreign[worker]; f != nil {
		delete(s.foreign, worker)
		s.unpark(f, nil)
	}
}

func (s *Shard) unpark(f *foreign, kept map[string]bool) {
	for _, e := range f.entries {
		if !kept[e.Key] {
			delete(s.parked, e.Key)
			s.checks = append(s.checks, e)
			s.unsure[e.Group]++
		}
	}
}

// Foreign says whether other workers have claims of the shard: then their
// journals are to be watched, from the revision after Watched on.
func (s *Shard) Foreign() bool { return s.token != 0 && len(s.foreign) > 0 }

// Journal takes a change of a journal of the shard. One that was deleted has no
// value, and the revision of its deletion.
func (s *Shard) Journal(kv KV) {
	worker := Record(kv.Key)
	f := s.foreign[worker]
	switch {
	case s.token == 0 || worker == s.me || f == nil || kv.Mod <= f.kv.Mod:
	case kv.Create == 0 && !s.adopting(worker):
		s.dropForeign(worker)
	case kv.Create == 0:
	default:
		s.setForeign(worker, kv)
	}
}

// Journals takes all journals of the shard as they were read at once.
func (s *Shard) Journals(kvs []KV) {
	seen := make(map[string]bool)
	for _, kv := range kvs {
		seen[Record(kv.Key)] = true
		s.Journal(kv)
	}
	for _, worker := range slices.Sorted(maps.Keys(s.foreign)) {
		if !seen[worker] && !s.adopting(worker) {
			s.dropForeign(worker)
		}
	}
}

// adopting says that it may be us who have deleted a worker's journal: then the
// answer tells what became of its claims, which are not anybody's.
func (s *Shard) adopting(worker string) bool {
	return s.current != nil && s.current.adopted == worker || s.doubt != nil && s.doubt.adopted == worker
}

// Gone tells which workers' sessions live.
func (s *Shard) Gone(alive func(worker string) bool) {
	for worker, f := range s.foreign {
		f.dead = !alive(worker)
	}
}

// adopt takes over one journal of a worker that is no more. Each entry has cost
// a worker, except those that were not started since the last time.
func (s *Shard) adopt(w *write, t *Txn) {
	for _, worker := range slices.Sorted(maps.Keys(s.foreign)) {
		f := s.foreign[worker]
		if !f.dead || len(s.claims)+len(f.entries) > journalMax {
			continue
		}
		w.adopted = worker
		t.If = append(t.If, modIs(f.kv.Key, f.kv.Mod), missing(WorkerKey(worker)))
		t.Then = append(t.Then, del(f.kv.Key))
		t.Else = append(t.Else, get(f.kv.Key))
		for _, e := range f.entries {
			if !e.Parked && s.limits.Planted != UncountedCrash {
				e.Crashes++
			}
			e.Parked = true
			w.added = append(w.added, &Claim{Entry: e, seq: e.Create - 1<<62})
		}
		return
	}
}

// dropAdopted forgets a journal that is ours now.
func (s *Shard) dropAdopted(worker string) {
	f := s.foreign[worker]
	if f == nil {
		return
	}
	delete(s.foreign, worker)
	for _, e := range f.entries {
		delete(s.parked, e.Key)
	}
}

// load reads the items of adopted claims.
func (s *Shard) load() {
	for len(s.loads) > 0 {
		n := min(len(s.loads), readsMax)
		batch := slices.Clone(s.loads[:n])
		s.loads = s.loads[n:]
		t := Txn{}
		for _, c := range batch {
			t.Then = append(t.Then, get(c.Key))
		}
		s.wishes = append(s.wishes, &Request{Read: true, Txn: t, done: func(a *Answer) {
			for i, c := range batch {
				s.loaded(c, a.Results[i].one())
			}
		}})
	}
}

func (s *Shard) loaded(c *Claim, kv KV) {
	if c.over || c.kept {
		return
	}
	if kv.Create != c.Create { // it has ended before its worker did
		s.drop(c)
		s.dirty = true
		return
	}
	c.Item = s.decode(kv)
	s.enqueue(c)
}

// check reads what has left another's journal.
func (s *Shard) check() {
	for len(s.checks) > 0 {
		n := min(len(s.checks), readsMax)
		entries := slices.Clone(s.checks[:n])
		s.checks = s.checks[n:]
		t := Txn{}
		for _, e := range entries {
			t.Then = append(t.Then, get(e.Key))
		}
		token := s.token
		s.wishes = append(s.wishes, &Request{Read: true, Txn: t, done: func(a *Answer) {
			if s.token != token {
				return
			}
			for i := len(entries) - 1; i >= 0; i-- {
				e := entries[i]
				s.unsure[e.Group]--
				if kv := a.Results[i].one(); kv.Create != 0 && s.claims[e.Key] == nil && !s.parked[e.Key] {
					s.back(s.decode(kv))
				}
			}
		}})
	}
}

// explosion makes items of the messages of a chunk, one of which may have killed
// a worker: so they can be told apart.
func (s *Shard) explosion(c *Claim, now int64) Op {
	t := Txn{If: []Compare{createIs(c.Key, c.Create)}, Then: []Op{del(c.Key)}}
	for part := range c.Item.Chunk {
		if bit(c.Done, part) {
			continue
		}
		it := c.Item.part(part)
		it.Crashes, it.Failures = c.crashes(), it.Failures+c.Failures
		t.Then = append(t.Then, put(DueKey(s.N, now, partRecord(c.Key, part)), it.Encode()))
	}
	return nest(t)
}
