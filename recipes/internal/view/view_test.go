package view

import (
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is one answer of a script: of a read, or of a watch.
type answer struct {
	rev    client.Revision
	kvs    []client.KV
	events []client.Event
	err    error
}

// script is a source that says what it was told to say, in order.
type script struct {
	t       *testing.T
	reads   []answer
	watches [][]answer
}

func (s *script) Get(context.Context, string, ...client.GetOption) (*client.GetResult, error) {
	require.NotEmpty(s.t, s.reads, "one read too many")
	a := s.reads[0]
	s.reads = s.reads[1:]
	return &client.GetResult{Revision: a.rev, KVs: a.kvs}, a.err
}

func (s *script) WatchBatches(context.Context, string, ...client.WatchOption) iter.Seq2[client.WatchBatch, error] {
	require.NotEmpty(s.t, s.watches, "one watch too many")
	answers := s.watches[0]
	s.watches = s.watches[1:]
	return func(yield func(client.WatchBatch, error) bool) {
		for _, a := range answers {
			if !yield(client.WatchBatch{Revision: a.rev, Events: a.events}, a.err) || a.err != nil {
				return
			}
		}
	}
}

func kv(key, value string, rev client.Revision) client.KV {
	return client.KV{Key: "p/" + key, Value: []byte(value), ModRevision: rev}
}

func put(key, value string, rev client.Revision) client.Event {
	return client.Event{Type: client.EventPut, KV: kv(key, value, rev)}
}

func del(key string, rev client.Revision) client.Event {
	return client.Event{Type: client.EventDelete, KV: client.KV{Key: "p/" + key, ModRevision: rev}}
}

// shown is a view as text.
func shown(v View) (text string) {
	for _, kv := range v.KVs {
		text += kv.Key + "=" + string(kv.Value) + " "
	}
	for _, kv := range v.Gone {
		text += "-" + kv.Key + "=" + string(kv.Value) + " "
	}
	if v.Resynced {
		text += "resynced"
	}
	return text
}

// follow runs a script, in virtual time, and returns what was yielded and the last error.
func follow(t *testing.T, s *script, trouble func(error)) (views []string, revs []client.Revision, last error) {
	synctest.Test(t, func(t *testing.T) {
		s.t = t
		for v, err := range Follow(t.Context(), s, "p/", trouble) {
			if err != nil {
				last = err
				return
			}
			views, revs = append(views, shown(v)), append(revs, v.Revision)
		}
	})
	require.Empty(t, s.reads)
	require.Empty(t, s.watches)
	return views, revs, last
}

var errEnd = errors.New("the end of the script")

func TestFollow(t *testing.T) {
	views, revs, err := follow(t, &script{
		reads: []answer{{rev: 5, kvs: []client.KV{kv("b", "1", 3)}}},
		watches: [][]answer{{
			{rev: 5}, // established
			{rev: 6, events: []client.Event{put("a", "1", 6)}},
			{rev: 9, events: []client.Event{put("a", "2", 7), del("b", 8), put("c", "1", 9), put("d", "1", 9)}},
			{rev: 11, events: []client.Event{del("d", 10), put("d", "2", 11)}},
			{rev: 14, events: []client.Event{put("e", "1", 12), del("e", 13), put("a", "bye", 13), del("a", 14)}},
			{rev: 20}, // progress
			{err: errEnd},
		}},
	}, nil)
	require.Equal(t, errEnd, err)
	require.Equal(t, []string{
		"b=1 ", "a=1 b=1 ", "a=2 c=1 d=1 -b=1 ", "a=2 c=1 d=2 ", "c=1 d=2 -a=bye ",
	}, views)
	require.Equal(t, []client.Revision{5, 6, 9, 11, 14}, revs)
}

// History was compacted: the keys are read again, and the difference shows. An
// answer of a member that is behind does not count, nor do events that were seen.
func TestFollowNeverGoesBack(t *testing.T) {
	var troubles []error
	views, revs, err := follow(t, &script{
		reads: []answer{
			{err: client.ErrUnavailable},
			{rev: 5, kvs: []client.KV{kv("a", "1", 3), kv("b", "1", 4)}},
			{rev: 4, kvs: []client.KV{kv("a", "1", 3), kv("b", "1", 4)}},
			{err: client.ErrNoLeader},
			{rev: 9, kvs: []client.KV{kv("b", "2", 8), kv("c", "1", 7)}},
			{rev: 9, kvs: []client.KV{kv("b", "2", 8), kv("c", "1", 7)}},
		},
		watches: [][]answer{
			{{rev: 5}, {err: &client.CompactedError{Wanted: 6, Revision: 8}}},
			{{rev: 9, events: []client.Event{put("b", "1", 4), del("c", 6)}}, {err: client.ErrUnavailable}},
			{{rev: 10, events: []client.Event{del("b", 10)}}, {err: client.ErrPermissionDenied}},
		},
	}, func(err error) { troubles = append(troubles, err) })
	require.Equal(t, client.ErrPermissionDenied, err)
	require.Equal(t, []string{"a=1 b=1 ", "b=2 c=1 -a=1 resynced", "b=2 c=1 resynced", "c=1 -b=2 "}, views)
	require.Equal(t, []client.Revision{5, 9, 9, 10}, revs)
	require.Equal(t, []error{client.ErrUnavailable, client.ErrNoLeader, client.ErrUnavailable}, troubles)
}

func TestFollowEnds(t *testing.T) {
	_, _, err := follow(t, &script{reads: []answer{{err: client.ErrUnauthenticated}}}, nil)
	require.Equal(t, client.ErrUnauthenticated, err)

	why := errors.New("had enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	for _, err := range Follow(ctx, &script{t: t, reads: []answer{{rev: 5}}}, "p/", nil) {
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, why)
	}
}
