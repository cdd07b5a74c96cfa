// Package cachetest holds what package cache promises on top of any server that
// speaks the etcd v3 API. It is test support: the tests of Latchkey's server run
// it against their members, and the interop tests against etcd.
package cachetest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/cache"
)

// caseTimeout bounds one case, so that what would wait for ever fails.
const caseTimeout = 45 * time.Second

// Run runs all cases against the cluster at endpoints. Each case uses keys of
// its own, named after it, and leaves other keys alone; history is compacted on
// the way.
func Run(t *testing.T, endpoints []string) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h *harness)
	}{
		{"Read/Content", testContent},
		{"Read/Pages", testPages},
		{"Read/Indexes", testIndexes},
		{"Read/Filter", testFilter},
		{"Read/WholeTransactions", testWholeTransactions},
		{"Read/Rejected", testRejected},
		{"Rev/ReadYourWrites", testReadYourWrites},
		{"Rev/QuietPrefix", testQuietPrefix},
		{"Rev/WatchAtTheEnd", testWatchAtTheEnd},
		{"Events/OldAndNew", testEvents},
		{"Events/SlowLoop", testSlowLoop},
		{"Events/ManyLoops", testManyLoops},
		{"Faults/Compacted", testCompacted},
		{"Faults/CompactedWhileReading", testCompactedWhileReading},
		{"Faults/NetworkCut", testNetworkCut},
		{"Faults/AnswersLost", testAnswersLost},
		{"Faults/MemberBehind", testMemberBehind},
		{"Faults/Refused", testRefused},
		{"Property/EqualsTheStore", testEqualsTheStore},
		{"Ends/Closed", testClosed},
		{"Ends/Contexts", testContexts},
		{"Persistent/Life", testPersistentLife},
		{"Persistent/Heals", testPersistentHeals},
		{"Persistent/Taken", testPersistentTaken},
		{"Persistent/OfASession", testPersistentOfASession},
		{"Persistent/AnswersLost", testPersistentAnswersLost},
		{"Persistent/LateCreate", testPersistentLateCreate},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, newHarness(t, endpoints))
		})
	}
}

// harness is what a case works with.
type harness struct {
	t         *testing.T
	ctx       context.Context
	endpoints []string
	namespace string
	c         *client.Client // the case's first client
}

func newHarness(t *testing.T, endpoints []string) *harness {
	ctx, cancel := context.WithTimeout(t.Context(), caseTimeout)
	t.Cleanup(cancel)
	h := &harness{
		t:         t,
		ctx:       ctx,
		endpoints: endpoints,
		namespace: "cachetest/" + strings.TrimPrefix(t.Name(), "Test") + "/",
	}
	h.c = h.client(client.Config{})
	_, err := h.c.Delete(ctx, "", client.Prefix())
	require.NoError(t, err)
	return h
}

// client returns another client of the cluster, in the case's namespace.
func (h *harness) client(cfg client.Config) *client.Client {
	cfg.Endpoints = h.endpoints
	cfg.Namespace = h.namespace
	c, err := client.New(cfg)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { require.NoError(h.t, c.Close()) })
	return c
}

// raw writes bytes and returns the revision.
func (h *harness) raw(key, value string, opts ...client.PutOption) client.Revision {
	h.t.Helper()
	res, err := h.c.Put(h.ctx, key, []byte(value), opts...)
	require.NoError(h.t, err)
	return res.Revision
}

// put writes a number as a cache of numbers reads it.
func (h *harness) put(key string, n int) client.Revision {
	h.t.Helper()
	return h.raw(key, fmt.Sprint(n))
}

func (h *harness) delete(key string, opts ...client.DeleteOption) client.Revision {
	h.t.Helper()
	res, err := h.c.Delete(h.ctx, key, opts...)
	require.NoError(h.t, err)
	return res.Revision
}

func (h *harness) txn(ops ...client.Op) client.Revision {
	h.t.Helper()
	res, err := h.c.Txn().Then(ops...).Commit(h.ctx)
	require.NoError(h.t, err)
	return res.Revision
}

// numbers returns a cache of the numbers below "n/", read by the client.
func (h *harness) numbers(c *client.Client, opts ...cache.Option[int]) *cache.Cache[int] {
	h.t.Helper()
	return open(h, c, "n/", opts...)
}

// open returns a cache that has been read.
func open[T any](h *harness, c *client.Client, prefix string, opts ...cache.Option[T]) *cache.Cache[T] {
	h.t.Helper()
	ca, err := cache.New(c, prefix, opts...)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { require.NoError(h.t, ca.Close()) })
	require.NoError(h.t, ca.WaitSynced(h.ctx))
	return ca
}

// reached waits until the cache has a revision.
func (h *harness) reached(ca *cache.Cache[int], rev client.Revision) {
	h.t.Helper()
	require.NoError(h.t, ca.WaitRev(h.ctx, rev))
	require.GreaterOrEqual(h.t, ca.Rev(), rev)
}

// equalsStore compares a view with what the store has at the view's revision, as
// the client's own reads tell it. It is false when that revision is compacted.
func (h *harness) equalsStore(v *cache.View[int]) bool {
	h.t.Helper()
	want, _, err := client.NewTyped[int](h.c, "n/").List(h.ctx, client.AtRevision(v.Rev()))
	if err != nil {
		require.ErrorIs(h.t, err, client.ErrCompacted)
		return false
	}
	var got []client.Item[int]
	for _, item := range v.All() {
		got = append(got, item)
	}
	if len(want) > 0 || len(got) > 0 {
		require.Equal(h.t, want, got, "at revision %d", v.Rev())
	}
	require.Equal(h.t, len(want), v.Len())
	return true
}

// item is one item of a cache of numbers.
func item(key string, n int, rev, created client.Revision) client.Item[int] {
	return client.Item[int]{Key: key, Value: n, Revision: rev, CreateRevision: created}
}

// mirror is what somebody knows who listens to events only.
type mirror struct {
	h      *harness
	items  map[string]client.Item[int]
	rev    client.Revision
	events int
	resync int
}

func newMirror(h *harness) *mirror {
	return &mirror{h: h, items: make(map[string]client.Item[int])}
}

// take carries out an event, after it was checked against what is known.
func (m *mirror) take(ev cache.Event[int]) {
	m.h.t.Helper()
	require.GreaterOrEqual(m.h.t, ev.Rev, m.rev, "revisions grow")
	m.rev = ev.Rev
	if ev.Type == cache.Resynced {
		m.resync++
		last := ""
		for _, d := range ev.Diff {
			require.Less(m.h.t, last, d.Key, "in order, each key once")
			last = d.Key
			m.change(d)
		}
		return
	}
	m.events++
	m.change(ev)
}

func (m *mirror) change(ev cache.Event[int]) {
	m.h.t.Helper()
	old, had := m.items[ev.Key]
	require.Equal(m.h.t, had, ev.Type == cache.Modified || ev.Type == cache.Deleted, "%v %s", ev.Type, ev.Key)
	require.Equal(m.h.t, old, ev.Old)
	if ev.Type == cache.Deleted {
		delete(m.items, ev.Key)
		return
	}
	require.Equal(m.h.t, ev.Key, ev.New.Key)
	require.Greater(m.h.t, ev.New.Revision, old.Revision)
	m.items[ev.Key] = ev.New
}

// listen carries out events until one of the key named "end" comes.
func (m *mirror) listen(ca *cache.Cache[int]) error {
	for ev, err := range ca.Events(m.h.ctx) {
		if err != nil {
			return err
		}
		m.take(ev)
		if _, ok := m.items["end"]; ok {
			return nil
		}
	}
	return nil
}
