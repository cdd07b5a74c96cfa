package interop_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

var (
	diffRequests = flag.Int("diff.requests", 3000, "`requests` of the differential test")
	diffSeed     = flag.Uint64("diff.seed", 1, "`seed` of the differential test; 0 for one of the clock")
)

const (
	flushEvery     = 200 // requests between two comparisons of the whole state and of all watchers
	requestTimeout = 10 * time.Second
	shownHistory   = 5 // requests before the failing one that a report shows
)

// TestDifferential puts the same generated requests to a fresh etcd and a fresh
// Latchkey, one after the other. Every answer must be equal: contents,
// revisions, errors. From time to time the whole state and the events of all
// watchers are compared as well.
func TestDifferential(t *testing.T) {
	seed := *diffSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("go test -run %s -diff.seed %d -diff.requests %d", t.Name(), seed, *diffRequests)
	reference, subject := startBoth(t, 1)
	d := newDifference(t, seed, reference, subject)
	for n := range *diffRequests {
		if n%flushEvery == flushEvery-1 {
			d.flush(t)
		}
		d.step(t, d.admit(d.gen.request()))
	}
	d.flush(t)
	d.requireEnough(t)
}

// admit keeps the number of watchers in bounds, and turns some creations into
// collisions with a live watcher.
func (d *difference) admit(req proto.Message) proto.Message {
	create, ok := req.(*pb.WatchCreateRequest)
	if !ok || len(d.watchers) == 0 {
		return req
	}
	live := slices.Sorted(maps.Keys(d.watchers))
	if len(live) >= maxWatchers {
		return &pb.WatchCancelRequest{WatchId: live[d.gen.rng.IntN(len(live))]}
	}
	if d.gen.percent(invalidPercent) {
		create.WatchId = live[d.gen.rng.IntN(len(live))]
	}
	return req
}

// difference is one run of the differential test.
type difference struct {
	gen       *generator
	sides     [2]*diffSide                     // the reference, the subject
	watchers  map[int64]*pb.WatchCreateRequest // the live ones
	history   []proto.Message
	succeeded map[string]int // answers without error by kind of request
	failed    map[string]int // by error text
	events    int
	canceled  int
}

// diffSide is a side with its streams.
type diffSide struct {
	*side
	keepAlive pb.Lease_LeaseKeepAliveClient
	watch     *watchStream
}

func newDifference(t *testing.T, seed uint64, sides ...*side) *difference {
	ctx := t.Context()
	d := &difference{
		gen:       newGenerator(seed),
		watchers:  make(map[int64]*pb.WatchCreateRequest),
		succeeded: make(map[string]int),
		failed:    make(map[string]int),
	}
	for i, s := range sides {
		ka, err := s.lease.LeaseKeepAlive(ctx)
		require.NoError(t, err)
		d.sides[i] = &diffSide{side: s, keepAlive: ka, watch: openWatchStream(t, ctx, s.watch)}
	}
	return d
}

// step sends one request to both sides and compares.
func (d *difference) step(t *testing.T, req proto.Message) {
	t.Helper()
	if _, compaction := req.(*pb.CompactionRequest); compaction {
		// A compaction may overtake a watcher that is still reading the past,
		// on one side and not on the other: let them all arrive first.
		d.flush(t)
	}
	d.history = append(d.history, req)
	if len(d.history) > shownHistory {
		d.history = d.history[1:]
	}
	var got [2]answer
	for i, s := range d.sides {
		ctx, cancel := context.WithTimeout(t.Context(), requestTimeout)
		got[i] = newAnswer(s.do(ctx, req, d.watchers))
		cancel()
	}
	if diff := sameAnswer(req, got[0], got[1]); diff != "" {
		for _, r := range d.history[:len(d.history)-1] {
			t.Logf("before: %T\n%s", r, indent(prototext.Format(r)))
		}
		require.Fail(t, "the servers differ", "%s", diff)
	}
	d.learn(t, req, got[0])
}

// learn follows what the next requests depend on.
func (d *difference) learn(t *testing.T, req proto.Message, a answer) {
	t.Helper()
	if a.message == nil {
		d.failed[a.text]++
		return
	}
	d.succeeded[fmt.Sprintf("%T", req)]++
	switch req := req.(type) {
	case *pb.CompactionRequest:
		d.gen.compact = req.Revision
	case *pb.WatchCreateRequest:
		switch resp := a.message.(*pb.WatchResponse); {
		case resp.Canceled:
			d.failed[resp.CancelReason]++
		case req.StartRevision > 0 && req.StartRevision < d.gen.compact:
			d.requireOverrun(t, req.WatchId)
		default:
			d.watchers[req.WatchId] = req
		}
	case *pb.WatchCancelRequest:
		if d.watchers[req.WatchId] != nil {
			delete(d.watchers, req.WatchId)
			d.compareCancelled(t, req.WatchId)
		}
	}
	if h, ok := a.message.(headed); ok {
		d.gen.revision = max(d.gen.revision, h.GetHeader().GetRevision())
	}
}

// do sends the request and returns the answer. Cancelling an unknown watcher
// has none: the request stands in for it.
func (s *diffSide) do(ctx context.Context, req proto.Message, watchers map[int64]*pb.WatchCreateRequest) (proto.Message, error) {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return s.kv.Range(ctx, r)
	case streamRange:
		return collectRange(ctx, s.kv, r.RangeRequest)
	case *pb.PutRequest:
		return s.kv.Put(ctx, r)
	case *pb.DeleteRangeRequest:
		return s.kv.DeleteRange(ctx, r)
	case *pb.TxnRequest:
		return s.kv.Txn(ctx, r)
	case *pb.CompactionRequest:
		return s.kv.Compact(ctx, r)
	case *pb.LeaseGrantRequest:
		return s.lease.LeaseGrant(ctx, r)
	case *pb.LeaseRevokeRequest:
		return s.lease.LeaseRevoke(ctx, r)
	case *pb.LeaseTimeToLiveRequest:
		return s.lease.LeaseTimeToLive(ctx, r)
	case *pb.LeaseLeasesRequest:
		return s.lease.LeaseLeases(ctx, r)
	case *pb.LeaseKeepAliveRequest:
		if err := s.keepAlive.Send(r); err != nil {
			return nil, err
		}
		return s.keepAlive.Recv()
	case *pb.WatchCreateRequest:
		return s.watch.create(ctx, r)
	case *pb.WatchCancelRequest:
		if watchers[r.WatchId] == nil {
			return r, nil
		}
		return s.watch.cancel(ctx, r)
	}
	return nil, fmt.Errorf("no such request: %T", req)
}

// streamRange is a range that is to be read as a stream.
type streamRange struct{ *pb.RangeRequest }

// collectRange puts the chunks of a stream together: the result is the answer
// that Range would have given.
func collectRange(ctx context.Context, client pb.KVClient, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	stream, err := client.RangeStream(ctx, r)
	if err != nil {
		return nil, err
	}
	out := &pb.RangeResponse{}
	for chunk := range receive(stream.Recv, &err) {
		proto.Merge(out, chunk.RangeResponse)
	}
	return out, err
}

// requireEnough fails a run that was too quiet to prove anything.
func (d *difference) requireEnough(t *testing.T) {
	t.Helper()
	t.Logf("succeeded: %v", d.succeeded)
	t.Logf("failed: %v", d.failed)
	t.Logf("revision %d, compacted to %d, %d events, %d watchers cancelled by compaction",
		d.gen.revision, d.gen.compact, d.events, d.canceled)
	require.GreaterOrEqual(t, len(d.succeeded), 13, "kinds of request that succeeded")
	if *diffRequests >= 1000 {
		require.GreaterOrEqual(t, len(d.failed), 6, "kinds of error")
		require.Positive(t, d.canceled, "watchers cancelled by compaction")
		require.Greater(t, d.events, *diffRequests/2, "events")
	}
}
