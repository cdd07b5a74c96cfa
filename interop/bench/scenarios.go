package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// scenario is one row of the table. Each side runs it over the clients that
// its runner asks for, and has none if it can not take part.
type scenario struct {
	name    string
	what    string
	workers int
	conns   int // most clients that the workers share; 0 for what -conns says
	// shared has the workers share one client of this project's: a program has one,
	// whatever the number of its goroutines.
	shared bool
	run    runner
	ours   runner // through this project's client, on latchkey; nil for run
}

// runner measures a scenario on one cluster.
type runner func(ctx context.Context, e *env) (*Run, error)

// on returns how the scenario is run on a cluster of a kind, and whether that is
// through this project's client. It returns nil if it is not.
func (s scenario) on(kind harness.Kind) (run runner, ours bool) {
	if kind == harness.Latchkey && s.ours != nil {
		return s.ours, true
	}
	return s.run, false
}

const (
	readKeys     = 1000 // keys that get and sget choose from
	writeKeys    = 8192 // keys that puts choose from
	leaseTTL     = 60   // seconds
	sessionTTL   = 60   // seconds
	preloadBatch = 100
)

// group is a part of the table.
type group struct {
	name      string
	scenarios []scenario
}

var groups = []group{
	{"official", []scenario{
		{name: "idle", what: "no load: the servers' CPU a second of wall time", run: runIdle},
		{name: "put1", what: "put, 1 client", workers: 1, run: runPut},
		{name: "put64", what: "put, 64 clients", workers: 64, run: runPut},
		{name: "put512", what: "put, 512 clients", workers: 512, run: runPut},
		{name: "get64", what: "linearizable get, 64 clients", workers: 64, run: runGet()},
		{name: "sget64", what: "serializable get, 64 clients", workers: 64, run: runGet(clientv3.WithSerializable())},
		{name: "cas64", what: "compare-and-swap txn on one's own key, 64 clients", workers: 64, run: runCompareAndSwap},
		{name: "lease64", what: "lease grant + revoke, 64 clients", workers: 64, run: runLease},
		{name: "mutex64", what: "concurrency.Mutex lock + unlock, 64 names", workers: 64, run: runMutex},
		{name: "hot16", what: "one concurrency.Mutex, 16 waiters: hand-offs", workers: 16, run: runHotMutex},
		{name: "fan1000", what: "1000 watchers of one key: events delivered", workers: 1000, run: runFanOut},
	}},
	{"typed", []scenario{
		{name: "typed-put1", what: "put1, latchkey through package client, one for all", workers: 1, run: runPut, ours: runTypedPut},
		{name: "typed-put64", what: "put64, as above", workers: 64, run: runPut, ours: runTypedPut, shared: true},
		{name: "typed-put512", what: "put512, as above", workers: 512, run: runPut, ours: runTypedPut, shared: true},
		{name: "typed-get64", what: "get64, as above", workers: 64, run: runGet(), ours: runTypedGet, shared: true},
		{name: "typed-cas64", what: "cas64, as above", workers: 64, run: runCompareAndSwap, ours: runTypedCompareAndSwap, shared: true},
		{name: "typed-lease64", what: "lease64, as above", workers: 64, run: runLease, ours: runTypedLease, shared: true},
	}},
	{"recipes", []scenario{
		{name: "lock1", what: "recipes/lock beside concurrency.Mutex: acquire + release, 1 caller", workers: 1, run: runMutex, ours: runLock},
		{name: "lock64", what: "acquire + release, 64 names and callers", workers: 64, run: runMutex, ours: runLock, shared: true},
		{name: "hotlock16", what: "one lock that 16 clients want: hand-offs", workers: 16, conns: 16, run: runHotMutex, ours: runHotLock},
		{name: "handover", what: "recipes/election beside concurrency.Election: from resigning to the next one's start", workers: 4, conns: 4, run: runResign, ours: runHandOver},
		{name: "barrier50", what: "recipes/barrier, a double barrier of 50 members on 5 clients: rounds", workers: 50, conns: 5, ours: runBarrier},
		{name: "queue16", what: "recipes/queue beside etcd's recipe: 16 producers and 16 workers, each on its client: jobs worked on", workers: 16, conns: 16, run: runEtcdQueue, ours: runQueue},
		{name: "queue16on4", what: "the same on 4 clients, whose workers have 4 jobs at once", workers: 16, conns: 4, ours: runQueue},
		{name: "queuepacked", what: "4 packing producers and 4 workers with 4 jobs at once, on 4 clients: jobs worked on", workers: 4, conns: 4, ours: runQueuePacked},
		{name: "queuelatency", what: "500 jobs a second, from Enqueue to the start of the handler", workers: 4, conns: 4, ours: runQueueLatency},
		{name: "queueherd32", what: "32 producers and 32 workers, each on its client: failed transactions", workers: 32, conns: 32, ours: runQueueHerd},
		{name: "pub16", what: "recipes/pubsub, 16 publishers that wait for each message", workers: 16, conns: 16, ours: runPublish},
		{name: "pubpacked", what: "recipes/pubsub, 4 background publishers on 4 clients: messages committed", workers: 4, conns: 4, ours: runPublishPacked},
		{name: "pubfan100", what: "recipes/pubsub to 100 subscribers on 8 clients beside put and watch: events delivered", workers: 100, conns: 8, run: runFanOut, ours: runPublishFanOut},
	}},
}

// allScenarios is the table in its order.
func allScenarios() (all []scenario) {
	for _, g := range groups {
		all = append(all, g.scenarios...)
	}
	return all
}

// findScenarios returns one scenario by its name, or those of a group.
func findScenarios(name string) []scenario {
	for _, g := range groups {
		if g.name == name {
			return g.scenarios
		}
		for _, s := range g.scenarios {
			if s.name == name {
				return []scenario{s}
			}
		}
	}
	return nil
}

var payload = strings.Repeat("v", valueBytes)

func writeKey() string          { return fmt.Sprintf("bench/put/%06d", rand.IntN(writeKeys)) }
func readKey(i int) string      { return fmt.Sprintf("bench/get/%06d", i) }
func ownKey(worker int) string  { return fmt.Sprintf("bench/cas/%03d", worker) }
func ownLock(worker int) string { return fmt.Sprintf("bench/mutex/%03d", worker) }

// hotLock is the name that everybody wants.
const hotLock = "bench/hot"

func runIdle(ctx context.Context, e *env) (*Run, error) {
	return e.measure(ctx, func(context.Context, *window) {}, func() *histogram { return &histogram{} })
}

func runPut(ctx context.Context, e *env) (*Run, error) {
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		_, err := e.conn(worker).Put(ctx, writeKey(), payload)
		return err
	})
}

func runGet(opts ...clientv3.OpOption) runner {
	return func(ctx context.Context, e *env) (*Run, error) {
		for first := 0; first < readKeys; first += preloadBatch {
			var ops []clientv3.Op
			for i := range preloadBatch {
				ops = append(ops, clientv3.OpPut(readKey(first+i), payload))
			}
			if _, err := e.conn(0).Txn(ctx).Then(ops...).Commit(); err != nil {
				return nil, fmt.Errorf("preload: %w", err)
			}
		}
		return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
			got, err := e.conn(worker).Get(ctx, readKey(rand.IntN(readKeys)), opts...)
			if err == nil && len(got.Kvs) != 1 {
				return errors.New("a preloaded key is absent")
			}
			return err
		})
	}
}

func runCompareAndSwap(ctx context.Context, e *env) (*Run, error) {
	revs := make([]int64, e.workers) // each element is owned by its worker
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		key := ownKey(worker)
		resp, err := e.conn(worker).Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", revs[worker])).
			Then(clientv3.OpPut(key, payload)).
			Else(clientv3.OpGet(key)).
			Commit()
		if err != nil {
			return err
		}
		if resp.Succeeded {
			revs[worker] = resp.Header.Revision
			return nil
		}
		kvs := resp.Responses[0].GetResponseRange().Kvs
		if len(kvs) != 1 {
			return errors.New("compare-and-swap failed on an absent key")
		}
		// An earlier run on this cluster left the key: adopt its revision.
		revs[worker] = kvs[0].ModRevision
		return nil
	})
}

func runLease(ctx context.Context, e *env) (*Run, error) {
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		granted, err := e.conn(worker).Grant(ctx, leaseTTL)
		if err != nil {
			return err
		}
		_, err = e.conn(worker).Revoke(ctx, granted.ID)
		return err
	})
}

// openSessions gives one session for each connection or, where the workers
// contend for one name, one for each worker: a session holds one key a name.
func openSessions(e *env, n int) (sessions []*concurrency.Session, closeAll func(), err error) {
	closeAll = func() {
		var wg sync.WaitGroup
		for _, s := range sessions {
			wg.Go(func() { s.Close() })
		}
		wg.Wait()
	}
	for i := range n {
		s, err := concurrency.NewSession(e.conn(i), concurrency.WithTTL(sessionTTL))
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		sessions = append(sessions, s)
	}
	return sessions, closeAll, nil
}

func runMutex(ctx context.Context, e *env) (*Run, error) {
	sessions, closeAll, err := openSessions(e, len(e.conns))
	if err != nil {
		return nil, err
	}
	defer closeAll()
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		m := concurrency.NewMutex(sessions[worker%len(sessions)], ownLock(worker))
		if err := m.Lock(ctx); err != nil {
			return err
		}
		return m.Unlock(ctx)
	})
}

func runHotMutex(ctx context.Context, e *env) (*Run, error) {
	sessions, closeAll, err := openSessions(e, e.workers)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		m := concurrency.NewMutex(sessions[worker], hotLock)
		if err := m.Lock(ctx); err != nil {
			return err
		}
		return m.Unlock(ctx)
	})
}
