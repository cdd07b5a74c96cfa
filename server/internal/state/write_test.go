package state

import (
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// An empty store is at revision 1 and was never compacted, so the first write is revision 2.
func TestEmptyStore(t *testing.T) {
	f := newFixture(t)
	require.EqualValues(t, 1, f.m.Revision())
	require.EqualValues(t, -1, f.m.CompactRevision())
	require.Empty(t, f.all(0))
	require.NoError(t, f.m.Check())
	f.put("a=1")
	require.EqualValues(t, 2, f.m.Revision())
	require.Equal(t, "a=1(2.2.1)", f.all(0))
}

func TestPut(t *testing.T) {
	// Each case starts with a=1 at revision 2 without lease, b=2 at revision 3 with lease 7, revision 3.
	for name, c := range map[string]struct {
		request *pb.PutRequest
		err     error
		want    string // the store after it
		prev    string // the response's prev_kv
	}{
		"a new key has version 1 and is created now": {
			request: &pb.PutRequest{Key: []byte("c"), Value: []byte("3")},
			want:    "a=1(2.2.1) b=2(3.3.1 lease 7) c=3(4.4.1)",
		},
		"an existing key keeps its create revision": {
			request: &pb.PutRequest{Key: []byte("a"), Value: []byte("x")},
			want:    "a=x(2.4.2) b=2(3.3.1 lease 7)",
		},
		"prev_kv of a new key is absent": {
			request: &pb.PutRequest{Key: []byte("c"), PrevKv: true},
			want:    "a=1(2.2.1) b=2(3.3.1 lease 7) c=(4.4.1)",
		},
		"prev_kv is the version before": {
			request: &pb.PutRequest{Key: []byte("b"), Value: []byte("x"), PrevKv: true},
			want:    "a=1(2.2.1) b=x(3.4.2)",
			prev:    "b=2(3.3.1 lease 7)",
		},
		"a put without lease detaches": {
			request: &pb.PutRequest{Key: []byte("b"), Value: []byte("x")},
			want:    "a=1(2.2.1) b=x(3.4.2)",
		},
		"a put with lease attaches": {
			request: &pb.PutRequest{Key: []byte("a"), Value: []byte("x"), Lease: 7},
			want:    "a=x(2.4.2 lease 7) b=2(3.3.1 lease 7)",
		},
		"ignore_lease keeps the lease": {
			request: &pb.PutRequest{Key: []byte("b"), Value: []byte("x"), IgnoreLease: true},
			want:    "a=1(2.2.1) b=x(3.4.2 lease 7)",
		},
		"ignore_value keeps the value": {
			request: &pb.PutRequest{Key: []byte("a"), IgnoreValue: true, Lease: 7},
			want:    "a=1(2.4.2 lease 7) b=2(3.3.1 lease 7)",
		},
		"an empty value is a value": {
			request: &pb.PutRequest{Key: []byte("a")},
			want:    "a=(2.4.2) b=2(3.3.1 lease 7)",
		},
		"ignore_value of a missing key":               {request: &pb.PutRequest{Key: []byte("c"), IgnoreValue: true}, err: ErrKeyNotFound},
		"ignore_lease of a missing key":               {request: &pb.PutRequest{Key: []byte("c"), IgnoreLease: true}, err: ErrKeyNotFound},
		"an unknown lease":                            {request: &pb.PutRequest{Key: []byte("a"), Lease: 8}, err: ErrLeaseNotFound},
		"the lease is looked at before the key is":    {request: &pb.PutRequest{Key: []byte("c"), Lease: 8, IgnoreValue: true}, err: ErrLeaseNotFound},
		"an unknown lease is an error though ignored": {request: &pb.PutRequest{Key: []byte("a"), Lease: 8, IgnoreLease: true}, err: ErrLeaseNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.grant(7)
			f.put("a=1")
			do[*pb.PutResponse](f, KindPut, &pb.PutRequest{Key: []byte("b"), Value: []byte("2"), Lease: 7})
			r := f.try(KindPut, c.request)
			require.ErrorIs(t, r.Err, c.err)
			if c.err != nil {
				require.Nil(t, r.Response)
				require.EqualValues(t, 3, f.m.Revision(), "a failed put makes no revision")
				require.Equal(t, "a=1(2.2.1) b=2(3.3.1 lease 7)", f.all(0))
				return
			}
			response := r.Response.(*pb.PutResponse)
			require.EqualValues(t, 4, response.Header.Revision)
			require.Equal(t, c.want, f.all(0))
			if c.prev == "" {
				require.Nil(t, response.PrevKv)
			} else {
				require.Equal(t, c.prev, show([]*mvccKeyValue{response.PrevKv}))
			}
		})
	}
}

// A key that comes back after a delete starts anew: version 1, created now; a put after a delete has no prev_kv.
func TestRecreate(t *testing.T) {
	f := newFixture(t)
	f.put("a=1", "a=2")
	f.delete("a")
	r := do[*pb.PutResponse](f, KindPut, &pb.PutRequest{Key: []byte("a"), Value: []byte("3"), PrevKv: true})
	require.Nil(t, r.PrevKv)
	require.Equal(t, "a=3(5.5.1)", f.all(0))
	require.Equal(t, "", f.all(4))
	require.Equal(t, "a=2(2.3.2)", f.all(3))
	require.Equal(t, "a=1@2.0 a=2@3.0/1 -a@4.0/2 a=3@5.0", f.events(0))
}

func TestDeleteRange(t *testing.T) {
	for name, c := range map[string]struct {
		key, end string
		deleted  int64
		rev      int64
		left     string
	}{
		"one key":                           {"b", "", 1, 6, "a aa c"},
		"a missing key makes no revision":   {"x", "", 0, 5, "a aa b c"},
		"a range, its end excluded":         {"a", "b", 2, 6, "b c"},
		"an end of zero is open":            {"aa", "\x00", 3, 6, "a"},
		"everything":                        {"\x00", "\x00", 4, 6, ""},
		"an end before the key is no range": {"c", "a", 0, 5, "a aa b c"},
		"an end equal to the key":           {"b", "b", 0, 5, "a aa b c"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.put("a=1", "aa=2", "b=3", "c=4")
			before := f.read(&pb.RangeRequest{Key: []byte(c.key), RangeEnd: []byte(c.end)})
			r := do[*pb.DeleteRangeResponse](f, KindDeleteRange, &pb.DeleteRangeRequest{
				Key: []byte(c.key), RangeEnd: []byte(c.end), PrevKv: true})
			require.Equal(t, c.deleted, r.Deleted)
			require.Equal(t, c.rev, r.Header.Revision)
			require.Equal(t, show(before.Kvs), show(r.PrevKvs))
			require.Equal(t, c.left, keysOf(f.read(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}).Kvs))
		})
	}
}

// The deletes of one range share its revision and are numbered in the order of the keys; without prev_kv none come back.
// What a deleted key held is not kept until the next compaction: key and value are the memory of one request.
func TestTombstoneHoldsNoValue(t *testing.T) {
	f := newFixture(t)
	body := []byte("key" + strings.Repeat("v", pinnedBytes))
	require.NoError(t, f.try(KindPut, &pb.PutRequest{Key: body[:3:3], Value: body[3:]}).Err)
	live, _ := f.m.live.Get("key")
	require.Same(t, &body[0], unsafe.StringData(live.Key))
	f.delete("key")
	dead, _ := f.m.dead.Get("key")
	require.Equal(t, "key", dead.Key)
	require.NotSame(t, &body[0], unsafe.StringData(dead.Key))
	f.m.dead.Scan(func(key string, _ *Version) bool {
		require.NotSame(t, &body[0], unsafe.StringData(key))
		return true
	})
}

func TestDeleteRangeEvents(t *testing.T) {
	f := newFixture(t)
	f.put("b=1", "a=2")
	r := do[*pb.DeleteRangeResponse](f, KindDeleteRange, &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	require.Empty(t, r.PrevKvs)
	require.Equal(t, "-a@4.0/2 -b@4.1/1", f.events(4))
	require.EqualValues(t, 4, f.m.Revision())
}

// Size.Live is what the quota counts; History rises with each superseded version and falls to nothing when all of it is
// compacted and swept.
func TestSize(t *testing.T) {
	f := newFixture(t)
	f.put("key=value")
	require.Equal(t, Size{Live: 3 + 5 + 256, Keys: 1}, f.m.Size())
	f.put("key=v")
	require.Equal(t, Size{Live: 3 + 1 + 256, Keys: 1, History: 3 + 5 + 152}, f.m.Size())
	f.delete("key")
	require.Equal(t, Size{History: 3*3 + 5 + 1 + 3*152}, f.m.Size())
	f.put("other=")
	f.compact(5)
	for f.m.Sweep(1) {
	}
	require.Equal(t, Size{Live: 5 + 256, Keys: 1}, f.m.Size())
}

func keysOf(kvs []*mvccKeyValue) string {
	s := ""
	for i, kv := range kvs {
		if i > 0 {
			s += " "
		}
		s += string(kv.Key)
	}
	return s
}
