package shard

import (
	"cmp"
	"slices"
	"strings"
)

// all is behind every key: what a feed that has read everything has reached.
const all = "~"

// feed is how an owner learns of items: it reads the lanes in order of their
// keys, in pages, and sees everything that comes later by a watch. Pages are
// read at the revision that the watch has reached, so nothing falls in between,
// and nothing is seen twice.
//
// The order of the keys is not that of the commits: the id of an item begins
// with a revision before its own. So when the keys are read up to one that
// begins with S, whatever was not seen yet was committed after S.
type feed struct {
	watched int64 // the revision that the watch has reached
	lanes   []*lane
	due     lane
	known   map[string]bool // claimed before the feed began: to be skipped once
	bytes   int64           // of items read, for the size of pages
	count   int64
}

// lane is one range of keys. Everything up to horizon is known, or has been.
type lane struct {
	prefix  string
	horizon string
	reading bool
	limbo   []*Item // seen behind the horizon while a page is under way
	spilled bool    // there were too many
	readAt  int64   // events up to this revision, behind readFrom, are in a page
	from    string
	buffer  []*Item // in order of commits, to be emitted
	items   []*Item // ready, in order; of the due lane: waiting, in order of keys
	highest string  // key that was ever taken
	mark    KV
	had     float64 // messages claimed for each unit of its weight
}

func newFeed(lanes int) feed {
	f := feed{known: make(map[string]bool)}
	for range lanes {
		f.lanes = append(f.lanes, &lane{})
	}
	return f
}

// begin starts at a revision with the marks as they were.
func (s *Shard) begin(rev int64, marks []KV) {
	s.watched = rev
	for i, l := range s.lanes {
		l.prefix = LaneOf(s.N, i)
		l.horizon = l.prefix
		for _, kv := range marks {
			if kv.Key == MarkKey(s.N, i) {
				l.mark, l.horizon = kv, l.prefix+string(kv.Value)
			}
		}
	}
	for _, l := range s.lanes {
		l.highest = l.horizon
	}
	s.due.prefix, s.due.horizon = DueOf(s.N), DueOf(s.N)
}

// Restart begins anew at a revision, when the watch could not go on: what was
// ready is read again.
func (s *Shard) Restart(rev int64) {
	if s.token == 0 {
		return
	}
	marks := make([]KV, 0, len(s.lanes))
	for _, l := range s.lanes {
		marks = append(marks, l.mark)
	}
	known := s.known
	s.feed = newFeed(s.limits.Lanes)
	s.known = known
	s.knowOurs()
	for key := range s.parked {
		s.known[key] = true
	}
	s.begin(rev, marks)
}

// Watched returns the revision that the watch of the shard's items starts after.
func (s *Shard) Watched() int64 { return s.watched }

// See takes what the watch has to say: items that came, up to a revision.
func (s *Shard) See(kvs []KV, rev int64) {
	if s.token == 0 || rev <= s.watched {
		return
	}
	for _, kv := range kvs {
		if kv.Mod > s.watched {
			s.see(kv)
		}
	}
	s.watched = rev
	for _, l := range s.lanes {
		l.emit()
	}
}

func (s *Shard) see(kv KV) {
	l := s.laneOf(kv.Key)
	if l == nil || kv.Create != kv.Mod {
		return
	}
	it := s.decode(kv)
	switch {
	case kv.Key <= l.horizon:
		if kv.Mod > l.readAt || kv.Key <= l.from {
			s.add(l, it)
		}
	case l.reading && len(l.limbo) < limboMax:
		l.limbo = append(l.limbo, it)
	case l.reading:
		l.spilled = true
	}
	switch full := len(l.items)+len(l.buffer) > readyMax; {
	case full && l == &s.due:
		l.cut()
	case full && l.horizon == all:
		// No more is taken: it will be read when there is room.
		l.horizon = l.highest
	}
}

// cut forgets what is due last: it will be read when its time comes nearer.
func (l *lane) cut() {
	clear(l.items[readyMax/2:])
	l.items = l.items[:readyMax/2]
	l.horizon = l.items[len(l.items)-1].Key
}

func (s *Shard) laneOf(key string) *lane {
	if isDue(key) || key == s.due.prefix {
		return &s.due
	}
	for _, l := range s.lanes {
		if l.prefix != "" && strings.HasPrefix(key, l.prefix) {
			return l
		}
	}
	return nil
}

func (s *Shard) decode(kv KV) *Item {
	it, err := DecodeItem(kv)
	if err != nil { // it will be a job that says so
		it.Job = "damaged-" + Record(kv.Key)
	}
	s.bytes, s.count = s.bytes+int64(len(kv.Value)), s.count+1
	return it
}

// add takes an item that is new to us.
func (s *Shard) add(l *lane, it *Item) {
	l.highest = max(l.highest, it.Key)
	if s.known[it.Key] {
		delete(s.known, it.Key)
		return
	}
	if s.claims[it.Key] != nil || s.parked[it.Key] {
		return
	}
	if l == &s.due {
		i, found := slices.BinarySearchFunc(l.items, it, func(a, b *Item) int { return strings.Compare(a.Key, b.Key) })
		if !found {
			l.items = slices.Insert(l.items, i, it)
		}
		return
	}
	i, found := slices.BinarySearchFunc(l.buffer, it, byCommit)
	if !found {
		l.buffer = slices.Insert(l.buffer, i, it)
	}
}

func byCommit(a, b *Item) int {
	return cmp.Or(cmp.Compare(a.Create, b.Create), strings.Compare(a.Key, b.Key))
}

// emit moves what is certainly next from the buffer to what is ready.
func (l *lane) emit() {
	n := len(l.buffer)
	if l.horizon != all && n <= bufferMax {
		limit := seedOf(l.horizon)
		n = 0
		for n < len(l.buffer) && l.buffer[n].Create <= limit {
			n++
		}
	}
	l.items = append(l.items, l.buffer[:n]...)
	l.buffer = slices.Delete(l.buffer, 0, n)
}

// page asks for the next page of each lane that runs low.
func (s *Shard) page() {
	for _, l := range s.lanes {
		s.pageOf(l, len(l.items) < readyMax/4)
	}
	s.pageOf(&s.due, len(s.due.items) < readyMax/4)
}

func (s *Shard) pageOf(l *lane, low bool) {
	if l.reading || l.horizon == all || !low {
		return
	}
	l.reading, l.spilled, l.limbo = true, false, nil
	limit := int64(pageFirst)
	if s.count > 0 {
		limit = max(1, min(pageMax, pageBytes/max(1, s.bytes/s.count)))
	}
	op := Op{Kind: Get, Key: l.horizon + "\x00", End: PrefixEnd(l.prefix), Limit: limit, Rev: s.watched}
	token := s.token
	var ask func()
	ask = func() {
		s.wishes = append(s.wishes, &Request{Read: true, Txn: Txn{Then: []Op{op}}, done: func(a *Answer) {
			switch {
			case s.token != token || !l.reading || s.laneOf(l.prefix) != l:
			case a.Compacted:
				op.Rev = 0
				ask()
			default:
				s.paged(l, op, a)
			}
		}})
	}
	ask()
}

func (s *Shard) paged(l *lane, op Op, a *Answer) {
	l.reading = false
	if l.spilled {
		return // some that came meanwhile were dropped: once more
	}
	kvs := a.Results[0].KVs
	l.from, l.readAt = l.horizon, op.Rev
	if op.Rev == 0 {
		l.readAt = a.Revision
	}
	l.horizon = all
	if int64(len(kvs)) >= op.Limit {
		l.horizon = kvs[len(kvs)-1].Key
	}
	for _, kv := range kvs {
		if kv.Create == kv.Mod {
			s.add(l, s.decode(kv))
		}
	}
	for _, it := range l.limbo {
		if it.Key <= l.horizon && it.Create > l.readAt {
			s.add(l, it)
		}
	}
	l.limbo = nil
	if l != &s.due {
		l.emit()
	}
}

// ripen makes ready what is due.
func (s *Shard) ripen(now int64) {
	n := 0
	for _, it := range s.due.items {
		if DueTime(it.Key) > now {
			break
		}
		l := s.lanes[min(max(0, it.Lane), len(s.lanes)-1)]
		l.items = append(l.items, it)
		n++
	}
	s.due.items = slices.Delete(s.due.items, 0, n)
}

// Backlog says how many items are ready, as far as we look ahead.
func (s *Shard) Backlog() (n int) {
	for _, l := range s.lanes {
		n += len(l.items)
	}
	return n
}

// Sweep moves the marks forward: to before what is left, and not beyond old, a
// revision that all producers have certainly heard of. New readers start there.
func (s *Shard) Sweep(old int64) {
	if s.token == 0 {
		return
	}
	for i, l := range s.lanes {
		s.sweep(i, l, old)
	}
}

func (s *Shard) sweep(i int, l *lane, old int64) {
	to := Bound(old)
	lowest := func(key string) {
		if strings.HasPrefix(key, l.prefix) {
			// Its seed alone is less than itself: a reader begins behind the mark.
			to = min(to, Bound(seedOf(key)))
		}
	}
	for _, it := range l.items {
		lowest(it.Key)
	}
	for _, it := range l.buffer {
		lowest(it.Key)
	}
	for key := range s.claims {
		lowest(key)
	}
	for key := range s.parked {
		lowest(key)
	}
	if l.mark.Key == "" || to <= string(l.mark.Value) {
		return
	}
	old, key := l.mark.Mod, MarkKey(s.N, i)
	t := Txn{
		If:   []Compare{modIs(TokenKey(s.N), s.token), modIs(key, old), {Key: l.prefix, End: l.prefix + to, Field: Create}},
		Then: []Op{put(key, []byte(to))},
		Else: []Op{get(key)},
	}
	if s.limits.Planted == BlindMark {
		t.If = t.If[:2]
	}
	s.wishes = append(s.wishes, &Request{Txn: t, Alone: true, done: func(a *Answer) {
		if a.Succeeded {
			l.mark = KV{Key: key, Value: []byte(to), Mod: a.Revision}
		} else if kv := a.Results[0].one(); kv.Mod > l.mark.Mod {
			l.mark = kv
		}
	}})
}
