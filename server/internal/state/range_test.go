package state

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// rangeFixture holds four keys at revision 8 that differ in every order.
func rangeFixture(t *testing.T) *fixture {
	f := newFixture(t)
	f.put("a=3", "b=9", "c=2", "d=7", "d=8", "b=1", "d=1")
	require.Equal(t, "a=3(2.2.1) b=1(3.7.2) c=2(4.4.1) d=1(5.8.3)", f.all(0))
	return f
}

func TestRange(t *testing.T) {
	const asc, desc = pb.RangeRequest_ASCEND, pb.RangeRequest_DESCEND
	f := rangeFixture(t)
	for name, c := range map[string]struct {
		q     *pb.RangeRequest // key and end default to everything
		want  string
		count int64
		more  bool
	}{
		"all":                                  {q: &pb.RangeRequest{}, want: "a b c d", count: 4},
		"one key":                              {q: &pb.RangeRequest{Key: []byte("b")}, want: "b", count: 1},
		"a missing key":                        {q: &pb.RangeRequest{Key: []byte("bb")}},
		"a range, its end excluded":            {q: &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("d")}, want: "b c", count: 2},
		"an open range":                        {q: &pb.RangeRequest{Key: []byte("bb"), RangeEnd: []byte{0}}, want: "c d", count: 2},
		"an end before the key":                {q: &pb.RangeRequest{Key: []byte("d"), RangeEnd: []byte("a")}},
		"limit cuts, count does not":           {q: &pb.RangeRequest{Limit: 2}, want: "a b", count: 4, more: true},
		"limit that all fit in":                {q: &pb.RangeRequest{Limit: 4}, want: "a b c d", count: 4},
		"a negative limit is none":             {q: &pb.RangeRequest{Limit: -1}, want: "a b c d", count: 4},
		"count only":                           {q: &pb.RangeRequest{CountOnly: true}, count: 4},
		"count only has no more":               {q: &pb.RangeRequest{CountOnly: true, Limit: 1}, count: 4},
		"keys descending":                      {q: &pb.RangeRequest{SortOrder: desc}, want: "d c b a", count: 4},
		"keys descending, limited":             {q: &pb.RangeRequest{SortOrder: desc, Limit: 1}, want: "d", count: 4, more: true},
		"descending, end excluded":             {q: &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("d"), SortOrder: desc}, want: "c b a", count: 3},
		"by version":                           {q: &pb.RangeRequest{SortTarget: pb.RangeRequest_VERSION, SortOrder: desc}, want: "d b a c", count: 4},
		"by create":                            {q: &pb.RangeRequest{SortTarget: pb.RangeRequest_CREATE, SortOrder: desc}, want: "d c b a", count: 4},
		"by mod":                               {q: &pb.RangeRequest{SortTarget: pb.RangeRequest_MOD, SortOrder: asc}, want: "a c b d", count: 4},
		"by value, ties by key":                {q: &pb.RangeRequest{SortTarget: pb.RangeRequest_VALUE, SortOrder: asc}, want: "b d c a", count: 4},
		"sort before limit":                    {q: &pb.RangeRequest{SortTarget: pb.RangeRequest_MOD, SortOrder: desc, Limit: 2}, want: "d b", count: 4, more: true},
		"the last written":                     {q: &pb.RangeRequest{SortTarget: pb.RangeRequest_MOD, SortOrder: desc, Limit: 1}, want: "d", count: 4, more: true},
		"a target without order ascends":       {q: &pb.RangeRequest{SortTarget: pb.RangeRequest_VALUE}, want: "b d c a", count: 4},
		"but it is cut before it is sorted":    {q: &pb.RangeRequest{SortTarget: pb.RangeRequest_VALUE, Limit: 1}, want: "b", count: 4, more: true},
		"quirk: the cut keeps one too many":    {q: &pb.RangeRequest{SortTarget: pb.RangeRequest_VALUE, Limit: 2}, want: "b c", count: 4, more: true},
		"unless there are filters":             {q: &pb.RangeRequest{SortTarget: pb.RangeRequest_VALUE, Limit: 2, MinModRevision: 1}, want: "b d", count: 4, more: true},
		"min mod":                              {q: &pb.RangeRequest{MinModRevision: 7}, want: "b d", count: 4},
		"max mod":                              {q: &pb.RangeRequest{MaxModRevision: 4}, want: "a c", count: 4},
		"min create":                           {q: &pb.RangeRequest{MinCreateRevision: 4}, want: "c d", count: 4},
		"max create":                           {q: &pb.RangeRequest{MaxCreateRevision: 3}, want: "a b", count: 4},
		"filter before limit":                  {q: &pb.RangeRequest{MinModRevision: 4, Limit: 2}, want: "b c", count: 4, more: true},
		"filter, and the limit fits the rest":  {q: &pb.RangeRequest{MinModRevision: 7, Limit: 2}, want: "b d", count: 4},
		"filter on one key keeps the count":    {q: &pb.RangeRequest{Key: []byte("a"), MinModRevision: 3}, count: 1},
		"a target that nobody knows":           {q: &pb.RangeRequest{SortTarget: 9, SortOrder: asc}, want: "a b c d", count: 4},
		"an order that nobody knows":           {q: &pb.RangeRequest{SortTarget: pb.RangeRequest_MOD, SortOrder: 9}, want: "a b c d", count: 4},
		"old: what was not there yet":          {q: &pb.RangeRequest{Revision: 4}, want: "a b c", count: 3},
		"old: limited":                         {q: &pb.RangeRequest{Revision: 4, Limit: 2}, want: "a b", count: 3, more: true},
		"old: descending, limited":             {q: &pb.RangeRequest{Revision: 4, SortOrder: desc, Limit: 2}, want: "c b", count: 3, more: true},
		"old: count only":                      {q: &pb.RangeRequest{Revision: 3, CountOnly: true}, count: 2},
		"old: sorted by the values of then":    {q: &pb.RangeRequest{Revision: 4, SortTarget: pb.RangeRequest_VALUE, SortOrder: desc}, want: "b a c", count: 3},
		"old: before anything":                 {q: &pb.RangeRequest{Revision: 1}},
		"a negative revision is the current":   {q: &pb.RangeRequest{Revision: -5}, want: "a b c d", count: 4},
		"old: the newest version may be older": {q: &pb.RangeRequest{Key: []byte("a"), Revision: 7}, want: "a", count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			if c.q.Key == nil {
				c.q.Key, c.q.RangeEnd = []byte{0}, []byte{0}
			}
			r := f.read(c.q)
			require.Equal(t, c.want, keysOf(r.Kvs))
			require.Equal(t, c.count, r.Count)
			require.Equal(t, c.more, r.More)
			require.EqualValues(t, 8, r.Header.Revision, "the header has the current revision, also of an old read")
		})
	}
}

func TestRangeValues(t *testing.T) {
	f := rangeFixture(t)
	f.grant(7)
	f.putLease("l", 7)
	one := &pb.RangeRequest{Key: []byte("b")}
	require.Equal(t, "b=1(3.7.2)", show(f.read(one).Kvs))
	one.Revision = 6
	require.Equal(t, "b=9(3.3.1)", show(f.read(one).Kvs))
	// keys_only drops the values and nothing else; etcd 3.7 drops the lease as well, 3.6 did not.
	for _, q := range []*pb.RangeRequest{
		{Key: []byte("b"), RangeEnd: []byte{0}},
		{Key: []byte("b"), RangeEnd: []byte{0}, Revision: 9},
		{Key: []byte("b"), RangeEnd: []byte{0}, SortTarget: pb.RangeRequest_VALUE, SortOrder: pb.RangeRequest_ASCEND, Limit: 9},
	} {
		q.KeysOnly = true
		require.ElementsMatch(t, []string{"b=(3.7.2)", "c=(4.4.1)", "d=(5.8.3)", "l=(9.9.1 lease 7)"}, shown(f.read(q)))
	}
	require.Equal(t, "l=(9.9.1 lease 7)", show(f.read(&pb.RangeRequest{Key: []byte("l"), KeysOnly: true}).Kvs))
}

func shown(r *pb.RangeResponse) []string {
	var list []string
	for _, kv := range r.Kvs {
		list = append(list, show([]*mvccKeyValue{kv}))
	}
	return list
}

func TestRangeRevisionErrors(t *testing.T) {
	f := rangeFixture(t)
	f.compact(4)
	for rev, want := range map[int64]error{1: ErrCompacted, 3: ErrCompacted, 4: nil, 8: nil, 9: ErrFutureRevision, 0: nil, -1: nil} {
		for _, countOnly := range []bool{false, true} {
			for _, end := range []string{"", "z"} {
				_, err := f.m.View().Range(&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte(end), Revision: rev, CountOnly: countOnly})
				require.ErrorIs(t, err, want, "revision %d", rev)
			}
		}
	}
	require.Equal(t, "a=3(2.2.1) b=9(3.3.1) c=2(4.4.1)", f.all(4), "the compact revision itself can be read")
}

// Ranges over more keys than a count walks: the counters of the tree give the rest. They must be right after deletes,
// and in a view whose nodes the machine has copied since.
func TestRangeCounts(t *testing.T) {
	const keys = 5000
	f := &fixture{T: t, m: New(Config{})}
	index := uint64(0)
	apply := func(batch ...Command) {
		index++
		f.m.Apply(index, 1, batch)
	}
	for i := range keys {
		apply(putOf(fmt.Appendf(nil, "%05d", (i*7919)%keys), nil))
	}
	for i := 0; i < keys; i += 3 {
		apply(Command{Kind: KindDeleteRange, Request: &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "%05d", i)}})
	}
	view := f.m.View()
	check := func(v *View, from, to int, want int64) {
		t.Helper()
		for _, q := range []*pb.RangeRequest{{CountOnly: true}, {Limit: 1}, {Limit: 300}, {Limit: 1, SortOrder: pb.RangeRequest_DESCEND}} {
			q.Key, q.RangeEnd = fmt.Appendf(nil, "%05d", from), fmt.Appendf(nil, "%05d", to)
			if to == keys {
				q.RangeEnd = []byte{0}
			}
			r, err := v.Range(q)
			require.NoError(t, err)
			require.Equal(t, want, r.Count, "[%d, %d)", from, to)
			require.Equal(t, !q.CountOnly && want > q.Limit, r.More)
		}
	}
	left := func(from, to int) (n int64) {
		for i := from; i < to; i++ {
			if i%3 != 0 {
				n++
			}
		}
		return n
	}
	for _, c := range [][2]int{{0, keys}, {0, 2000}, {17, 4711}, {2500, 2501}, {300, 300}, {4999, keys}} {
		check(view, c[0], c[1], left(c[0], c[1]))
	}
	for i := range keys {
		apply(Command{Kind: KindDeleteRange, Request: &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "%05d", i)}})
		if i == keys/2 {
			check(f.m.View(), 0, keys, left(keys/2+1, keys))
		}
	}
	check(f.m.View(), 0, keys, 0)
	check(view, 17, 4711, left(17, 4711))
	require.NoError(t, f.m.Check())
}

// A point read allocates its response and the key, and a walk over events nothing.
func TestAllocations(t *testing.T) {
	f := rangeFixture(t)
	v, q := f.m.View(), &pb.RangeRequest{Key: []byte("b")}
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		if r, err := v.Range(q); err != nil || r.Count != 1 {
			t.Error(r, err)
		}
	}), 2.0)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if v.Get("b") == nil {
			t.Error("b is gone")
		}
	}))
	h, n := v.History(), 0
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for e := range h.From(3) {
			if e.Version.Mod == 5 {
				break
			}
			n++
		}
	}))
	require.Positive(t, n)
}
