package interop_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// reopenPercent is how often a user who has a new token opens a new stream of
// watchers with it; else the one of the old token goes on.
const reopenPercent = 40

// stream gives the user's streams.
func (d *difference) stream(t *testing.T, user string) *watchPair {
	t.Helper()
	p := d.streams[user]
	if p != nil && p.token != d.tokens[user] && d.gen.percent(reopenPercent) {
		d.closeStream(t, p)
		p = nil
	}
	if p == nil {
		p = &watchPair{user: user, token: d.tokens[user], overrun: make(map[int64]bool)}
		for i, s := range d.sides {
			p.sides[i] = openWatchStream(t, d.as(t.Context(), user, i), s.watch)
		}
		d.streams[user] = p
	}
	return p
}

func (d *difference) closeStream(t *testing.T, p *watchPair) {
	t.Helper()
	for id, w := range d.watchers {
		if w.pair == p {
			d.forget(t, id)
		}
	}
	for _, s := range p.sides {
		s.stop()
	}
	delete(d.streams, p.user)
}

// stepWatch is a step about watchers.
func (d *difference) stepWatch(t *testing.T, user string, req proto.Message) answer {
	t.Helper()
	switch r := req.(type) {
	case *pb.WatchCreateRequest:
		if w := d.watchers[r.WatchId]; w != nil {
			user = w.pair.user // the id is taken on his stream alone
			if d.authChanged { // and on the subject perhaps not any more
				d.flush(t)
			}
		}
		return d.create(t, user, r)
	case *pb.WatchCancelRequest:
		if d.watchers[r.WatchId] != nil {
			return d.cancel(t, r.WatchId)
		}
		d.cancelUnknown(t, d.stream(t, user), r)
	case *pb.WatchProgressRequest:
		if p := d.stream(t, user); p.behind {
			// Whether etcd answers for a stream that reads the past is a matter of
			// time; ours does as soon as it has read it.
			d.flush(t)
		} else {
			d.compareProgress(t, p)
		}
	}
	return answer{}
}

func (d *difference) create(t *testing.T, user string, r *pb.WatchCreateRequest) answer {
	t.Helper()
	p := d.stream(t, user)
	a := d.compare(t, user, r, func(ctx context.Context, i int) (proto.Message, error) { return p.sides[i].create(ctx, r) })
	require.NotNil(t, a.message)
	switch resp := a.message.(*pb.WatchResponse); {
	case resp.Canceled:
		d.failed["watch: "+resp.CancelReason]++
	case r.StartRevision > 0 && r.StartRevision < d.gen.compact:
		d.requireOverrun(t, p, r.WatchId)
	default:
		d.watchers[r.WatchId] = &liveWatcher{WatchCreateRequest: r, pair: p}
		p.behind = p.behind || r.StartRevision > 0
	}
	return a
}

// cancel cancels a watcher. The subject may have ended it itself.
func (d *difference) cancel(t *testing.T, id int64) answer {
	t.Helper()
	req := &pb.WatchCancelRequest{WatchId: id}
	ctx, stop := context.WithTimeout(t.Context(), requestTimeout)
	defer stop()
	var got [2]answer
	for i, s := range d.watchers[id].pair.sides {
		got[i] = newAnswer(s.cancel(ctx, req))
		require.NotNil(t, got[i].message, "%v", got[i])
	}
	if resp := got[1].message.(*pb.WatchResponse); resp.CancelReason != "" {
		d.requireRightsTaken(t, id, resp)
	} else if diff := d.masks.same(req, got[0], got[1]); diff != "" {
		require.Fail(t, "the servers differ", "%s", diff)
	}
	d.succeeded["*etcdserverpb.WatchCancelRequest"]++
	d.forget(t, id)
	return got[0]
}

// cancelUnknown cancels a watcher that there is not, which has no answer. Only
// one that was ended by a compaction is still there for etcd.
func (d *difference) cancelUnknown(t *testing.T, p *watchPair, r *pb.WatchCancelRequest) {
	t.Helper()
	require.NoError(t, p.sides[1].send(r))
	if !p.overrun[r.WatchId] {
		require.NoError(t, p.sides[0].send(r))
		return
	}
	ctx, stop := context.WithTimeout(t.Context(), requestTimeout)
	defer stop()
	delete(p.overrun, r.WatchId)
	_, err := p.sides[0].cancel(ctx, r)
	require.NoError(t, err)
	d.masks[overrunCancel]++
}

// requireRightsTaken finds out that the subject ended a watcher rightly: the
// reference refuses a new one of that range with the reason that the subject
// gave, or rights have changed meanwhile once more.
func (d *difference) requireRightsTaken(t *testing.T, id int64, said *pb.WatchResponse) {
	t.Helper()
	w := d.watchers[id]
	require.Contains(t, []string{
		"rpc error: code = PermissionDenied desc = etcdserver: permission denied",
		"rpc error: code = InvalidArgument desc = etcdserver: user name is empty",
		"rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
		"etcdserver: permission denied", "etcdserver: user name is empty", "etcdserver: invalid auth token",
	}, said.CancelReason)
	require.True(t, d.authChanged, "watcher %v of %q: ended without a change of rights: %v", w, w.pair.user, said)
	d.masks[rightsTaken]++
	d.ended++
}

// forget compares what a watcher had seen that was cancelled or whose stream
// was closed: how far that is depends on timing, but what was sent must be the
// same.
func (d *difference) forget(t *testing.T, id int64) {
	t.Helper()
	w := d.watchers[id]
	delete(d.watchers, id)
	a, b := w.pair.sides[0].takeEvents(id), w.pair.sides[1].takeEvents(id)
	n := min(len(a), len(b))
	d.masks.count(cancelledLast, len(a) != len(b))
	for i := range n {
		d.masks.count(cancelledLast, !proto.Equal(a[i].PrevKv, b[i].PrevKv))
		a[i].PrevKv, b[i].PrevKv = nil, nil
	}
	requireSameEvents(t, w.WatchCreateRequest, a[:n], b[:n])
	d.events += n
}

// compareProgress asks a stream how far it is, none of whose watchers reads
// the past or waits for the future. It is answered if there is a watcher.
func (d *difference) compareProgress(t *testing.T, p *watchPair) {
	t.Helper()
	watchers := 0
	for _, w := range d.watchers {
		if w.pair == p {
			watchers++
		}
	}
	req := &pb.WatchProgressRequest{}
	if watchers == 0 {
		for _, s := range p.sides { // An answer would show up at the end of the round.
			require.NoError(t, s.send(req))
		}
		return
	}
	if d.authChanged { // its watchers may have ended on the subject
		return
	}
	if len(p.overrun) > 0 {
		ctx, stop := context.WithTimeout(t.Context(), requestTimeout)
		defer stop()
		require.NoError(t, p.sides[0].send(req))
		_, err := p.sides[1].askProgress(ctx)
		require.NoError(t, err)
		d.masks[overrunProgress]++
		return
	}
	a := d.compare(t, p.user, req, func(ctx context.Context, i int) (proto.Message, error) { return p.sides[i].askProgress(ctx) })
	require.NotNil(t, a.message, "%v", a)
	d.progress++
}

// requireOverrun waits for the end of a watcher that asked for what is
// compacted, and compares how both sides say it.
func (d *difference) requireOverrun(t *testing.T, p *watchPair, id int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), requestTimeout)
	defer cancel()
	var got [2]answer
	for i, s := range p.sides {
		resp, err := s.takeOverrun(ctx, id)
		require.NoError(t, err, "side %d", i)
		require.Empty(t, s.takeEvents(id), "events before the cancellation")
		got[i] = newAnswer(resp, nil)
	}
	if diff := d.masks.same(&pb.WatchCreateRequest{WatchId: id}, got[0], got[1]); diff != "" {
		require.Fail(t, "the servers differ", "%s", diff)
	}
	p.overrun[id] = true
	d.overrun++
	if d.gen.percent(40) {
		d.cancelUnknown(t, p, &pb.WatchCancelRequest{WatchId: id})
	}
}

// forgetCompacted takes away previous values that the subject knows and the
// reference does not, of events at or before the last compaction.
func (d *difference) forgetCompacted(reference, subject []*mvccpb.Event) {
	for i := range min(len(reference), len(subject)) {
		if reference[i].PrevKv == nil && reference[i].Kv.ModRevision <= d.gen.compact {
			d.masks.count(compactedPrev, subject[i].PrevKv != nil)
			subject[i].PrevKv = nil
		}
	}
}
