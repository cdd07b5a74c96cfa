package state

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// rangeKeys answers a range request. Count is the number of keys in the range, whatever the limit and the filters; More
// tells that the limit cut something off.
func (r *reader) rangeKeys(q *pb.RangeRequest) (*pb.RangeResponse, error) {
	rev, err := r.resolve(q.GetRevision())
	if err != nil {
		return nil, err
	}
	b := boundsOf(q.GetKey(), q.GetRangeEnd())
	switch {
	case b.single && rev == r.revision:
		v, _ := r.live.Get(b.from)
		return r.answerOne(q, v), nil
	case q.GetCountOnly():
		return r.answer(q, nil, r.countAt(b, rev), false), nil
	case rev == r.revision:
		s := newSelection(q)
		n := r.selectLive(b, &s)
		return r.answer(q, s.result(), n, s.more), nil
	default:
		s := newSelection(q)
		n, err := r.selectAt(b, rev, &s)
		if err != nil {
			return nil, err
		}
		return r.answer(q, s.result(), n, s.more), nil
	}
}

// countAt returns the number of keys in the range at revision rev.
func (r *reader) countAt(b bounds, rev int64) int {
	if rev == r.revision {
		return r.count(b)
	}
	n := 0
	r.ascendAt(b, rev, func(*Version, int) bool { n++; return true })
	return n
}

// selectLive offers the live versions of the range to s until it has enough, and returns the number of keys in the range.
func (r *reader) selectLive(b bounds, s *selection) int {
	n := 0
	visit := func(v *Version) bool {
		n++
		return s.add(v)
	}
	all := false
	if s.reverse {
		all = r.descend(b, visit)
	} else {
		all = r.ascend(b, visit)
	}
	if all {
		return n
	}
	return r.count(b)
}

// selectAt is selectLive at an older revision. It walks the whole range, since nobody counted the keys of that time, but
// loads only the versions that s asks for.
func (r *reader) selectAt(b bounds, rev int64, s *selection) (count int, err error) {
	type place struct {
		newest *Version
		i      int
	}
	var places []place // only for the reverse order
	open := true
	offer := func(newest *Version, i int) bool {
		v, e := r.load(newest, i)
		if e != nil {
			err = e
			return false
		}
		return s.add(v)
	}
	r.ascendAt(b, rev, func(newest *Version, i int) bool {
		count++
		switch {
		case s.reverse:
			places = append(places, place{newest, i})
		case open:
			open = offer(newest, i)
		}
		return err == nil
	})
	for k := len(places) - 1; k >= 0 && open; k-- {
		open = offer(places[k].newest, places[k].i)
	}
	return count, err
}

// selection picks, orders and cuts the versions of a range as etcd does. The walk offers them in the order of their
// keys, descending when reverse.
type selection struct {
	q       *pb.RangeRequest
	limit   int64 // versions to return, MaxInt64 for all
	reverse bool
	sorted  bool // an order other than the walk's
	sign    int  // -1 when that order descends
	// bounded: versions is a heap of the best limit so far, its root the worst of them. Otherwise it is a list, and the
	// walk may end when the list has one more than limit.
	bounded  bool
	versions []*Version
	more     bool // something beyond limit matched
}

func newSelection(q *pb.RangeRequest) selection {
	s := selection{q: q, limit: q.GetLimit(), sign: 1}
	if s.limit <= 0 {
		s.limit = math.MaxInt64
	}
	order := q.GetSortOrder()
	switch q.GetSortTarget() {
	case pb.RangeRequest_VERSION, pb.RangeRequest_CREATE, pb.RangeRequest_MOD, pb.RangeRequest_VALUE:
		s.sorted = order == pb.RangeRequest_ASCEND || order == pb.RangeRequest_DESCEND || order == pb.RangeRequest_NONE
		// A quirk of etcd's: with a target but no order it sorts ascending, but cuts first, unless there are filters.
		s.bounded = s.sorted && (order != pb.RangeRequest_NONE || hasFilters(q)) && s.limit != math.MaxInt64
		if order == pb.RangeRequest_DESCEND {
			s.sign = -1
		}
	default:
		s.reverse = order == pb.RangeRequest_DESCEND
	}
	return s
}

func hasFilters(q *pb.RangeRequest) bool {
	return q.GetMinModRevision() != 0 || q.GetMaxModRevision() != 0 ||
		q.GetMinCreateRevision() != 0 || q.GetMaxCreateRevision() != 0
}

// matches reports whether v passes the request's revision filters; zero is no filter.
func matches(q *pb.RangeRequest, v *Version) bool {
	return (q.GetMinModRevision() == 0 || v.Mod >= q.GetMinModRevision()) &&
		(q.GetMaxModRevision() == 0 || v.Mod <= q.GetMaxModRevision()) &&
		(q.GetMinCreateRevision() == 0 || v.Create >= q.GetMinCreateRevision()) &&
		(q.GetMaxCreateRevision() == 0 || v.Create <= q.GetMaxCreateRevision())
}

// add offers the next version of the walk and reports whether more are wanted.
func (s *selection) add(v *Version) bool {
	switch {
	case !matches(s.q, v):
	case s.bounded:
		s.offer(v)
	case int64(len(s.versions)) == s.limit && !s.sorted:
		s.more = true
		return false
	case int64(len(s.versions)) > s.limit:
		return false
	default:
		s.versions = append(s.versions, v)
	}
	return true
}

// compare orders two versions by the sort target, and equal ones by key, so that the answer is the same everywhere.
func (s *selection) compare(a, b *Version) int {
	c := 0
	switch s.q.GetSortTarget() {
	case pb.RangeRequest_VERSION:
		c = cmp.Compare(a.Count, b.Count)
	case pb.RangeRequest_CREATE:
		c = cmp.Compare(a.Create, b.Create)
	case pb.RangeRequest_MOD:
		c = cmp.Compare(a.Mod, b.Mod)
	case pb.RangeRequest_VALUE:
		c = bytes.Compare(a.Value, b.Value)
	}
	if c != 0 {
		return s.sign * c
	}
	return cmp.Compare(a.Key, b.Key)
}

// offer puts v into the heap, in place of the worst when it is full.
func (s *selection) offer(v *Version) {
	h := s.versions
	if int64(len(h)) < s.limit {
		h = append(h, v)
		for i := len(h) - 1; i > 0; {
			parent := (i - 1) / 2
			if s.compare(h[i], h[parent]) <= 0 {
				break
			}
			h[i], h[parent] = h[parent], h[i]
			i = parent
		}
		s.versions = h
		return
	}
	s.more = true
	if s.compare(v, h[0]) >= 0 {
		return
	}
	h[0] = v
	for i := 0; ; {
		worst := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if s.compare(h[child], h[worst]) > 0 {
				worst = child
			}
		}
		if worst == i {
			return
		}
		h[i], h[worst] = h[worst], h[i]
		i = worst
	}
}

// result returns the selected versions in order.
func (s *selection) result() []*Version {
	if s.sorted {
		slices.SortFunc(s.versions, s.compare)
	}
	if int64(len(s.versions)) > s.limit {
		s.versions, s.more = s.versions[:s.limit], true
	}
	return s.versions
}

// rangeResponse is a response and its header in one allocation.
type rangeResponse struct {
	response pb.RangeResponse
	header   pb.ResponseHeader
}

// answer builds a response. All of its key-values come from one allocation, and all of their keys from another: they are
// marshalled and dropped together.
func (r *reader) answer(q *pb.RangeRequest, versions []*Version, count int, more bool) *pb.RangeResponse {
	a := new(rangeResponse)
	a.header.Revision = r.revision
	a.response.Header, a.response.Count, a.response.More = &a.header, int64(count), more
	if len(versions) == 0 {
		return &a.response
	}
	total := 0
	for _, v := range versions {
		total += len(v.Key)
	}
	keys := make([]byte, 0, total)
	slab := make([]mvccpb.KeyValue, len(versions))
	a.response.Kvs = make([]*mvccpb.KeyValue, len(versions))
	for i, v := range versions {
		kv, start := &slab[i], len(keys)
		keys = append(keys, v.Key...)
		kv.Key = keys[start:len(keys):len(keys)]
		v.fill(kv)
		if q.GetKeysOnly() {
			kv.Value = nil
		}
		a.response.Kvs[i] = kv
	}
	return &a.response
}

// pointResponse is the answer for one key in one allocation.
type pointResponse struct {
	rangeResponse
	kv  mvccpb.KeyValue
	kvs [1]*mvccpb.KeyValue
}

// answerOne is answer for the range of one key, whose version is v, nil when it does not exist.
func (r *reader) answerOne(q *pb.RangeRequest, v *Version) *pb.RangeResponse {
	if v == nil || q.GetCountOnly() || !matches(q, v) {
		n := 0
		if v != nil {
			n = 1
		}
		return r.answer(q, nil, n, false)
	}
	a := new(pointResponse)
	a.header.Revision = r.revision
	a.kv.Key = []byte(v.Key)
	v.fill(&a.kv)
	if q.GetKeysOnly() {
		a.kv.Value = nil
	}
	a.kvs[0] = &a.kv
	a.response.Header, a.response.Count, a.response.Kvs = &a.header, 1, a.kvs[:]
	return &a.response
}
