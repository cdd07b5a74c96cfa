package election

import (
	"cmp"
	"slices"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// roll is an election as it was at one revision: who stands, and who leads. It
// is a pure function of what the store says: it has no clock and asks nobody.
//
// Who leads: the candidate that is first in line, unless it passes its turn on;
// and who leads keeps leading as long as its key exists, whoever comes. The
// candidates judge themselves by the same rule.
type roll struct {
	keys       keys
	revision   client.Revision
	candidates map[string]client.KV // by the last part of their keys
	records    map[string]record    // likewise
	next       succession
	leader     string // the last part of the leader's key; empty while there is none
	term       client.Revision
}

// load starts from what a read of the whole election found.
//
// The read does not say since when the first one is first. If somebody outranks
// it, it may be about to pass its turn on, or may have led since before that
// one came. It is taken for the leader: the former lasts for a moment only.
func (r *roll) load(rev client.Revision, kvs []client.KV) {
	r.revision = rev
	r.candidates, r.records, r.next = make(map[string]client.KV), make(map[string]record), succession{}
	for _, kv := range kvs {
		r.set(kv)
	}
	if r.leads() {
		return
	}
	r.leader, r.term = "", 0
	if first, ok := r.first(); ok {
		r.leader, r.term = first, r.candidates[first].CreateRevision
	}
}

// apply takes the events of one revision.
func (r *roll) apply(rev client.Revision, events []client.Event) {
	r.revision = rev
	for _, ev := range events {
		if ev.Type == client.EventDelete {
			r.drop(ev.KV.Key)
		} else {
			r.set(ev.KV)
		}
	}
	if r.leads() {
		return
	}
	r.leader, r.term = "", 0
	if first, ok := r.first(); ok && r.heir(first) == "" {
		r.leader, r.term = first, r.candidates[first].CreateRevision
	}
}

func (r *roll) set(kv client.KV) {
	if id, ok := r.keys.candidateID(kv.Key); ok {
		r.candidates[id] = kv
	} else if id, ok := r.keys.recordID(kv.Key); ok {
		r.records[id] = decodeRecord(kv.Value)
	} else if kv.Key == r.keys.next() {
		r.next = decodeSuccession(kv.Value)
	}
}

func (r *roll) drop(key string) {
	if id, ok := r.keys.candidateID(key); ok {
		delete(r.candidates, id)
	} else if id, ok := r.keys.recordID(key); ok {
		delete(r.records, id)
	} else if key == r.keys.next() {
		r.next = succession{}
	}
}

// leads says that whoever was found to lead still does.
func (r *roll) leads() bool {
	kv, ok := r.candidates[r.leader]
	return ok && kv.CreateRevision == r.term
}

// first returns who is first in line.
func (r *roll) first() (id string, ok bool) {
	oldest := client.Revision(1<<63 - 1)
	for candidate, kv := range r.candidates {
		if kv.CreateRevision < oldest {
			id, oldest, ok = candidate, kv.CreateRevision, true
		}
	}
	return id, ok
}

// heir returns to whom a candidate passes its turn, or nobody. Who was named by
// the last leader comes before who has the higher priority. Candidates without
// a record pass to nobody: they are clients of etcd.
func (r *roll) heir(id string) string {
	own, ours := r.records[id]
	if !ours {
		return ""
	}
	if kv, ok := r.candidates[r.next.To]; ok && kv.CreateRevision == client.Revision(r.next.Term) {
		if r.next.To == id {
			return ""
		}
		return r.next.To
	}
	for _, rival := range rivals(r.records, own.Priority) {
		if _, ok := r.candidates[rival]; ok {
			return rival
		}
	}
	return ""
}

// rivals returns whose records have a higher priority, the highest first.
func rivals(records map[string]record, priority int) []string {
	var ids []string
	for id, rec := range records {
		if rec.Priority > priority {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(records[b].Priority, records[a].Priority), cmp.Compare(a, b))
	})
	return ids
}

// candidate returns what is known of one of those who stand.
func (r *roll) candidate(id string) Candidate {
	kv := r.candidates[id]
	rec, ours := r.records[id]
	c := Candidate{
		ID: id, Key: kv.Key, Lease: kv.Lease, Term: fence.Token(kv.CreateRevision), Proposal: kv.Value,
		Priority: rec.Priority, Preempts: rec.Preempts, Leads: id == r.leader, Ours: ours,
	}
	if rec.ID != "" {
		c.ID = rec.ID
	}
	return c
}

// line returns all who stand, in the order of the line.
func (r *roll) line() []Candidate {
	out := make([]Candidate, 0, len(r.candidates))
	for id := range r.candidates {
		out = append(out, r.candidate(id))
	}
	slices.SortFunc(out, func(a, b Candidate) int { return cmp.Compare(a.Term, b.Term) })
	return out
}
