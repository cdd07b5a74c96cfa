// Package clienttest holds the behaviour that package client promises on top of any server that speaks the etcd v3 API.
// It is test support: the tests of Latchkey's server run it against their members, and the interop tests against etcd.
package clienttest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// testTimeout bounds one case. The longest waits for a lease of two seconds, the shortest that etcd grants, to end.
const testTimeout = 30 * time.Second

// Run runs all cases against the cluster at endpoints. Each case uses keys of its own, named after it, and leaves other
// keys alone; history is compacted on the way.
func Run(t *testing.T, endpoints []string) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h *harness)
	}{
		{"KV/PutGetDelete", testPutGetDelete},
		{"KV/Ranges", testRanges},
		{"KV/Order", testOrder},
		{"KV/History", testHistory},
		{"KV/Errors", testKVErrors},
		{"KV/Namespace", testNamespace},
		{"Txn/Compares", testCompares},
		{"Txn/Nested", testNested},
		{"Txn/Guarded", testGuarded},
		{"Txn/Errors", testTxnErrors},
		{"Lease/Life", testLeaseLife},
		{"Lease/Errors", testLeaseErrors},
		{"Session/KeysEndWithIt", testSessionKeys},
		{"Session/RevokedByOthers", testSessionRevoked},
		{"Session/OutlivesItsTTL", testSessionOutlivesTTL},
		{"Watch/Order", testWatchOrder},
		{"Watch/FromRevision", testWatchFromRevision},
		{"Watch/Options", testWatchOptions},
		{"Watch/Compacted", testWatchCompacted},
		{"Watch/Many", testWatchMany},
		{"Watch/SlowLoop", testWatchSlowLoop},
		{"Watch/Ends", testWatchEnds},
		{"Watch/Reconnect", testWatchReconnect},
		{"Update/Counter", testUpdateCounter},
		{"Update/Phantoms", testUpdatePhantoms},
		{"Update/OwnWrites", testUpdateOwnWrites},
		{"Update/Hooks", testUpdateHooks},
		{"Update/LostAnswers", testUpdateLostAnswers},
		{"Update/Begin", testBegin},
		{"Typed/Values", testTyped},
		{"Typed/Watch", testTypedWatch},
		{"Cluster/Status", testCluster},
		{"Maintenance/Hash", testHash},
		{"Maintenance/Snapshot", testSnapshot},
		{"Maintenance/Alarms", testAlarms},
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
	c         *client.Client // with the case's own namespace
}

func newHarness(t *testing.T, endpoints []string) *harness {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	h := &harness{t: t, ctx: ctx, endpoints: endpoints}
	h.c = h.client(client.Config{})
	_, err := h.c.Delete(ctx, "", client.Prefix())
	require.NoError(t, err)
	return h
}

// client returns another client of the cluster, in the case's namespace.
func (h *harness) client(cfg client.Config) *client.Client {
	cfg.Endpoints = h.endpoints
	cfg.Namespace = "clienttest/" + strings.TrimPrefix(h.t.Name(), "Test") + "/"
	c, err := client.New(cfg)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// put writes a key and returns the revision.
func (h *harness) put(key, value string, opts ...client.PutOption) client.Revision {
	h.t.Helper()
	res, err := h.c.Put(h.ctx, key, []byte(value), opts...)
	require.NoError(h.t, err)
	return res.Revision
}

// value reads a key; "" when there is none.
func (h *harness) value(key string) string {
	h.t.Helper()
	res, err := h.c.Get(h.ctx, key)
	require.NoError(h.t, err)
	if len(res.KVs) == 0 {
		return ""
	}
	return string(res.KVs[0].Value)
}

// keys reads the keys that a Get finds, separated by spaces.
func (h *harness) keys(key string, opts ...client.GetOption) string {
	h.t.Helper()
	res, err := h.c.Get(h.ctx, key, opts...)
	require.NoError(h.t, err)
	var out []string
	for _, kv := range res.KVs {
		out = append(out, kv.Key)
	}
	return strings.Join(out, " ")
}
