// Package discoverytest holds what package discovery promises on top of any server
// that speaks the etcd v3 API. It is test support: the tests of Latchkey's server
// run it against their members, and the interop tests against etcd.
package discoverytest

import (
	"context"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/discovery"
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
		{"Register/Life", testLife},
		{"Register/Format", testFormat},
		{"Register/Names", testNames},
		{"Register/Update", testUpdate},
		{"Register/Duplicate", testDuplicate},
		{"Register/Wait", testWait},
		{"Register/Health", testHealth},
		{"Register/Drain", testDrain},
		{"Register/RemoteDrain", testRemoteDrain},
		{"Heal/KeyDeleted", testKeyDeleted},
		{"Heal/LeaseRevoked", testLeaseRevoked},
		{"Heal/EditedByOthers", testEdited},
		{"Heal/DeletionUnseen", testDeletionUnseen},
		{"Loss/IDTaken", testIDTaken},
		{"Loss/SessionClosed", testSessionClosed},
		{"Loss/WithinTTL", testLossWithinTTL},
		{"Answers/EveryOneDropped", testEveryAnswerDropped},
		{"Watch/Snapshots", testSnapshots},
		{"Watch/GoodbyeUnseen", testGoodbyeUnseen},
		{"Watch/Invalid", testInvalid},
		{"Watch/Cut", testWatchCut},
		{"Watch/Ends", testWatchEnds},
		{"Provider/Balances", testBalances},
		{"Provider/ClusterUnreachable", testUnreachable},
		{"Provider/AllLost", testAllLost},
		{"Provider/Closed", testProviderClosed},
		{"GRPC/Calls", testGRPC},
		{"GRPC/Unreachable", testResolverUnreachable},
		{"GRPC/KeepsLost", testResolverKeepsLost},
		{"Peers/EtcdResolverEmptyUnsortedBare", testResolverStates},
		{"Peers/EtcdResolverFrozenByCompaction", testResolverCompaction},
		{"Peers/EtcdOrphanOnCancel", testCancelInFlight},
		{"Peers/CuratorProtectedCreate", testCreateDropped},
		{"Peers/EtcdLateCreate", testCreateLate},
		{"Peers/EtcdStaleUnlock22082", testCloseLate},
		{"Peers/EtcdNamingStopsAtCompaction", testCompactedUnseen},
		{"Peers/EtcdNamingDiesWithLease", testBackAfterOutage},
		{"Peers/CuratorUniqueIDUnenforced", testDuplicateSameSession},
		{"Peers/ConsulNestedNames", testNestedNames},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, newHarness(t, endpoints))
		})
	}
}

// tags is what the instances of the tests tell their clients.
type tags struct {
	Color string
}

type (
	instance     = discovery.Instance[tags]
	snapshot     = discovery.Snapshot[tags]
	registration = discovery.Registration[tags]
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
		namespace: "discoverytest/" + strings.TrimPrefix(t.Name(), "Test") + "/",
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

// at returns an instance of the service "api".
func at(id, addr string) instance { return instance{Service: "api", ID: id, Addr: addr} }

func (h *harness) register(c *client.Client, in instance, opts ...discovery.RegisterOption) *registration {
	h.t.Helper()
	r, err := discovery.Register(h.ctx, c, in, opts...)
	require.NoError(h.t, err)
	return r
}

func (h *harness) close(r *registration) {
	h.t.Helper()
	require.NoError(h.t, r.Close(h.ctx))
}

// watching is a Watch that a case steps through.
type watching struct {
	h    *harness
	next func() (snapshot, error, bool)
}

func (h *harness) watch(c *client.Client, opts ...discovery.WatchOption) *watching {
	next, stop := iter.Pull2(discovery.Watch[tags](h.ctx, c, "api", opts...))
	h.t.Cleanup(stop)
	return &watching{h, next}
}

// step returns the next snapshot.
func (w *watching) step() snapshot {
	w.h.t.Helper()
	s, err, ok := w.next()
	require.True(w.h.t, ok)
	require.NoError(w.h.t, err)
	return s
}

// until returns the first snapshot that satisfies ok, and checks on the way that
// none goes back.
func (w *watching) until(ok func(snapshot) bool) snapshot {
	w.h.t.Helper()
	var last client.Revision
	for {
		s := w.step()
		require.GreaterOrEqual(w.h.t, s.Revision, last, "no snapshot is older than the one before")
		last = s.Revision
		if ok(s) {
			return s
		}
	}
}

// untilIDs returns the first snapshot with these instances.
func (w *watching) untilIDs(ids string) snapshot {
	w.h.t.Helper()
	return w.until(func(s snapshot) bool { return idsOf(s.Instances) == ids })
}

// idsOf joins the ids with spaces.
func idsOf(instances []instance) string {
	var ids []string
	for _, in := range instances {
		ids = append(ids, in.ID)
	}
	return strings.Join(ids, " ")
}

// ids lists the service as it is now.
func (h *harness) ids() string {
	h.t.Helper()
	s, err := discovery.List[tags](h.ctx, h.c, "api")
	require.NoError(h.t, err)
	return idsOf(s.Instances)
}

// awaitKeys waits until there are n keys below a prefix.
func (h *harness) awaitKeys(prefix string, n int) []client.KV {
	h.t.Helper()
	for {
		res, err := h.c.Get(h.ctx, prefix, client.Prefix())
		require.NoError(h.t, err, "while waiting for the keys of %q", prefix)
		if len(res.KVs) == n {
			return res.KVs
		}
		for _, err := range h.c.Watch(h.ctx, prefix, client.Prefix(), client.FromRevision(res.Revision+1)) {
			if err != nil && h.ctx.Err() == nil {
				require.ErrorIs(h.t, err, client.ErrCompacted)
			}
			break
		}
	}
}

// awaitPut waits for the first write of a key after rev. What is deleted and put
// back at once need not be seen as missing by who follows the prefix.
func (h *harness) awaitPut(key string, rev client.Revision) client.KV {
	h.t.Helper()
	for ev, err := range h.c.Watch(h.ctx, key, client.FromRevision(rev+1), client.WithoutDeletes()) {
		require.NoError(h.t, err, "while waiting for a write of %q", key)
		return ev.KV
	}
	return client.KV{}
}

// revoke ends a session's lease on the server, as that does when renewals stay out,
// and returns the key as it is put back.
func (h *harness) revoke(s *client.Session, key string) client.KV {
	h.t.Helper()
	before, err := h.c.GetOne(h.ctx, key)
	require.NoError(h.t, err)
	require.Equal(h.t, s.ID(), before.Lease)
	require.NoError(h.t, h.c.Revoke(h.ctx, s.ID()))
	back := h.awaitPut(key, before.ModRevision)
	require.NotEqual(h.t, s.ID(), back.Lease)
	return back
}

// compact forgets all history.
func (h *harness) compact() {
	h.t.Helper()
	res, err := h.c.Put(h.ctx, "other", nil)
	require.NoError(h.t, err)
	require.NoError(h.t, h.c.Compact(h.ctx, res.Revision))
}

// ended waits for the end of the registration and returns why it ended.
func (h *harness) ended(r *registration) error {
	h.t.Helper()
	select {
	case <-r.Context().Done():
	case <-h.ctx.Done():
		h.t.Fatal("the end was not noticed")
	}
	return context.Cause(r.Context())
}
