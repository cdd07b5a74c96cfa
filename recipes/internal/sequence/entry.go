package sequence

import (
	"cmp"
	"slices"

	"github.com/latchkey-go/latchkey/client"
)

// Entry is one entry of a log.
type Entry struct {
	Lane  int // its index in Log.Lanes
	ID    ID
	Note  string // what the writer has put into the key, if anything
	Value []byte // nil from a reader of keys
	// Revision is the create revision: entries are in order of it, those of one
	// transaction in order of their ids, and then of their lanes.
	Revision client.Revision
}

// Position is where a reader is: all entries up to Revision were yielded, and all
// others stand at From or above in their lanes.
type Position struct {
	Revision client.Revision
	From     string // an id, a Bound, or empty: anywhere
}

// Batch is what a reader has to say at once.
type Batch struct {
	// Entries in order of commits; none in a batch that only reports progress.
	Entries []Entry
	// Position is where the reader is behind the batch. For behind one of its
	// entries it is that entry's revision, with the same From, once all entries of
	// that revision were handled.
	Position Position
	// Live says that the batch comes from a watch, and that all that there was when
	// the reader began was yielded with it.
	Live bool
}

func compareEntries(a, b Entry) int {
	if c := cmp.Compare(a.Revision, b.Revision); c != 0 {
		return c
	}
	if c := compareIDs(a.ID, b.ID); c != 0 {
		return c
	}
	return cmp.Compare(a.Lane, b.Lane)
}

func compareIDs(a, b ID) int {
	return cmp.Or(cmp.Compare(a.Seed, b.Seed), cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Count, b.Count))
}

// backlog holds entries that were read in order of keys until their place in the
// order of commits is settled. It is what the reader remembers, so it is bounded:
// beyond valueBytes it keeps entries without their values.
type backlog struct {
	entries    []held // in order of commits from sorted on
	valueBytes int    // of the values that are kept
	limitBytes int
	dirty      bool // entries are not in order
}

// held is an entry in the backlog, with its value or without.
type held struct {
	Entry
	dropped bool
}

// add takes an entry that the reader has come to.
func (b *backlog) add(e Entry) {
	h := held{Entry: e}
	if b.valueBytes+len(e.Value) > b.limitBytes {
		h.Value, h.dropped = nil, true
	}
	b.valueBytes += len(h.Value)
	b.entries = append(b.entries, h)
	b.dirty = true
}

// take removes and returns entries that were created up to a revision, in order.
// It stops behind so many bytes of values, or so many dropped ones, but never
// between two entries of one revision.
func (b *backlog) take(settled client.Revision, bytesMax, droppedMax int) []held {
	if b.dirty {
		slices.SortFunc(b.entries, func(x, y held) int { return compareEntries(x.Entry, y.Entry) })
		b.dirty = false
	}
	n, bytes, dropped := 0, 0, 0
	for n < len(b.entries) && b.entries[n].Revision <= settled {
		h := b.entries[n]
		full := bytes >= bytesMax || dropped >= droppedMax
		if full && h.Revision != b.entries[n-1].Revision {
			break
		}
		bytes += len(h.Value)
		if h.dropped {
			dropped++
		}
		n++
	}
	out := slices.Clone(b.entries[:n])
	b.entries = slices.Delete(b.entries, 0, n)
	b.valueBytes -= bytes
	return out
}

// lowest returns the smallest id of the backlog, as text; empty when there is
// none.
func (b *backlog) lowest() string {
	if len(b.entries) == 0 {
		return ""
	}
	return slices.MinFunc(b.entries, func(x, y held) int { return compareIDs(x.ID, y.ID) }).ID.String()
}
