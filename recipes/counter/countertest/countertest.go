// Package countertest holds what package counter promises on top of any server that
// speaks the etcd v3 API. It is test support: the tests of Latchkey's server run it
// against their members, and the interop tests against etcd.
package countertest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// caseTimeout bounds one case, so that what would wait for ever fails.
const caseTimeout = 2 * time.Minute

// Run runs all cases against the cluster at endpoints. Each case uses keys of its own,
// named after it, and leaves other keys alone; history is compacted on the way.
func Run(t *testing.T, endpoints []string) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h *harness)
	}{
		{"Int64/Operations", testOperations},
		{"Int64/Overflow", testOverflow},
		{"Int64/NotNumber", testNotNumber},
		{"Int64/Concurrent", testConcurrent},
		{"Int64/StaleGuess", testStaleGuess},
		{"Int64/EveryAnswerDropped", testEveryAnswerDropped},
		{"Int64/ExactSumP28", testExactSum},
		{"Int64/LateAddition", testLateAddition},
		{"Int64/GivenUp", testGivenUp},
		{"Int64/Watch", testWatch},
		{"Int64/WatchCompacted", testWatchCompacted},
		{"Value/Operations", testValue},
		{"Value/VersionOfCurator688", testValueVersion},
		{"Value/LateSet", testLateSet},
		{"Value/Watch", testValueWatch},
		{"Sequence/Unique", testSequence},
		{"Sequence/LostAnswers", testSequenceLostAnswers},
		{"Sequence/Errors", testSequenceErrors},
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
		namespace: "countertest/" + strings.TrimPrefix(t.Name(), "Test") + "/",
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

func (h *harness) put(key, value string) client.Revision {
	h.t.Helper()
	res, err := h.c.Put(h.ctx, key, []byte(value))
	require.NoError(h.t, err)
	return res.Revision
}
