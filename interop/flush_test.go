package interop_test

import (
	"bytes"
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

const (
	largeEvery = 12       // flushes between two whose values are so large that events come in fragments
	largeValue = 60 << 10 // bytes; all keys fit into a request, but not a change of all of them into a response
	userlessIn = 40       // rounds in 100 in which nobody needs to be a user
)

// flush compares everything that is not an answer: it writes and then deletes
// every key of the universe, waits until each watcher has seen its part of
// that, and compares all events since the last flush. Before, it reads the
// whole state, as root.
func (d *difference) flush(t *testing.T) {
	t.Helper()
	d.flushes++
	for _, req := range rescue() {
		d.step(t, "root", req)
	}
	for i, user := range someUsers { // so that most have rights, and tokens
		d.step(t, "root", &pb.AuthUserGrantRoleRequest{User: user, Role: someRoles[i]})
		for _, password := range somePasswords {
			d.step(t, "", &pb.AuthenticateRequest{Name: user, Password: password})
		}
	}
	d.compareState(t)
	d.compareEvents(t, d.putAll(t, []byte("flush")), pb.WatchCreateRequest_NOPUT)
	d.compareRare(t)
	if d.flushes%largeEvery == 0 {
		d.compareFragments(t)
	}
	deletion := &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}
	d.must(t, deletion)
	d.compareEvents(t, d.gen.revision, pb.WatchCreateRequest_NODELETE)
	for _, id := range slices.Sorted(maps.Keys(d.watchers)) {
		if !d.watchers[id].heard { // it began at the deletions and wants none, or has ended: nothing tells
			d.cancel(t, id)
			continue
		}
		d.watchers[id].heard = false
	}
	d.authChanged = false
	for _, user := range slices.Sorted(maps.Keys(d.streams)) {
		p := d.streams[user]
		p.behind = false
		d.compareProgress(t, p)
		for i, s := range p.sides {
			s.mu.Lock()
			require.Empty(t, s.progress, "side %d", i)
			s.mu.Unlock()
		}
	}
	if d.gen.percent(userlessIn) {
		d.must(t, &pb.AuthDisableRequest{})
	}
}

// compareRare asks, while there are keys, what the generator does too seldom:
// for many equal keys in order, for all that is left of history, and for ranges
// that end before they begin.
func (d *difference) compareRare(t *testing.T) {
	t.Helper()
	d.must(t, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Limit: 9 * d.gen.rng.Int64N(2),
		SortTarget: one(d.gen, pb.RangeRequest_VERSION, pb.RangeRequest_CREATE), SortOrder: pb.RangeRequest_SortOrder(d.gen.rng.IntN(3))})
	if d.gen.compact > 0 && d.gen.percent(20) { // the first event's previous value is gone
		d.gen.watchers++
		d.create(t, "root", &pb.WatchCreateRequest{WatchId: d.gen.watchers, Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true, StartRevision: d.gen.compact})
	}
	for range 6 {
		r := &pb.RangeRequest{Key: []byte(universeKey(d.gen.rng.IntN(universeKeys))), RangeEnd: []byte(universeKey(d.gen.rng.IntN(universeKeys)))}
		if !inverted(r.Key, r.RangeEnd) {
			r.Key, r.RangeEnd = r.RangeEnd, r.Key
		}
		d.step(t, one(d.gen, someUsers[1:]...), r)
	}
}

// awaitClock asks for a lease until a second passes between the two servers'
// answers.
func (d *difference) awaitClock(t *testing.T) {
	t.Helper()
	d.step(t, "root", &pb.LeaseGrantRequest{ID: 100, TTL: longLease})
	for asked := 0; d.masks[remainingTime] == 0 && asked < 20000; asked++ {
		d.step(t, "root", &pb.LeaseTimeToLiveRequest{ID: 100})
	}
}

// must sends a request as root that must succeed and be answered alike.
func (d *difference) must(t *testing.T, req proto.Message) proto.Message {
	t.Helper()
	a := d.step(t, "root", req)
	require.NotNil(t, a.message, "%v", a)
	return a.message
}

// putAll writes all keys, and returns the revision.
func (d *difference) putAll(t *testing.T, value []byte) int64 {
	t.Helper()
	put := &pb.TxnRequest{}
	for i := range universeKeys {
		put.Success = append(put.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte(universeKey(i)), Value: value}}})
	}
	return d.must(t, put).(*pb.TxnResponse).Header.Revision
}

// compareState reads all keys, all leases and what is attached to each, and
// all users and roles.
func (d *difference) compareState(t *testing.T) {
	t.Helper()
	d.must(t, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	leases := d.must(t, &pb.LeaseLeasesRequest{}).(*pb.LeaseLeasesResponse)
	for _, l := range leases.Leases {
		d.must(t, &pb.LeaseTimeToLiveRequest{ID: l.ID, Keys: true})
	}
	users := d.must(t, &pb.AuthUserListRequest{}).(*pb.AuthUserListResponse)
	for _, name := range users.Users {
		d.must(t, &pb.AuthUserGetRequest{Name: name})
	}
	roles := d.must(t, &pb.AuthRoleListRequest{}).(*pb.AuthRoleListResponse)
	for _, name := range roles.Roles {
		if name != "root" {
			d.must(t, &pb.AuthRoleGetRequest{Role: name})
		}
	}
}

// compareEvents waits until all watchers but those that do not want it have
// seen the revision, and compares what they saw.
func (d *difference) compareEvents(t *testing.T, revision int64, unwanted pb.WatchCreateRequest_FilterType) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), requestTimeout)
	defer cancel()
	for _, id := range slices.Sorted(maps.Keys(d.watchers)) {
		w := d.watchers[id]
		if slices.Contains(w.Filters, unwanted) || w.StartRevision > revision {
			continue
		}
		why, err := w.pair.sides[1].reached(ctx, id, revision)
		require.NoError(t, err, "subject: watcher %v", w)
		if why != nil {
			d.cancel(t, id)
			continue
		}
		_, err = w.pair.sides[0].reached(ctx, id, revision)
		require.NoError(t, err, "reference: watcher %v", w)
		w.heard = true
		a, b := w.pair.sides[0].takeEvents(id), w.pair.sides[1].takeEvents(id)
		d.forgetCompacted(a, b)
		requireSameEvents(t, w.WatchCreateRequest, a, b)
		d.events += len(a)
	}
}

// compareFragments writes so much at once that events with their previous
// values do not fit into a response, and compares how they are divided.
func (d *difference) compareFragments(t *testing.T) {
	t.Helper()
	value := bytes.Repeat([]byte("x"), largeValue)
	for _, fragment := range []bool{true, false} {
		d.gen.watchers++
		d.create(t, "root", &pb.WatchCreateRequest{WatchId: d.gen.watchers, Key: []byte("\x00"), RangeEnd: []byte{0}, PrevKv: true, Fragment: fragment})
	}
	d.compareEvents(t, d.putAll(t, value), pb.WatchCreateRequest_NOPUT)
	for id, w := range d.watchers {
		for _, s := range w.pair.sides {
			s.takeLayout(id)
		}
	}
	d.compareEvents(t, d.putAll(t, value), pb.WatchCreateRequest_NOPUT)
	for id, w := range d.watchers {
		a, b := w.pair.sides[0].takeLayout(id), w.pair.sides[1].takeLayout(id)
		require.Equal(t, a, b, "responses of watcher %v", w)
		if len(a) > 1 {
			d.fragments++
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
