package shard

import (
	"slices"
	"sort"
	"strings"
)

// store is the store's semantics in the small: one revision a transaction that
// changes something, create and mod revisions, nested transactions judged on
// the state before, reads at a revision above the last compaction.
type store struct {
	rev       int64
	compacted int64
	m         map[string]KV
	keys      []string // sorted
	hist      []change
	effects   map[string]int
	log       []string // of effects, in order
}

type change struct {
	kv  KV // after; Create is 0 for a deletion
	old KV
}

// effectPrefix marks puts that count what handlers did.
const effectPrefix = "effect/"

func newStore() *store {
	return &store{rev: 1, m: make(map[string]KV), effects: make(map[string]int)}
}

func (s *store) span(key, end string) []string {
	if end == "" {
		if _, ok := s.m[key]; ok {
			return []string{key}
		}
		return nil
	}
	i, j := sort.SearchStrings(s.keys, key), sort.SearchStrings(s.keys, end)
	if i >= j {
		return nil
	}
	return s.keys[i:j]
}

func (s *store) list(prefix string) (out []KV) {
	for _, k := range s.span(prefix, PrefixEnd(prefix)) {
		out = append(out, s.m[k])
	}
	return out
}

// at returns a range as it was at a revision, by undoing what came after.
func (s *store) at(rev int64, key, end string) (out []KV) {
	state := make(map[string]KV)
	for _, k := range s.span(key, end) {
		state[k] = s.m[k]
	}
	for i := len(s.hist) - 1; i >= 0 && s.hist[i].kv.Mod > rev; i-- {
		h := s.hist[i]
		if h.kv.Key < key || h.kv.Key >= end {
			continue
		}
		if h.old.Create == 0 {
			delete(state, h.kv.Key)
		} else {
			state[h.kv.Key] = h.old
		}
	}
	for _, kv := range state {
		out = append(out, kv)
	}
	slices.SortFunc(out, func(a, b KV) int { return strings.Compare(a.Key, b.Key) })
	return out
}

func (s *store) holds(c Compare) bool {
	if c.End != "" {
		for _, k := range s.span(c.Key, c.End) {
			if !s.one(c, s.m[k], true) {
				return false
			}
		}
		return true
	}
	kv, ok := s.m[c.Key]
	return s.one(c, kv, ok)
}

func (s *store) one(c Compare, kv KV, ok bool) bool {
	rev := kv.Create
	switch c.Field {
	case Value:
		if c.Less {
			return ok && string(kv.Value) < string(c.Value)
		}
		return ok && string(kv.Value) == string(c.Value)
	case Mod:
		rev = kv.Mod
	}
	if c.Less {
		return rev < c.Rev
	}
	return rev == c.Rev
}

// plan is a transaction with its branches chosen.
type plan struct {
	ok  bool
	ops []Op
	sub []*plan
}

func (s *store) choose(t Txn) *plan {
	p := &plan{ok: true, ops: t.Then}
	for _, c := range t.If {
		if !s.holds(c) {
			p.ok, p.ops = false, t.Else
			break
		}
	}
	for _, op := range p.ops {
		var sub *plan
		if op.Kind == Nest {
			sub = s.choose(*op.Txn)
		}
		p.sub = append(p.sub, sub)
	}
	return p
}

func (s *store) txn(t Txn) *Answer {
	changed := false
	next := s.rev + 1
	a := s.run(s.choose(t), next, &changed)
	if changed {
		s.rev = next
	}
	stamp(a, s.rev)
	return a
}

func stamp(a *Answer, rev int64) {
	a.Revision = rev
	for _, r := range a.Results {
		if r.Txn != nil {
			stamp(r.Txn, rev)
		}
	}
}

func (s *store) run(p *plan, rev int64, changed *bool) *Answer {
	a := &Answer{Succeeded: p.ok}
	for i, op := range p.ops {
		var r Result
		switch op.Kind {
		case Get:
			if op.Rev > 0 && op.Rev < s.compacted {
				return &Answer{Compacted: true}
			}
			end := op.End
			if end == "" {
				end = op.Key + "\x00"
			}
			if op.Rev > 0 {
				r.KVs = s.at(op.Rev, op.Key, end)
			} else {
				for _, k := range s.span(op.Key, end) {
					r.KVs = append(r.KVs, s.m[k])
				}
			}
			if op.Limit > 0 && int64(len(r.KVs)) > op.Limit {
				r.KVs = r.KVs[:op.Limit]
			}
		case Put:
			*changed = true
			if name, ok := strings.CutPrefix(op.Key, effectPrefix); ok {
				s.effects[name]++
				s.log = append(s.log, name)
				break
			}
			s.set(op.Key, op.Value, rev)
		case Delete:
			keys := slices.Clone(s.span(op.Key, op.End))
			for _, k := range keys {
				*changed = true
				s.unset(k, rev)
			}
		case Nest:
			r.Txn = s.run(p.sub[i], rev, changed)
		}
		a.Results = append(a.Results, r)
	}
	return a
}

func (s *store) set(key string, value []byte, rev int64) {
	old, ok := s.m[key]
	kv := KV{Key: key, Value: value, Create: old.Create, Mod: rev}
	if !ok {
		kv.Create = rev
		i := sort.SearchStrings(s.keys, key)
		s.keys = slices.Insert(s.keys, i, key)
	}
	s.m[key] = kv
	s.hist = append(s.hist, change{kv: kv, old: old})
}

func (s *store) unset(key string, rev int64) {
	old := s.m[key]
	delete(s.m, key)
	i := sort.SearchStrings(s.keys, key)
	s.keys = slices.Delete(s.keys, i, i+1)
	s.hist = append(s.hist, change{kv: KV{Key: key, Mod: rev}, old: old})
}

// since returns the puts below a prefix after one revision and up to another.
func (s *store) since(prefix string, after, upTo int64) (out []KV) {
	i := sort.Search(len(s.hist), func(i int) bool { return s.hist[i].kv.Mod > after })
	for ; i < len(s.hist) && s.hist[i].kv.Mod <= upTo; i++ {
		if kv := s.hist[i].kv; kv.Create != 0 && strings.HasPrefix(kv.Key, prefix) {
			out = append(out, kv)
		}
	}
	return out
}
