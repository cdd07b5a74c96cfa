// Package membershiptest holds what package membership promises on top of any
// server that speaks the etcd v3 API. It is test support: the tests of Latchkey's
// server run it against their members, and the interop tests against etcd.
package membershiptest

import (
	"context"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/membership"
)

// caseTimeout bounds one case, so that what would wait for ever fails.
const caseTimeout = 60 * time.Second

// shortTTL is the shortest TTL that etcd grants.
const shortTTL = 2 * time.Second

// Run runs all cases against the cluster at endpoints. Each case uses keys of its
// own, named after it, and leaves other keys alone; history is compacted on the
// way. Those under Peers repeat what is wrong elsewhere.
func Run(t *testing.T, endpoints []string) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h *harness)
	}{
		{"Members/Life", testLife},
		{"Members/Names", testNames},
		{"Members/Views", testViews},
		{"Members/Compacted", testCompacted},
		{"Members/Heal", testHeal},
		{"Members/Session", testSession},
		{"Shares/Spread", testSpread},
		{"Shares/ReleaseBeforeAcquire", testReleaseBeforeAcquire},
		{"Shares/Crash", testCrash},
		{"Shares/StaleHolder", testStaleHolder},
		{"Shares/Churn", testChurn},
		{"Shares/Ends", testEnds},
		{"Shares/Items", testItems},
		{"Peers/CuratorUniqueIDUnenforced", testDuplicate},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, newHarness(t, endpoints))
		})
	}
}

// tags is what the members of the tests tell the others.
type tags struct {
	Rack int
}

type (
	member = membership.Member[tags]
	view   = membership.View[tags]
)

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
		namespace: "membershiptest/" + strings.TrimPrefix(t.Name(), "Test") + "/",
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

func (h *harness) join(c *client.Client, id string, opts ...membership.Option) *member {
	h.t.Helper()
	m, err := membership.Join(h.ctx, c, "team", id, tags{}, opts...)
	require.NoError(h.t, err)
	return m
}

func (h *harness) leave(m *member) {
	h.t.Helper()
	require.NoError(h.t, m.Leave(h.ctx))
}

// watching is a loop over Members that a case steps through.
type watching struct {
	h    *harness
	next func() (view, error, bool)
}

func (h *harness) watch(c *client.Client) *watching {
	next, stop := iter.Pull2(membership.Members[tags](h.ctx, c, "team"))
	h.t.Cleanup(stop)
	return &watching{h, next}
}

func (w *watching) step() view {
	w.h.t.Helper()
	v, err, ok := w.next()
	require.True(w.h.t, ok)
	require.NoError(w.h.t, err)
	return v
}

// untilIDs returns the first view with these members, and checks on the way that
// none goes back.
func (w *watching) untilIDs(ids string) view {
	w.h.t.Helper()
	var last client.Revision
	for {
		v := w.step()
		require.GreaterOrEqual(w.h.t, v.Revision, last)
		last = v.Revision
		if idsOf(v.Members) == ids {
			return v
		}
	}
}

func idsOf(members []membership.Peer[tags]) string {
	var ids []string
	for _, m := range members {
		ids = append(ids, m.ID)
	}
	return strings.Join(ids, " ")
}

// awaitKeys waits until there are n keys below a prefix.
func (h *harness) awaitKeys(prefix string, n int) {
	h.t.Helper()
	for {
		res, err := h.c.Get(h.ctx, prefix, client.Prefix())
		require.NoError(h.t, err, "while waiting for the keys of %q", prefix)
		if len(res.KVs) == n {
			return
		}
		for range h.c.Watch(h.ctx, prefix, client.Prefix(), client.FromRevision(res.Revision+1)) {
			break
		}
	}
}

// awaitPut waits for the first write of a key after rev.
func (h *harness) awaitPut(key string, rev client.Revision) client.KV {
	h.t.Helper()
	for ev, err := range h.c.Watch(h.ctx, key, client.FromRevision(rev+1), client.WithoutDeletes()) {
		require.NoError(h.t, err, "while waiting for a write of %q", key)
		return ev.KV
	}
	return client.KV{}
}

// compact forgets all history.
func (h *harness) compact() {
	h.t.Helper()
	res, err := h.c.Put(h.ctx, "other", nil)
	require.NoError(h.t, err)
	require.NoError(h.t, h.c.Compact(h.ctx, res.Revision))
}
