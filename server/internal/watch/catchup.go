package watch

import (
	"fmt"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// turn is one bounded stretch of reading on behalf of the lagging groups of a stream. Groups whose cursor is before
// the stretch take no part, for they would miss what is in between; groups whose cursor is inside join where it is.
type turn struct {
	from, to int64 // revisions; to is set when the reading ends
	bytesMax int   // of matched events
	bytes    int
	last     int64 // revision of the last event that was looked at
	full     bool  // ended by its limits
}

// stepLagging lets one group read on, in turn, and with it all groups that its stretch of revisions meets. Then the
// groups that have reached the present go live.
func (s *Stream) stepLagging(sink Sink, sc *scratch) error {
	now := s.hub.latest.Load()
	if err := s.cancelCompacted(sink, now.compact); err != nil || len(s.lagging) == 0 {
		return err
	}
	if s.turn >= len(s.lagging) {
		s.turn = 0
	}
	t := turn{from: s.lagging[s.turn].cursor, bytesMax: s.hub.limits.batchBytes}
	s.turn++
	if t.from <= now.history.Last() {
		complete, err := s.read(&t, now, sc)
		if err != nil {
			s.dropBatches()
			return err
		}
		if !complete {
			// Compacted while the archive was read: what is missing is unknown, so nothing of it is used.
			s.dropBatches()
			return s.cancelCompacted(sink, s.hub.latest.Load().compact)
		}
		if err := s.sendTurn(sink, sc, &t); err != nil {
			return err
		}
	}
	s.catchUp()
	return nil
}

// read gathers a turn's events in the batches of the groups. It returns false when the archive may have lost some of
// them to a compaction meanwhile.
func (s *Stream) read(t *turn, now *snapshot, sc *scratch) (complete bool, err error) {
	limit := min(t.from+s.hub.limits.turnRevisions-1, now.history.Last())
	if t.from >= now.history.First() {
		for e := range now.history.From(t.from) {
			if !t.admits(e.Version, limit) {
				break
			}
			if s.matchLagging(t, e.Version, sc) {
				s.gather(t, s.hub.cache.intern(e), sc)
			}
		}
		t.end(limit)
		return true, nil
	}
	limit = min(limit, now.history.First()-1)
	if s.hub.archive == nil {
		return false, fmt.Errorf("read events %d-%d: not in memory, and there is no archive", t.from, limit)
	}
	s.hub.replacing.RLock()
	defer s.hub.replacing.RUnlock()
	err = s.hub.archive.Scan(t.from, limit, func(v *state.Version) bool {
		if !t.admits(v, limit) {
			return false
		}
		if s.matchLagging(t, v, sc) {
			s.gather(t, &payload{version: v, missing: v.Deleted || v.Create != v.Mod}, sc)
		}
		return true
	})
	if err != nil {
		return false, fmt.Errorf("read events %d-%d: %w", t.from, limit, err)
	}
	t.end(limit)
	return s.hub.latest.Load().compact <= t.from, nil
}

// admits reports whether the turn goes on with this version. It ends between revisions only.
func (t *turn) admits(v *state.Version, limit int64) bool {
	if v.Mod > limit {
		return false
	}
	if v.Mod != t.last && t.bytes >= t.bytesMax {
		t.full = true
		return false
	}
	t.last = v.Mod
	return true
}

// end sets how far the turn has read.
func (t *turn) end(limit int64) {
	t.to = limit
	if t.full {
		t.to = t.last
	}
}

// matchLagging finds the groups that take part in the turn and want the version; they are in sc.matched.
func (s *Stream) matchLagging(t *turn, v *state.Version, sc *scratch) bool {
	sc.matched = s.laggards.match(v.Key, sc.matched[:0])
	wanted := sc.matched[:0]
	for _, g := range sc.matched {
		if g.cursor >= t.from && g.cursor <= v.Mod {
			wanted = append(wanted, g)
		}
	}
	sc.matched = wanted
	return len(wanted) > 0
}

func (s *Stream) gather(t *turn, p *payload, sc *scratch) {
	t.bytes += p.bytes()
	for _, g := range sc.matched {
		g.batch = append(g.batch, p)
	}
}

// sendTurn sends what the turn gathered and moves the cursors of the groups that took part.
func (s *Stream) sendTurn(sink Sink, sc *scratch, t *turn) error {
	for _, g := range s.lagging {
		if g.cursor < t.from || g.cursor > t.to {
			continue
		}
		if err := s.flush(sink, sc, g, t.to); err != nil {
			return err
		}
		g.cursor = t.to + 1
	}
	return nil
}

func (s *Stream) dropBatches() {
	for _, g := range s.lagging {
		clear(g.batch)
		g.batch = g.batch[:0]
	}
}

// catchUp gives the groups that have read everything to the dispatcher.
func (s *Stream) catchUp() {
	last := s.hub.Revision()
	s.filterLagging(func(g *group) bool {
		return g.cursor <= last || s.goLive(g.rng, g.cursor, g.watchers...) == 0
	})
}

// filterLagging keeps the lagging groups that keep approves of.
func (s *Stream) filterLagging(keep func(*group) bool) {
	kept, turn := s.lagging[:0], s.turn
	for i, g := range s.lagging {
		if keep(g) {
			kept = append(kept, g)
			continue
		}
		s.laggards.remove(g)
		if i < turn {
			s.turn--
		}
	}
	s.hub.counts.lagging.Add(int64(len(kept) - len(s.lagging)))
	clear(s.lagging[len(kept):])
	s.lagging = kept
}

// cancelCompacted ends the watchers whose next events may be gone. A group reads on from the compact revision for those
// of its watchers that joined it late and want nothing below.
func (s *Stream) cancelCompacted(sink Sink, compact int64) error {
	var err error
	s.filterLagging(func(g *group) bool {
		if g.cursor >= compact || err != nil {
			return true
		}
		g.cursor = compact
		for _, w := range g.disband() {
			if w.from >= compact {
				g.join(0, w)
				continue
			}
			s.dropWatcher(w)
			if err == nil {
				err = sink.Compacted(w.id, compact)
			}
		}
		return len(g.watchers) > 0
	})
	return err
}

// fill finds the previous version of an event from the archive, for those that want it.
func (h *Hub) fill(p *payload) error {
	if !p.missing {
		return nil
	}
	h.replacing.RLock()
	defer h.replacing.RUnlock()
	kv, err := h.archive.At(p.version.Key, p.rev()-1)
	if err != nil {
		return fmt.Errorf("read key before revision %d: %w", p.rev(), err)
	}
	p.prevKV, p.missing = kv, false
	return nil
}
