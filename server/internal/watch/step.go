package watch

import "slices"

// Step does a bounded part of what there is to do: it sends what the dispatcher queued, lets lagging watchers have one
// turn of reading, and reports progress that is due. It returns whether it should be called again at once; otherwise
// Ready tells when. An error of the sink or of the archive is final, the stream must be closed.
func (s *Stream) Step(sink Sink) (more bool, err error) {
	sc := s.hub.scratch.Get().(*scratch)
	defer func() {
		sc.reset()
		s.hub.scratch.Put(sc)
	}()
	// Taken once: a report on this revision is true at the end of the step, whatever is dispatched meanwhile.
	upTo := s.hub.dispatched.Load()
	if err := s.stepLive(sink, sc, upTo); err != nil {
		return false, err
	}
	if len(s.lagging) > 0 {
		if err := s.stepLagging(sink, sc); err != nil {
			return false, err
		}
	}
	if s.progress > 0 || s.tick {
		if err := s.report(sink, upTo); err != nil {
			return false, err
		}
	}
	return len(s.lagging) > 0, nil
}

// reset drops the references to events and groups.
func (sc *scratch) reset() {
	clear(sc.groups)
	clear(sc.parts)
	clear(sc.matched)
	sc.batch = Batch{}
	sc.groups, sc.parts, sc.matched = sc.groups[:0], sc.parts[:0], sc.matched[:0]
}

// stepLive sends the queued events with revisions up to upTo, group by group.
func (s *Stream) stepLive(sink Sink, sc *scratch, upTo int64) error {
	taken, lost := s.take(upTo)
	for _, d := range taken.deliveries() {
		g := d.group
		if len(g.watchers) == 0 {
			continue // disbanded
		}
		p := s.hub.cache.find(d.rev)
		if p == nil {
			// The cache gave the event up. What is in the queue of the group behind it is stale then.
			s.lagFrom(g, d.rev.Main)
			continue
		}
		if len(g.batch) == 0 {
			sc.groups = append(sc.groups, g)
		}
		g.batch = append(g.batch, p)
	}
	s.hub.recycle(taken)
	for _, l := range lost {
		if s.live[l.group.rng] == l.group {
			s.lagFrom(l.group, l.rev)
		}
	}
	for _, g := range sc.groups {
		if g.successor != nil {
			g = g.successor
		}
		if err := s.flush(sink, sc, g, 0); err != nil {
			return err
		}
	}
	return nil
}

// take takes the deliveries up to revision upTo out of the queue, and the groups that lost an event up to there.
// Revisions above are incomplete still.
func (s *Stream) take(upTo int64) (taken *queue, lost []loss) {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken, s.queue = s.queue, nil
	if list := taken.deliveries(); len(list) > 0 && list[len(list)-1].rev.Main > upTo {
		n := len(list)
		for n > 0 && list[n-1].rev.Main > upTo {
			n--
		}
		s.queue = s.hub.queues.Get().(*queue)
		s.queue.list = append(s.queue.list, list[n:]...)
		clear(list[n:])
		taken.list = list[:n]
	}
	kept := s.lost[:0]
	for _, l := range s.lost {
		if l.rev <= upTo {
			lost = append(lost, l)
		} else {
			kept = append(kept, l)
		}
	}
	clear(s.lost[len(kept):])
	s.lost = kept
	return taken, lost
}

// lagFrom makes a live group lag with the cursor rev. What its batch has below that is still to be sent; the rest goes,
// since it will be read again, and may be a part of a revision.
func (s *Stream) lagFrom(g *group, rev int64) {
	delete(s.live, g.rng)
	s.hub.detach(g)
	for len(g.batch) > 0 && g.batch[len(g.batch)-1].rev() >= rev {
		g.batch = g.batch[:len(g.batch)-1]
	}
	g.successor = &group{stream: s, rng: g.rng, cursor: rev, batch: g.batch}
	s.goLag(g.successor, g.disband()...)
}

// flush sends the batch of a group to its watchers in responses of bounded size, and empties it. The responses carry
// the revision of their last event; the last one carries upTo if that is higher.
func (s *Stream) flush(sink Sink, sc *scratch, g *group, upTo int64) error {
	batch := g.batch
	for len(batch) > 0 {
		n, bytes := 0, 0
		for n < len(batch) && (bytes < s.hub.limits.batchBytes || batch[n].rev() == batch[n-1].rev()) {
			bytes += batch[n].bytes()
			n++
		}
		rev := batch[n-1].rev()
		if n == len(batch) {
			rev = max(rev, upTo)
		}
		if err := s.send(sink, sc, g.watchers, batch[:n], rev); err != nil {
			return err
		}
		batch = batch[n:]
	}
	clear(g.batch)
	g.batch = g.batch[:0]
	if cap(g.batch) > batchKeptMax {
		g.batch = nil
	}
	return nil
}

// send sends events to watchers: one call of the sink for all that want the same.
func (s *Stream) send(sink Sink, sc *scratch, watchers []*watcher, events []*payload, rev int64) error {
	first, last := events[0].rev(), events[len(events)-1].rev()
	puts, deletes := kinds(events)
	for v := range sc.ids {
		sc.ids[v] = sc.ids[v][:0]
	}
	for _, w := range watchers {
		switch {
		case w.from > last:
			continue
		case w.from > first:
			// Rare: the watcher joined its group between these events.
			if err := s.sendTail(sink, sc, w, events, rev); err != nil {
				return err
			}
			continue
		case !w.variant.wants(puts, deletes):
			continue
		}
		w.sent = true
		sc.ids[w.variant] = append(sc.ids[w.variant], w.id)
	}
	for v, ids := range sc.ids {
		if len(ids) == 0 {
			continue
		}
		if err := s.sendTo(sink, sc, ids, variant(v), events, rev); err != nil {
			return err
		}
	}
	return nil
}

// sendTail sends one watcher the events from its first revision on.
func (s *Stream) sendTail(sink Sink, sc *scratch, w *watcher, events []*payload, rev int64) error {
	i := slices.IndexFunc(events, func(p *payload) bool { return p.rev() >= w.from })
	events = events[i:]
	if puts, deletes := kinds(events); !w.variant.wants(puts, deletes) {
		return nil
	}
	w.sent = true
	return s.sendTo(sink, sc, []int64{w.id}, w.variant, events, rev)
}

// kinds tells what there is among the events.
func kinds(events []*payload) (puts, deletes bool) {
	for _, p := range events {
		puts = puts || !p.version.Deleted
		deletes = deletes || p.version.Deleted
	}
	return puts, deletes
}

// wants reports whether something is left after the variant's filters.
func (v variant) wants(puts, deletes bool) bool {
	return (puts && v&noPut == 0) || (deletes && v&noDelete == 0)
}

// sendTo sends what the filters leave of the events to the watchers, which share the variant.
func (s *Stream) sendTo(sink Sink, sc *scratch, ids []int64, v variant, events []*payload, rev int64) error {
	sc.parts = sc.parts[:0]
	for _, p := range events {
		if deleted := p.version.Deleted; (deleted && v&noDelete != 0) || (!deleted && v&noPut != 0) {
			continue
		}
		if v&wantPrev != 0 {
			if err := s.hub.fill(p); err != nil {
				return err
			}
		}
		sc.parts = append(sc.parts, p.encoded(v&wantPrev != 0))
	}
	sc.batch = Batch{IDs: ids, Revision: rev, Events: sc.parts, Fragment: v&fragment != 0}
	return sink.Events(&sc.batch)
}

// report sends the progress reports that are due. Everything up to upTo has been sent to all live groups, and to those
// that lag everything up to their cursor.
func (s *Stream) report(sink Sink, upTo int64) error {
	if s.tick {
		s.tick = false
		for _, w := range s.watchers {
			if !w.progress {
				continue
			}
			sent := w.sent
			w.sent = false
			if sent || s.live[w.group.rng] != w.group || upTo < w.floor {
				continue
			}
			if err := sink.Progress(w.id, upTo); err != nil {
				return err
			}
		}
	}
	switch {
	case s.progress == 0:
		return nil
	case len(s.lagging) > 0:
		s.progress = 1
		return nil
	}
	floor := s.asked
	for _, w := range s.watchers {
		floor = max(floor, w.floor)
	}
	if upTo < floor {
		s.progress = 1
		if !s.hub.await(s, floor) {
			s.signal()
		}
		return nil
	}
	for ; s.progress > 0; s.progress-- {
		if err := sink.Progress(AllWatchers, upTo); err != nil {
			return err
		}
	}
	return nil
}
