package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestWatchEvents(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	m.put("a", "0")
	c := m.open()
	created := c.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("c")})
	require.Equal(t, int64(0), created.WatchId)
	require.Equal(t, int64(2), created.Header.Revision, "what comes next is above this")
	require.False(t, created.Canceled)

	m.put("a", "1")
	require.Equal(t, "0@3 a=1@3", describe(c.recv()))
	m.put("c", "not in the range")
	m.apply(putAll(map[string]string{"b": "2"}, "b", "ba"), &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("bz")})
	got := c.recv()
	if got.Header.Revision == 5 { // both revisions may come in one response
		require.Equal(t, "0@5 b=2@5 ba=@5", describe(got))
		got = c.recv()
		require.Equal(t, "0@6 -a@6 -b@6 -ba@6", describe(got))
	} else {
		require.Equal(t, "0@6 b=2@5 ba=@5 -a@6 -b@6 -ba@6", describe(got))
	}
	m.put("b", "back")
	kv := c.recv().Events[0].Kv
	require.True(t, proto.Equal(kv, &mvccpb.KeyValue{
		Key: []byte("b"), Value: []byte("back"), CreateRevision: 7, ModRevision: 7, Version: 1,
	}), "%v", kv)
}

// Each way to give a range means what it means in etcd.
func TestWatchRanges(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	for _, test := range []struct {
		key, end []byte
		want     string
	}{
		{[]byte("b"), nil, "b"},
		{[]byte("b"), []byte{}, "b"},
		{[]byte("b"), []byte{0}, "b b\x00 ba c"},
		{[]byte("b"), []byte("c"), "b b\x00 ba"},
		{nil, []byte{0}, "a b b\x00 ba c"},
		{nil, []byte("b"), "a"},
		{[]byte{0}, []byte{0}, "a b b\x00 ba c"},
	} {
		c := m.open()
		c.create(&pb.WatchCreateRequest{Key: test.key, RangeEnd: test.end})
		m.apply(putAll(nil, "a", "b", "b\x00", "ba", "c"))
		var keys []string
		for _, e := range c.recv().Events {
			keys = append(keys, string(e.Kv.Key))
		}
		require.Equal(t, test.want, strings.Join(keys, " "), "range %q %q", test.key, test.end)
		c.cancel()
	}
}

// What is refused is answered as created and canceled at once, with etcd's text, and the stream goes on.
func TestWatchRefusals(t *testing.T) {
	denied := map[string]error{
		"denied":  rpctypes.ErrGRPCPermissionDenied,
		"token":   rpctypes.ErrGRPCInvalidAuthToken,
		"old":     rpctypes.ErrGRPCAuthOldRevision,
		"nobody":  rpctypes.ErrGRPCUserEmpty,
		"unknown": errors.New("disk on fire"),
	}
	m := startWatch(t, WatchConfig{Permit: func(_ context.Context, key, rangeEnd []byte) error {
		if rangeEnd != nil && len(rangeEnd) == 0 {
			return errors.New("an empty end must be absent")
		}
		return denied[string(key)]
	}})
	m.put("a", "")
	c := m.open()
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 7})
	refused := func(key string) *pb.WatchCreateRequest {
		return &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte{}}
	}
	for _, test := range []struct {
		request *pb.WatchCreateRequest
		reason  string
	}{
		{&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 7}, "mvcc: duplicate watch ID provided on the WatchStream"},
		{&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")}, "mvcc: watcher range is empty"},
		{&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("b")}, "mvcc: watcher range is empty"},
		{&pb.WatchCreateRequest{Key: []byte("b"), StartRevision: -1}, "etcdserver: mvcc: required revision has been compacted"},
		{refused("denied"), "rpc error: code = PermissionDenied desc = etcdserver: permission denied"},
		{refused("unknown"), "rpc error: code = PermissionDenied desc = etcdserver: permission denied"},
		{refused("token"), "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"},
		{refused("old"), "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"},
		{refused("nobody"), "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"},
	} {
		got := c.create(test.request)
		require.True(t, got.Canceled)
		require.Equal(t, int64(-1), got.WatchId)
		require.Equal(t, test.reason, got.CancelReason)
		require.Equal(t, int64(2), got.Header.Revision)
		require.Zero(t, got.CompactRevision)
	}
	require.Equal(t, int64(0), c.create(refused("fine")).WatchId)
}

func TestWatchIDs(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	c := m.open()
	create := func(id int64) int64 {
		return c.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: id}).WatchId
	}
	require.Equal(t, []int64{1, 0, 2, 4, 3}, []int64{create(1), create(0), create(0), create(4), create(0)})
	require.Equal(t, int64(5), create(0), "4 is in use")
	c.cancelWatch(2)
	require.Equal(t, int64(2), c.recv().WatchId)
	require.Equal(t, int64(6), create(0), "ids are not used again by themselves")
	require.Equal(t, int64(2), create(2))
}

func TestWatchCancel(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	m.put("a", "")
	c := m.open()
	c.create(&pb.WatchCreateRequest{Key: []byte("a")})
	c.create(&pb.WatchCreateRequest{Key: []byte("a")})
	c.cancelWatch(17)
	c.send(&pb.WatchRequest{})
	c.cancelWatch(0)
	got := c.recv()
	require.True(t, proto.Equal(got, &pb.WatchResponse{
		Header: &pb.ResponseHeader{ClusterId: 11, MemberId: 22, RaftTerm: 33, Revision: 2}, WatchId: 0, Canceled: true,
	}), "%v", got)
	m.put("a", "1")
	require.Equal(t, "1@3 a=1@3", describe(c.recv()))
	c.cancelWatch(0)
	m.put("a", "2")
	require.Equal(t, "1@4 a=2@4", describe(c.recv()), "a second cancellation is not answered")
}

func TestWatchCompacted(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	for range 5 {
		m.put("a", "")
	}
	m.remove("a")
	m.apply(&pb.CompactionRequest{Revision: 7})
	c := m.open()
	created := c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 6})
	require.False(t, created.Canceled)
	require.Equal(t, int64(7), created.Header.Revision)
	got := c.recv()
	require.True(t, proto.Equal(got, &pb.WatchResponse{
		Header: &pb.ResponseHeader{ClusterId: 11, MemberId: 22, RaftTerm: 33}, Canceled: true, CompactRevision: 7,
	}), "%v", got)

	created = c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 7})
	require.Equal(t, int64(1), created.WatchId)
	require.Equal(t, "1@7 -a@7", describe(c.recv()), "the tombstone at the compact revision is there")
}

func TestWatchStarts(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	for i := range 4 {
		m.put("a", fmt.Sprint(i))
	}
	c := m.open()
	require.Equal(t, int64(5), c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 7}).Header.Revision)
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3})
	require.Equal(t, "1@5 a=1@3 a=2@4 a=3@5", describe(c.recv()))
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 5})
	require.Equal(t, "2@5 a=3@5", describe(c.recv()))
	got := map[string]bool{}
	m.put("a", "4")
	for range 2 {
		got[describe(c.recv())] = true
	}
	require.Equal(t, map[string]bool{"1@6 a=4@6": true, "2@6 a=4@6": true}, got)
	clear(got)
	m.put("a", "5")
	for range 3 {
		got[describe(c.recv())] = true
	}
	require.Equal(t, map[string]bool{"0@7 a=5@7": true, "1@7 a=5@7": true, "2@7 a=5@7": true}, got)
}

func TestWatchFiltersAndPrevious(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	c := m.open()
	a := []byte("a")
	c.create(&pb.WatchCreateRequest{Key: a, WatchId: 1, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}})
	c.create(&pb.WatchCreateRequest{Key: a, WatchId: 2, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}, PrevKv: true})
	c.create(&pb.WatchCreateRequest{Key: a, WatchId: 3, PrevKv: true, Filters: []pb.WatchCreateRequest_FilterType{
		pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE,
	}})
	m.put("a", "1")
	require.Equal(t, "2@2 a=1@2", describe(c.recv()))
	m.put("a", "2")
	require.Equal(t, "2@3 a=2@3 was 1@2", describe(c.recv()))
	m.remove("a")
	require.Equal(t, "1@4 -a@4", describe(c.recv()))
	m.put("a", "3")
	require.Equal(t, "2@5 a=3@5", describe(c.recv()))
	c.create(&pb.WatchCreateRequest{Key: a, WatchId: 4, StartRevision: 2, PrevKv: true})
	require.Equal(t, "4@5 a=1@2 a=2@3 was 1@2 -a@4 was 2@3 a=3@5", describe(c.recv()))
}

// All the watchers of a stream are sent an event, whether it is small enough to be copied or shared, and alone or among
// others.
func TestWatchFanOut(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	c := m.open()
	const watchers = 197
	for range watchers {
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("z")})
	}
	large, small := strings.Repeat("large", 1000), "small"
	for _, values := range []map[string]string{
		{"a": small}, {"a": large}, {"a": small, "b": small}, {"a": small, "b": large, "c": small, "d": small, "e": large},
	} {
		keys := []string{"a", "b", "c", "d", "e"}[:len(values)]
		rev := m.apply(putAll(values, keys...))
		seen := map[int64]bool{}
		for range watchers {
			got := c.recv()
			require.False(t, seen[got.WatchId])
			seen[got.WatchId] = true
			require.Equal(t, rev, got.Header.Revision)
			require.Len(t, got.Events, len(keys))
			for i, e := range got.Events {
				require.Equal(t, values[keys[i]], string(e.Kv.Value))
			}
		}
	}
}

// A response is split exactly where etcd splits it: fragmentsOf follows the rule on the decoded message.
func TestWatchFragments(t *testing.T) {
	m := startWatch(t, WatchConfig{RequestBytes: 1})
	limit := 1 + 512<<10
	c := m.open()
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("z"), WatchId: 300, Fragment: true})
	whole := m.open()
	whole.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("z"), WatchId: 300})
	for _, sizes := range [][]int{
		{10}, {600_000}, {100_000, 100_000}, {300_000, 300_000, 300_000}, {600_000, 10, 10, 700_000, 10},
		{200_000, 200_000, 124_288 - 150}, {250_000, 274_000, 250_000, 274_288 - 60},
	} {
		values, keys := map[string]string{}, []string{}
		for i, n := range sizes {
			keys = append(keys, string(rune('a'+i)))
			values[keys[i]] = strings.Repeat("v", n)
		}
		m.apply(putAll(values, keys...))
		response := whole.recv()
		require.Len(t, response.Events, len(sizes))
		for _, want := range fragmentsOf(response, limit) {
			got := c.recv()
			require.True(t, proto.Equal(want, got), "sizes %v: want %d events, fragment %v; got %d, %v",
				sizes, len(want.Events), want.Fragment, len(got.Events), got.Fragment)
		}
	}
}

func fragmentsOf(r *pb.WatchResponse, limit int) (fragments []*pb.WatchResponse) {
	if proto.Size(r) < limit || len(r.Events) < 2 {
		return []*pb.WatchResponse{r}
	}
	for rest := r.Events; len(rest) > 0; {
		f := &pb.WatchResponse{Header: r.Header, WatchId: r.WatchId, Fragment: true, Events: rest[:1]}
		for len(f.Events) < len(rest) {
			f.Events = rest[:len(f.Events)+1]
			if proto.Size(f) >= limit {
				f.Events = rest[:len(f.Events)-1]
				break
			}
		}
		rest = rest[len(f.Events):]
		f.Fragment = len(rest) > 0
		fragments = append(fragments, f)
	}
	return fragments
}

func TestWatchProgressRequest(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	m.put("b", "")
	c := m.open()
	c.progress()
	c.create(&pb.WatchCreateRequest{Key: []byte("a")})
	m.put("b", "")
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 2})
	c.progress()
	got := c.recv()
	require.True(t, proto.Equal(got, &pb.WatchResponse{
		Header: &pb.ResponseHeader{ClusterId: 11, MemberId: 22, RaftTerm: 33, Revision: 3}, WatchId: -1,
	}), "%v", got)
}

// Idle watchers that asked for it are told how far they are, about once an interval; others are not.
func TestWatchProgressNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startWatch(t, WatchConfig{ProgressInterval: 5 * time.Second})
		c := m.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a")})
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 5, ProgressNotify: true})
		begin := time.Now()
		m.put("b", "")
		require.Equal(t, "5@2", describe(c.recv()))
		interval := time.Since(begin)
		require.GreaterOrEqual(t, interval, 5*time.Second)
		require.Less(t, interval, 5500*time.Millisecond)
		m.put("a", "1")
		c.recv()
		c.recv()
		require.Equal(t, "5@3", describe(c.recv()))
		require.Equal(t, 3*interval, time.Since(begin), "the report after the event is left out")
		c.cancel()
		synctest.Wait()
	})
}

// Progress intervals have etcd's default and minimum.
func TestWatchConfigDefaults(t *testing.T) {
	require.Equal(t, 10*time.Minute, NewWatch(nil, WatchConfig{}).config.ProgressInterval)
	require.Equal(t, 100*time.Millisecond, NewWatch(nil, WatchConfig{ProgressInterval: 1}).config.ProgressInterval)
	require.Equal(t, DefaultRequestBytes, NewWatch(nil, WatchConfig{}).config.RequestBytes)
}

// A client that asks for a leader is refused without one, and told when it is gone for long; others stay.
func TestWatchRequiresLeader(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	c := m.open(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	c.create(&pb.WatchCreateRequest{Key: []byte("a")})
	other := m.open()
	other.create(&pb.WatchCreateRequest{Key: []byte("a")})
	m.leader = false
	close(m.leaderless)
	_, err := c.stream.Recv()
	require.Equal(t, rpctypes.ErrNoLeader, rpctypes.Error(err))
	_, err = m.open(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader).stream.Recv()
	require.Equal(t, rpctypes.ErrNoLeader, rpctypes.Error(err))
	m.put("a", "1")
	require.Equal(t, "0@2 a=1@2", describe(other.recv()))
}

func TestWatchEnds(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	c := m.open()
	c.create(&pb.WatchCreateRequest{Key: []byte("a")})
	require.NoError(t, c.stream.CloseSend())
	m.put("a", "1")
	require.Equal(t, "0@2 a=1@2", describe(c.recv()), "who has no more to say still listens")

	gone := m.open()
	gone.create(&pb.WatchCreateRequest{Key: []byte("a")})
	gone.cancel()
	_, err := gone.stream.Recv()
	require.Equal(t, codes.Canceled, status.Code(err))

	close(m.stopping)
	_, err = c.stream.Recv()
	require.Equal(t, rpctypes.ErrStopped, rpctypes.Error(err))
}

// The reason of a stream's end is the context's if that has ended, and the receiver's otherwise.
func TestWatchEndReasons(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	failed := status.Error(codes.ResourceExhausted, "message too large")
	require.Equal(t, failed, endOf(ctx, failed))
	cancel()
	require.Equal(t, rpctypes.ErrGRPCWatchCanceled, endOf(ctx, failed))
	late, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	require.Equal(t, rpctypes.ErrGRPCDeadlineExceeded, endOf(late, nil))
}

// A client that does not read costs the others nothing and loses nothing.
func TestWatchSlowConsumer(t *testing.T) {
	m := startWatch(t, WatchConfig{})
	slow, quick := m.open(), m.open()
	slow.create(&pb.WatchCreateRequest{Key: []byte("a")})
	quick.create(&pb.WatchCreateRequest{Key: []byte("a")})
	const n = 6000
	value := strings.Repeat("v", 1000)
	var last int64
	for range n {
		last = m.put("a", value)
	}
	check := func(c *call) {
		next := int64(2)
		for next <= last {
			for _, e := range c.recv().Events {
				require.Equal(t, next, e.Kv.ModRevision)
				next++
			}
		}
	}
	check(quick)
	check(slow)
}
