package interop_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// flush compares everything that is not an answer: it writes and then deletes
// every key of the universe, waits until each watcher has seen its part of
// that, and compares all events since the last flush. Then it reads the whole
// state.
func (d *difference) flush(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), requestTimeout)
	defer cancel()
	d.compareState(t, ctx)

	put := &pb.TxnRequest{}
	for i := range universeKeys {
		put.Success = append(put.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte(universeKey(i)), Value: []byte("flush")}}})
	}
	puts := d.both(t, ctx, put).(*pb.TxnResponse).Header.Revision
	deletion := &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}
	deletes := d.both(t, ctx, deletion).(*pb.DeleteRangeResponse).Header.Revision
	d.gen.revision = deletes

	for _, id := range slices.Sorted(maps.Keys(d.watchers)) {
		last := deletes
		if slices.Contains(d.watchers[id].Filters, pb.WatchCreateRequest_NODELETE) {
			last = puts
		}
		var events [2][]*mvccpb.Event
		for i, s := range d.sides {
			require.NoError(t, s.watch.reached(ctx, id, last), "%s: watcher %v", s.cluster.Kind, d.watchers[id])
			events[i] = s.watch.takeEvents(id)
		}
		d.forgetCompacted(events[0], events[1])
		requireSameEvents(t, d.watchers[id], events[0], events[1])
		d.events += len(events[0])
	}
}

// both sends a request that must succeed and be answered alike.
func (d *difference) both(t *testing.T, ctx context.Context, req proto.Message) proto.Message {
	t.Helper()
	var got [2]answer
	for i, s := range d.sides {
		got[i] = newAnswer(s.do(ctx, req, d.watchers))
		require.NotNil(t, got[i].message, "%s: %v", s.cluster.Kind, got[i])
	}
	if diff := sameAnswer(req, got[0], got[1]); diff != "" {
		require.Fail(t, "the servers differ", "%s", diff)
	}
	return got[0].message
}

// compareState reads all keys, all leases and what is attached to each.
func (d *difference) compareState(t *testing.T, ctx context.Context) {
	t.Helper()
	d.both(t, ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	leases := d.both(t, ctx, &pb.LeaseLeasesRequest{}).(*pb.LeaseLeasesResponse)
	for _, l := range leases.Leases {
		d.both(t, ctx, &pb.LeaseTimeToLiveRequest{ID: l.ID, Keys: true})
	}
}

// forgetCompacted takes away previous values that the subject knows and the
// reference does not, of events at or before the last compaction: what was
// before them is compacted, so they may be given, but need not.
func (d *difference) forgetCompacted(reference, subject []*mvccpb.Event) {
	for i := range min(len(reference), len(subject)) {
		if reference[i].PrevKv == nil && reference[i].Kv.ModRevision <= d.gen.compact {
			subject[i].PrevKv = nil
		}
	}
}

func requireSameEvents(t *testing.T, watcher *pb.WatchCreateRequest, reference, subject []*mvccpb.Event) {
	t.Helper()
	for i := range max(len(reference), len(subject)) {
		if i < len(reference) && i < len(subject) && proto.Equal(reference[i], subject[i]) {
			continue
		}
		at := func(events []*mvccpb.Event) string {
			if i < len(events) {
				return fmt.Sprint(events[i])
			}
			return "nothing"
		}
		require.Fail(t, "the watches differ", "watcher %v, event %d of %d and %d\nreference: %s\nsubject: %s",
			watcher, i, len(reference), len(subject), at(reference), at(subject))
	}
}

// compareCancelled compares what a watcher had seen when it was cancelled: how
// far that is depends on timing, but what was sent must be the same. Not so the
// previous values: etcd forgets at once that a cancelled watcher wants them, and
// sends its last events without.
func (d *difference) compareCancelled(t *testing.T, id int64) {
	t.Helper()
	a, b := d.sides[0].watch.takeEvents(id), d.sides[1].watch.takeEvents(id)
	n := min(len(a), len(b))
	for _, events := range [][]*mvccpb.Event{a, b} {
		for _, ev := range events {
			ev.PrevKv = nil
		}
	}
	requireSameEvents(t, &pb.WatchCreateRequest{WatchId: id}, a[:n], b[:n])
	d.events += n
}

// requireOverrun waits for the end of a watcher that asked for what is
// compacted, and compares how both sides say it.
func (d *difference) requireOverrun(t *testing.T, id int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), requestTimeout)
	defer cancel()
	var got [2]answer
	for i, s := range d.sides {
		resp, err := s.watch.takeOverrun(ctx, id)
		require.NoError(t, err, s.cluster.Kind)
		require.Empty(t, s.watch.takeEvents(id), "events before the cancellation")
		got[i] = newAnswer(resp, nil)
	}
	if diff := sameAnswer(&pb.WatchCreateRequest{WatchId: id}, got[0], got[1]); diff != "" {
		require.Fail(t, "the servers differ", "%s", diff)
	}
	d.canceled++
}
