// Package pubsubtest holds what package pubsub promises on top of any server that
// speaks the etcd v3 API. It is test support: the tests of Latchkey's server run it
// against their members, and the interop tests against etcd.
package pubsubtest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

// caseTimeout bounds one case, so that what would wait for ever fails.
const caseTimeout = 2 * time.Minute

// Run runs all cases against the cluster at endpoints. Each case uses keys of its
// own, named after it, and leaves other keys alone; history is compacted on the way.
func Run(t *testing.T, endpoints []string) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h *harness)
	}{
		{"Open/Settings", testSettings},
		{"Open/Names", testNames},
		{"Open/Kubernetes", testKubernetes},
		{"Open/Deleted", testDeleted},
		{"Publish/Order", testOrder},
		{"Publish/Messages", testMessages},
		{"Publish/Transaction", testPublishTx},
		{"Publish/StaleClient", testStaleClient},
		{"Publish/Dedup", testDedup},
		{"Publish/AnswersLost", testPublishAnswersLost},
		{"Publish/Cancelled", testPublishCancelled},
		{"Publisher/Order", testPublisherOrder},
		{"Publisher/AnswersLost", testPublisherAnswersLost},
		{"Publisher/Close", testPublisherClose},
		{"Subscribe/Starts", testStarts},
		{"Subscribe/Live", testLive},
		{"Subscribe/Compacted", testCompacted},
		{"Subscribe/Undecodable", testUndecodable},
		{"Subscribe/Slow", testSlow},
		{"Subscribe/SlowCatchesUp", testSlowCatchesUp},
		{"Subscribe/Ends", testSubscribeEnds},
		{"Durable/GoesOn", testDurable},
		{"Durable/Taken", testDurableTaken},
		{"Durable/Transaction", testDurableTx},
		{"Group/Shares", testGroupShares},
		{"Group/Retries", testGroupRetries},
		{"Group/Dead", testGroupDead},
		{"Group/Crashes", testGroupCrashes},
		{"Group/Poison", testGroupPoison},
		{"Group/ExactlyOnce", testGroupExactlyOnce},
		{"Group/Zombie", testGroupZombie},
		{"Group/Seek", testGroupSeek},
		{"Group/Drain", testGroupDrain},
		{"Group/Batches", testGroupBatches},
		{"Group/BatchTx", testGroupBatchTx},
		{"Group/BatchFails", testGroupBatchFails},
		{"Retention/Messages", testRetentionMessages},
		{"Retention/Interest", testRetentionInterest},
		{"Retention/UnderReaders", testTrimUnderReaders},
		{"Merge/Order", testMerge},
		{"Match/NewTopics", testMatch},
		{"Service/Requests", testService},
		{"Service/ServerLeaves", testServerLeaves},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newHarness(t, endpoints)) })
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
		t: t, ctx: ctx, endpoints: endpoints,
		namespace: "pubsubtest/" + strings.TrimPrefix(t.Name(), "Test") + "/",
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

// topic opens a topic of texts without a bound.
func (h *harness) topic(c *client.Client, name string, opts ...pubsub.Option) *pubsub.Topic[string] {
	h.t.Helper()
	t, err := pubsub.Open[string](h.ctx, c, name, append([]pubsub.Option{pubsub.Unlimited(), pubsub.BesideKubernetes()}, opts...)...)
	require.NoError(h.t, err)
	return t
}

// bounded opens a topic of texts with the bounds given.
func (h *harness) bounded(c *client.Client, name string, opts ...pubsub.Option) *pubsub.Topic[string] {
	h.t.Helper()
	t, err := pubsub.Open[string](h.ctx, c, name, append(opts, pubsub.BesideKubernetes())...)
	require.NoError(h.t, err)
	return t
}

func (h *harness) publish(t *pubsub.Topic[string], v string, opts ...pubsub.PublishOption) pubsub.Offset {
	h.t.Helper()
	at, err := t.Publish(h.ctx, v, opts...)
	require.NoError(h.t, err)
	return at
}

// publishAll publishes "0", "1", ... under keys that repeat after so many.
func (h *harness) publishAll(t *pubsub.Topic[string], n, keys int) {
	h.t.Helper()
	p := t.Publisher()
	for i := range n {
		var opts []pubsub.PublishOption
		if keys > 0 {
			opts = append(opts, pubsub.Key(fmt.Sprint(i%keys)))
		}
		_, err := p.Publish(h.ctx, fmt.Sprint(i), opts...)
		require.NoError(h.t, err)
	}
	require.NoError(h.t, p.Close(h.ctx))
}

// read reads n values from a start on.
func (h *harness) read(t *pubsub.Topic[string], from pubsub.Start, n int) []string {
	h.t.Helper()
	var out []string
	if n == 0 {
		return nil
	}
	for m, err := range t.Subscribe(h.ctx, from) {
		require.NoError(h.t, err)
		m.Done()
		if out = append(out, m.Value); len(out) == n {
			break
		}
	}
	return out
}

// numbers returns "from", ..., "to" without to.
func numbers(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

// background runs f, and hands its error over.
func background(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// wait waits for what f returned.
func (h *harness) wait(done <-chan error) error {
	h.t.Helper()
	select {
	case err := <-done:
		return err
	case <-h.ctx.Done():
		h.t.Fatal("it did not end")
		return nil
	}
}

// await reads the keys below a prefix, and again after each change, until ok is
// satisfied.
func (h *harness) await(prefix string, ok func([]client.KV) bool) {
	h.t.Helper()
	for {
		res, err := h.c.Get(h.ctx, prefix, client.Prefix())
		require.NoError(h.t, err, "while waiting for the keys of %q", prefix)
		if ok(res.KVs) {
			return
		}
		for _, err := range h.c.Watch(h.ctx, prefix, client.Prefix(), client.FromRevision(res.Revision+1)) {
			if err != nil && h.ctx.Err() == nil {
				require.ErrorIs(h.t, err, client.ErrCompacted)
			}
			break
		}
	}
}

// compact compacts all history.
func (h *harness) compact() {
	h.t.Helper()
	res, err := h.c.Put(h.ctx, "compact", nil)
	require.NoError(h.t, err)
	if err := h.c.Compact(h.ctx, res.Revision); err != nil {
		require.ErrorIs(h.t, err, client.ErrCompacted)
	}
}
