package wal

import "sort"

// terms knows the term of every entry of the log in a few words: entries of one term stand together. The zero value is
// for a log without entries.
type terms struct {
	runs []run
	end  uint64 // index of the last entry; valid when there are runs
}

// run is a stretch of entries of one term, up to the next run.
type run struct{ first, term uint64 }

// add takes the entry after the last one.
func (t *terms) add(index, term uint64) {
	if n := len(t.runs); n == 0 || t.runs[n-1].term != term {
		t.runs = append(t.runs, run{first: index, term: term})
	}
	t.end = index
}

// cut forgets all entries above index.
func (t *terms) cut(index uint64) {
	for n := len(t.runs); n > 0 && t.runs[n-1].first > index; n-- {
		t.runs = t.runs[:n-1]
	}
	t.end = min(t.end, index)
}

// release forgets the entries up to index, as far as whole runs go.
func (t *terms) release(index uint64) {
	n := 0
	for n < len(t.runs)-1 && t.runs[n+1].first <= index {
		n++
	}
	t.runs = append([]run(nil), t.runs[n:]...)
	if t.end <= index {
		t.runs = nil
	}
}

func (t *terms) last() (Base, bool) {
	n := len(t.runs)
	if n == 0 {
		return Base{}, false
	}
	return Base{Index: t.end, Term: t.runs[n-1].term}, true
}

// at is the term of an entry that is there.
func (t *terms) at(index uint64) uint64 {
	n := sort.Search(len(t.runs), func(i int) bool { return t.runs[i].first > index })
	return t.runs[n-1].term
}
