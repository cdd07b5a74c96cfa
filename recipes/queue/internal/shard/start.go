package shard

import "slices"

// Start returns the next message to run, if there is one. suspect says that one
// may be started whose worker has died before: they run one at a time in a
// worker, so that the guilty one is found. allow is asked last.
func (s *Shard) Start(now int64, suspect bool, allow func(group string) bool) (Job, bool) {
	if s.Paused || s.Draining || len(s.order) == 0 {
		return Job{}, false
	}
	running, blocked := s.groups()
	for _, c := range s.order {
		if c.Group != "" && s.limits.Group == 1 {
			if blocked[c.Group] {
				continue
			}
			if blocked == nil {
				blocked = make(map[string]bool)
			}
			blocked[c.Group] = true
		}
		if c.unwritten || c.explode || c.notBefore > now || !c.startable() || s.crowded(c, running) {
			continue
		}
		if c.crashes() == 0 && c.Parked { // given back by a worker that left: from now on a crash counts
			c.Parked, c.unwritten, s.dirty = false, true, true
			continue
		}
		if c.crashes() > 0 && !s.prepare(c, suspect) {
			suspect = suspect && !c.unwritten // the place is taken
			continue
		}
		if allow != nil && !allow(c.Group) {
			continue
		}
		return s.start(c), true
	}
	return Job{}, false
}

// crowded says that as many of the group run as may.
func (s *Shard) crowded(c *Claim, running map[string]int) bool {
	if c.Group == "" {
		return false
	}
	n := running[c.Group]
	if s.limits.Planted == EarlyGroup {
		return n > s.limits.Group
	}
	return n >= s.limits.Group
}

// groups counts the jobs that run, or whose end is under way, by their groups,
// and tells the groups of which an older claim is not even read.
func (s *Shard) groups() (running map[string]int, blocked map[string]bool) {
	for _, c := range s.claims {
		if c.Group == "" {
			continue
		}
		if running == nil {
			running, blocked = make(map[string]int), make(map[string]bool)
		}
		switch {
		case c.running > 0:
			running[c.Group]++
		case c.Item == nil:
			blocked[c.Group] = true
		}
	}
	return running, blocked
}

// prepare says whether a suspect may start. What it does first is journaled: a
// crash from now on is its own.
func (s *Shard) prepare(c *Claim, suspect bool) bool {
	switch {
	case c.Item.Chunk > 1 && c.left() > 1:
		c.explode, s.dirty = true, true
		return false
	case !c.Parked:
		return suspect || c.running > 0 || c.prepared()
	case !suspect:
		return false
	}
	c.Parked, c.unwritten, s.dirty = false, true, true
	return false
}

// prepared says that it has the worker's only place for a suspect.
func (c *Claim) prepared() bool { return c.crashes() > 0 && !c.Parked && !c.over }

// Suspect says whether a suspect has this worker's place for one.
func (s *Shard) Suspect() bool {
	for _, c := range s.claims {
		if c.prepared() && c.Item != nil {
			return true
		}
	}
	return false
}

func (s *Shard) start(c *Claim) Job {
	j := Job{Claim: c, Part: c.next}
	c.notBefore = 0
	c.running++
	c.out = setBit(c.out, c.next)
	c.next++
	c.skip()
	if !c.startable() {
		for i, other := range s.order {
			if other == c {
				s.order = append(s.order[:i], s.order[i+1:]...)
				break
			}
		}
	}
	return j
}

// Deadly returns claims whose workers have died too often: they are to be ended
// without being started.
func (s *Shard) Deadly() (out []Job) {
	for _, c := range s.order {
		if c.startable() && !c.over && c.running == 0 && s.limits.Crashes > 0 && c.crashes() >= s.limits.Crashes && c.left() == 1 {
			out = append(out, Job{Claim: c, Part: c.next})
		}
	}
	for _, j := range out {
		s.start(j.Claim)
	}
	return out
}

// Drain stops claims and starts for good, and gives back what was not started.
func (s *Shard) Drain() {
	s.Draining = true
	for _, c := range s.sorted() {
		if c.running == 0 {
			s.leave(c)
		}
	}
}

// leave gives a claim back. Where the journal knows more of it than the item
// does, it stays there, for who adopts it.
func (s *Shard) leave(c *Claim) {
	if c.kept {
		return
	}
	s.dirty = true
	if c.Failures == 0 && c.Crashes == 0 && len(c.Done) == 0 {
		s.drop(c)
		return
	}
	c.Parked, c.kept = true, true
}

// Cancelled drops a job that somebody has cancelled, if it was not started, and
// returns those of its messages that run.
func (s *Shard) Cancelled(job string) (running []Job) {
	named := func(it *Item) bool { return it.Job == job }
	for _, l := range append(slices.Clone(s.lanes), &s.due) {
		l.items, l.buffer = slices.DeleteFunc(l.items, named), slices.DeleteFunc(l.buffer, named)
	}
	for _, c := range s.sorted() {
		if c.Item == nil || c.Item.Job != job {
			continue
		}
		if c.running > 0 {
			running = append(running, Job{Claim: c})
		} else {
			s.drop(c)
			s.dirty = true
		}
	}
	return running
}
