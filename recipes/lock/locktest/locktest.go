// Package locktest holds what package lock promises on top of any server that
// speaks the etcd v3 API. It is test support: the tests of Latchkey's server run
// it against their members, and the interop tests against etcd.
package locktest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// caseTimeout bounds one case, so that what would wait for ever fails.
const caseTimeout = 2 * time.Minute

// Run runs all cases against the cluster at endpoints. Each case uses keys of
// its own, named after it, and leaves other keys alone; history is compacted on
// the way.
func Run(t *testing.T, endpoints []string) {
	for _, c := range slices.Concat(cases, featureCases, rwCases, semaphoreCases) {
		t.Run(c.name, func(t *testing.T) {
			if c.repeats != "" {
				t.Log("repeats ", c.repeats)
			}
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
		namespace: "locktest/" + strings.TrimPrefix(t.Name(), "Test") + "/",
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

func (h *harness) session(c *client.Client, opts ...client.SessionOption) *client.Session {
	h.t.Helper()
	s, err := c.NewSession(h.ctx, opts...)
	require.NoError(h.t, err)
	return s
}

func (h *harness) acquire(l *lock.Lock) *lock.Held {
	h.t.Helper()
	held, err := l.Acquire(h.ctx)
	require.NoError(h.t, err)
	require.True(h.t, held.Valid())
	return held
}

func (h *harness) release(held *lock.Held) {
	h.t.Helper()
	require.NoError(h.t, held.Release(h.ctx))
}

// attempt is an Acquire on a goroutine of its own.
type attempt struct {
	h    *harness
	done chan struct{}
	held *lock.Held
	err  error
}

func (h *harness) start(ctx context.Context, l *lock.Lock) *attempt {
	a := &attempt{h: h, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.held, a.err = l.Acquire(ctx)
	}()
	return a
}

func (a *attempt) wait() (*lock.Held, error) {
	a.h.t.Helper()
	select {
	case <-a.done:
	case <-a.h.ctx.Done():
		a.h.t.Fatal("Acquire did not return")
	}
	return a.held, a.err
}

func (a *attempt) success() *lock.Held {
	a.h.t.Helper()
	held, err := a.wait()
	require.NoError(a.h.t, err)
	return held
}

func (a *attempt) failure() error {
	a.h.t.Helper()
	_, err := a.wait()
	require.Error(a.h.t, err)
	return err
}

// stillWaits fails if the attempt has returned.
func (a *attempt) stillWaits() {
	a.h.t.Helper()
	select {
	case <-a.done:
		a.h.t.Fatalf("Acquire returned: %v, %v", a.held, a.err)
	default:
	}
}

// queuedOrDone waits until there are n keys below a prefix, or the attempt has
// returned.
func (a *attempt) queuedOrDone(prefix string, n int) {
	ctx, cancel := context.WithCancel(a.h.ctx)
	defer cancel()
	go func() {
		select {
		case <-a.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		res, err := a.h.c.Get(a.h.ctx, prefix, client.Prefix())
		require.NoError(a.h.t, err)
		if len(res.KVs) == n {
			return
		}
		for range a.h.c.Watch(ctx, prefix, client.Prefix(), client.FromRevision(res.Revision+1)) {
			break
		}
	}
}

// await reads the keys below a prefix, and again after each change, until ok is
// satisfied. It returns them, the oldest first.
func (h *harness) await(prefix string, ok func([]client.KV) bool) []client.KV {
	h.t.Helper()
	for {
		res, err := h.c.Get(h.ctx, prefix, client.Prefix(), client.Ascending(client.ByCreateRevision))
		require.NoError(h.t, err, "while waiting for the keys of %q", prefix)
		if ok(res.KVs) {
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

// awaitKeys waits until there are n keys below a prefix.
func (h *harness) awaitKeys(prefix string, n int) []client.KV {
	h.t.Helper()
	return h.await(prefix, func(kvs []client.KV) bool { return len(kvs) == n })
}

// ended waits for the end of the handle's context and returns why it ended.
func (h *harness) ended(held *lock.Held) error {
	h.t.Helper()
	select {
	case <-held.Context().Done():
	case <-h.ctx.Done():
		h.t.Fatal("the loss was not noticed")
	}
	return context.Cause(held.Context())
}

func lostReason(t *testing.T, err error) error {
	t.Helper()
	require.ErrorIs(t, err, lock.ErrLost)
	var lost *lock.LostError
	require.ErrorAs(t, err, &lost)
	return lost.Reason
}
