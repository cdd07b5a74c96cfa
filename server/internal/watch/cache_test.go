package watch

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// An encoded event is byte for byte what protobuf makes of a response that has only this event.
func TestEncodeEvent(t *testing.T) {
	number := rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 300))
	keyValues := rapid.Custom(func(t *rapid.T) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{
			Key:            rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "key"),
			Value:          rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value"),
			CreateRevision: number.Draw(t, "create"),
			ModRevision:    number.Draw(t, "mod"),
			Version:        number.Draw(t, "version"),
			Lease:          number.Draw(t, "lease"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		event := &mvccpb.Event{Kv: keyValues.Draw(t, "kv")}
		deleted := rapid.Bool().Draw(t, "deleted")
		if deleted {
			event.Type = mvccpb.Event_DELETE
		}
		var prev *keyValue
		if rapid.Bool().Draw(t, "has prev") {
			event.PrevKv = keyValues.Draw(t, "prev")
			kv := fromMessage(event.PrevKv)
			prev = &kv
		}
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.WatchResponse{Events: []*mvccpb.Event{event}})
		require.NoError(t, err)
		got := encodeEvent(fromMessage(event.Kv), deleted, prev)
		require.Equal(t, want, got)
		require.Equal(t, len(got), cap(got), "encoded in one allocation")
	})
}

// All who ask for an event in either form are given the same bytes.
func TestPayloadIsEncodedOnce(t *testing.T) {
	c := newCache(defaultLimits())
	e := state.Event{
		Version: &state.Version{Key: "k", Value: []byte("new"), Create: 2, Mod: 5, Count: 2},
		Prev:    &state.Version{Key: "k", Value: []byte("old"), Create: 2, Mod: 2, Count: 1},
	}
	p := c.intern(e)
	again := c.intern(e)
	require.Same(t, p, again)
	plain, full := p.encoded(false), p.encoded(true)
	require.Same(t, &plain[0], &again.encoded(false)[0])
	require.Same(t, &full[0], &again.encoded(true)[0])
	require.NotContains(t, string(plain), "old")
	require.Contains(t, string(full), "old")

	// Without a previous version there is only one form.
	p = c.intern(state.Event{Version: &state.Version{Key: "k", Mod: 6, Deleted: true}, Prev: &state.Version{Deleted: true}})
	require.Same(t, &p.encoded(false)[0], &p.encoded(true)[0])
}

// The cache keeps the newest events within its bounds, and at least one.
func TestCacheBounds(t *testing.T) {
	limits := defaultLimits()
	limits.cacheBytes, limits.cacheEvents = 3*payloadOverheadBytes+100, 4
	c := newCache(limits)
	var revisions []state.Revision
	add := func(value string) {
		rev := state.Revision{Main: int64(len(revisions) + 1)}
		require.NotNil(t, c.intern(state.Event{Version: &state.Version{Key: "k", Value: []byte(value), Mod: rev.Main}}))
		revisions = append(revisions, rev)
	}
	kept := func() (n int) {
		bytes := 0
		for i, rev := range revisions {
			if p := c.find(rev); p != nil {
				n++
				bytes += p.cached()
			} else {
				require.Zero(t, n, "event %d went before an older one", i)
			}
		}
		require.Equal(t, bytes, c.bytes)
		return n
	}
	for range 200 {
		add("")
	}
	require.Equal(t, 3, kept())
	add(string(make([]byte, 10_000)))
	require.Equal(t, 1, kept())
	add("")
	require.Equal(t, 1, kept())
	c.bytesMax = 1 << 20
	for range 200 {
		add("")
	}
	require.Equal(t, 4, kept())

	// Who reads the past has the event, but does not displace what is newer.
	old := c.intern(state.Event{Version: &state.Version{Key: "k", Mod: 1}})
	require.Equal(t, int64(1), old.rev())
	require.Nil(t, c.find(state.Revision{Main: 1}))
	require.Equal(t, 4, kept())
}

// Events from the archive bring the version before with them, as long as it has not been compacted.
func TestPreviousVersionFromTheArchive(t *testing.T) {
	w := newWorld(1000, smallLimits())
	w.apply(put("a", "1"), put("a", "2"), put("a", "3"), del("a", ""), put("a", "5"))
	for range 600 {
		w.apply(put("b", "filler"))
	}
	w.compact(4)
	w.checkpoint(0)
	require.Greater(t, w.machine.History().First(), int64(6))
	s := w.hub.NewStream()
	defer s.Close()
	_, _, err := s.Create(Request{Range: Range{Start: "a"}, Start: 4, PrevKV: true})
	require.NoError(t, err)
	var sink record
	require.NoError(t, settle(s, &sink))
	var got []string
	for _, r := range sink.responses {
		for _, e := range r.events {
			got = append(got, string(e.Kv.Value)+" after "+string(e.PrevKv.GetValue()))
		}
	}
	require.Equal(t, []string{"3 after ", " after 3", "5 after "}, got, "revision 3 is compacted")

	_, _, err = s.Create(Request{Range: Range{Start: "a"}, Start: 4, PrevKV: true})
	require.NoError(t, err)
	w.archive.err = errBroken
	require.ErrorIs(t, settle(s, &sink), errBroken)
}
