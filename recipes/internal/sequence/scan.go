package sequence

import (
	"math"
	"slices"

	"github.com/latchkey-go/latchkey/client"
)

const (
	// pageEntriesMax and pageBytes bound what is asked for at once, over all lanes:
	// the second by what entries have weighed so far.
	pageEntriesMax = 1024
	pageBytes      = 1 << 20
	// A page spans no more than a window of seeds, as a server may count all keys
	// of the range that it is given, whatever the limit. The first window is this
	// wide; an empty one is followed by one of twice the width, and a full one by
	// one as wide as what it had.
	windowFirst = 1024
)

// settledEnd is when there is nothing more to come.
const settledEnd = client.Revision(math.MaxInt64)

// window is what to read of one lane next: ids from First up to and without End.
type window struct {
	lane  int
	first string
	end   string
	limit int64
}

// scan walks over the lanes of a log at one revision, in windows of seeds that
// all lanes are through before the next one begins. It does not read by itself: it
// says what to read and is told what there was. It is pure.
type scan struct {
	last  client.Revision // the revision that is read: all seeds are below it
	next  []string        // by lane: the first id that was not seen
	end   client.Revision // of the window, exclusive; seeds
	span  client.Revision // width of the next window
	found int             // entries in the window so far
	bytes int             // weight of an entry, averaged over pages
}

func newScan(lanes int, from string, revision client.Revision) *scan {
	s := &scan{last: revision, next: make([]string, lanes), span: windowFirst, bytes: pageBytes / 64}
	for i := range s.next {
		s.next[i] = from
	}
	s.end = seedOf(from) + s.span
	return s
}

// done says that all lanes were seen up to the revision.
func (s *scan) done() bool { return s.settled() == settledEnd }

// windows returns what to read next: a page for each lane that is not through the
// window.
func (s *scan) windows() []window {
	end := Bound(s.end)
	var out []window
	for lane, first := range s.next {
		if first < end {
			out = append(out, window{lane: lane, first: first, end: end, limit: s.limit()})
		}
	}
	return out
}

// limit returns how many entries of a lane make a page.
func (s *scan) limit() int64 {
	n := min(pageBytes/max(s.bytes, 1), pageEntriesMax) / len(s.next)
	return int64(max(n, 4))
}

// page is what a window had.
type page struct {
	entries []Entry
	more    bool // the limit cut it short
}

// read notes what a window had.
func (s *scan) read(w window, p page) {
	s.found += len(p.entries)
	if n := len(p.entries); n > 0 {
		bytes := 0
		for _, e := range p.entries {
			bytes += len(e.Value)
		}
		s.bytes = (s.bytes + bytes/n) / 2
	}
	if !p.more {
		s.next[w.lane] = w.end
		return
	}
	first, last := p.entries[0].ID, p.entries[len(p.entries)-1].ID
	s.next[w.lane] = last.String() + "~" // behind its note
	// The rest of the window is far too wide.
	s.span = max(2*(last.Seed-first.Seed), 1)
	s.end = min(s.end, last.Seed+s.span)
}

// advance opens the next window when all lanes are through this one.
func (s *scan) advance() {
	if len(s.windows()) > 0 || s.done() {
		return
	}
	if int64(s.found) < s.limit()/2 {
		s.span *= 2
	}
	s.found = 0
	s.end += min(s.span, s.last+1)
}

// settled returns the revision up to which all entries were seen: those not seen
// have larger seeds, or as large ones, and so later revisions.
func (s *scan) settled() client.Revision {
	if seed := seedOf(s.lowest()); seed < s.last {
		return seed
	}
	return settledEnd
}

// lowest returns the smallest id that was not seen, over all lanes.
func (s *scan) lowest() string { return slices.Min(s.next) }
