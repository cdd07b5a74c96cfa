package sequence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand"
	"slices"
	"strings"

	"github.com/latchkey-go/latchkey/client"
)

// errEnd ends a watch of the model that has caught up.
var errEnd = errors.New("caught up")

// model is a store with one log in it: every state that it ever had can be read,
// as far as it is not compacted.
type model struct {
	r         *rand.Rand
	log       Log
	rev       client.Revision
	compacted client.Revision
	events    []client.Event             // in order of revisions
	live      map[string]client.KV       // the current state
	created   map[string]client.Revision // by id: when it was first created
	floors    []floor                    // that there were
	trimmed   int                        // entries
	refused   int                        // reads of what was compacted
	problem   string                     // what must never happen
	was       *state                     // that was asked for last

	mutation
	busy func() // what others do while a reader waits for an answer
}

// mutation is a rule that is broken on purpose.
type mutation struct {
	noGuard       bool // the floor refuses nothing
	noMissing     bool // an entry may be put twice
	futureSeed    bool // a seed is not below the create revision
	trimYoung     bool // a trim deletes whatever has an older seed
	floorFalls    bool // the floor does not only rise
	noBacklog     bool // the reader yields what it reads at once
	futureHorizon bool // the reader stores the floor as it is, not as it was where the reader is
}

func newModel(r *rand.Rand, lanes int, m mutation) *model {
	l := Log{Floor: "l/floor", Under: "l/"}
	for i := range lanes {
		l.Lanes = append(l.Lanes, fmt.Sprintf("l/%02d/", i))
	}
	s := &model{r: r, log: l, rev: 1, live: map[string]client.KV{}, created: map[string]client.Revision{}, mutation: m, busy: func() {}}
	s.rev++
	s.put(l.Floor, Bound(0))
	return s
}

// put writes a key at the revision under way.
func (s *model) put(key, value string) {
	kv, ok := s.live[key]
	if !ok {
		kv = client.KV{Key: key, CreateRevision: s.rev}
	}
	kv.Value, kv.ModRevision, kv.Version = []byte(value), s.rev, kv.Version+1
	s.live[key] = kv
	s.events = append(s.events, client.Event{KV: kv})
}

// append is the transaction of Log.Append: it says whether the floor admits the
// id, and executes it unless it was executed before.
func (s *model) append(lane int, id ID) bool {
	text := id.String()
	key := s.log.Lanes[lane] + text
	if !s.noGuard && string(s.live[s.log.Floor].Value) >= text {
		return false
	}
	if _, exists := s.live[key]; exists && !s.noMissing {
		return true
	}
	s.rev++
	if _, again := s.created[text]; again {
		s.problem = "an entry came back"
	}
	s.created[text] = s.rev
	s.put(key, text)
	return true
}

// other is a write of somebody else.
func (s *model) other() { s.rev++ }

// raise raises the floor, without a look at what stands below.
func (s *model) raise(bound string) {
	if string(s.live[s.log.Floor].Value) < bound {
		s.rev++
		s.put(s.log.Floor, bound)
		s.floors = append(s.floors, floor{bound: bound, written: s.rev})
	}
}

// trim deletes what stands below the floor of a revision, which is as old as that.
func (s *model) trim(rev client.Revision) {
	bound := ""
	for _, f := range s.floors {
		if f.written <= rev {
			bound = f.bound
		}
	}
	if s.trimYoung {
		bound = Bound(rev)
	}
	var gone []string
	for key := range s.live {
		if i := s.log.lane(key); i >= 0 && key < s.log.Lanes[i]+bound {
			gone = append(gone, key)
		}
	}
	slices.Sort(gone)
	s.trimmed += len(gone)
	s.rev++
	for _, key := range gone {
		delete(s.live, key)
		s.events = append(s.events, client.Event{Type: client.EventDelete, KV: client.KV{Key: key, ModRevision: s.rev}})
	}
	if s.floorFalls {
		s.put(s.log.Floor, Bound(0))
	}
}

func (s *model) compact() { s.compacted = s.rev }

// state is the log as it was at one revision.
type state struct {
	rev    client.Revision
	sorted []client.KV
	values map[string][]byte
}

// at returns the log as it was.
func (s *model) at(rev client.Revision) *state {
	if s.was != nil && s.was.rev == rev {
		return s.was
	}
	kvs := map[string]client.KV{}
	for _, ev := range s.events {
		if ev.KV.ModRevision > rev {
			break
		}
		if ev.Type == client.EventDelete {
			delete(kvs, ev.KV.Key)
		} else {
			kvs[ev.KV.Key] = ev.KV
		}
	}
	s.was = &state{rev: rev, values: map[string][]byte{}}
	for key, kv := range kvs {
		s.was.values[key] = kv.Value
		s.was.sorted = append(s.was.sorted, kv)
	}
	slices.SortFunc(s.was.sorted, func(a, b client.KV) int { return strings.Compare(a.Key, b.Key) })
	return s.was
}

// ---- source

func (s *model) floor(context.Context) (floor, error) {
	kv := s.live[s.log.Floor]
	f := floor{bound: string(kv.Value), written: kv.ModRevision, now: s.rev}
	s.busy()
	return f, nil
}

func (s *model) pages(_ context.Context, at client.Revision, windows []window) ([]page, error) {
	defer s.busy()
	if at < s.compacted {
		s.refused++
		return nil, client.ErrCompacted
	}
	kvs := s.at(at).sorted
	out := make([]page, len(windows))
	for i, w := range windows {
		lane := s.log.Lanes[w.lane]
		limit := min(int(w.limit), 1+s.r.Intn(40))
		from, _ := slices.BinarySearchFunc(kvs, lane+w.first, func(kv client.KV, key string) int { return strings.Compare(kv.Key, key) })
		for _, kv := range kvs[from:] {
			if kv.Key >= lane+w.end {
				break
			}
			if out[i].more = len(out[i].entries) == limit; out[i].more {
				break
			}
			e, ok := s.log.entry(w.lane, kv)
			if !ok {
				s.problem = "a key is no entry: " + kv.Key
			}
			out[i].entries = append(out[i].entries, e)
		}
	}
	return out, nil
}

func (s *model) values(_ context.Context, at client.Revision, entries []Entry) ([][]byte, error) {
	defer s.busy()
	if at < s.compacted {
		s.refused++
		return nil, client.ErrCompacted
	}
	out := make([][]byte, len(entries))
	for i, e := range entries {
		out[i] = s.at(at).values[s.log.Lanes[e.Lane]+e.ID.String()]
	}
	return out, nil
}

func (s *model) watch(_ context.Context, from client.Revision) iter.Seq2[client.WatchBatch, error] {
	return func(yield func(client.WatchBatch, error) bool) {
		for next := from; ; {
			if next < s.compacted {
				s.refused++
				yield(client.WatchBatch{}, &client.CompactedError{Wanted: next, Revision: s.compacted})
				return
			}
			if next > s.rev {
				yield(client.WatchBatch{}, errEnd)
				return
			}
			to := next + client.Revision(s.r.Intn(5))
			to = min(to, s.rev)
			b := client.WatchBatch{Revision: to}
			i, _ := slices.BinarySearchFunc(s.events, next, func(ev client.Event, rev client.Revision) int {
				return cmp.Compare(ev.KV.ModRevision, rev)
			})
			for ; i < len(s.events) && s.events[i].KV.ModRevision <= to; i++ {
				b.Events = append(b.Events, s.events[i])
			}
			if !yield(b, nil) {
				return
			}
			next = to + 1
			s.busy()
		}
	}
}
