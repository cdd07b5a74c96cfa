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
)

// scenario is one row of the table.
type scenario struct {
	name    string
	what    string
	workers int
	run     func(ctx context.Context, e *env) (*Run, error)
}

const (
	readKeys     = 1000 // keys that get and sget choose from
	writeKeys    = 8192 // keys that puts choose from
	leaseTTL     = 60   // seconds
	sessionTTL   = 60   // seconds
	preloadBatch = 100
)

var scenarios = []scenario{
	{"idle", "no load: the servers' CPU a second of wall time", 0, runIdle},
	{"put1", "put, 1 client", 1, runPut},
	{"put64", "put, 64 clients", 64, runPut},
	{"put512", "put, 512 clients", 512, runPut},
	{"get64", "linearizable get, 64 clients", 64, runGet()},
	{"sget64", "serializable get, 64 clients", 64, runGet(clientv3.WithSerializable())},
	{"cas64", "compare-and-swap txn on one's own key, 64 clients", 64, runCompareAndSwap},
	{"lease64", "lease grant + revoke, 64 clients", 64, runLease},
	{"mutex64", "concurrency.Mutex lock + unlock, 64 names", 64, runMutex},
	{"hot16", "one concurrency.Mutex, 16 waiters: hand-offs", 16, runHotMutex},
	{"fan1000", "1000 watchers of one key: events delivered", 1000, runFanOut},
}

func findScenario(name string) (scenario, bool) {
	for _, s := range scenarios {
		if s.name == name {
			return s, true
		}
	}
	return scenario{}, false
}

var payload = strings.Repeat("v", valueBytes)

func runIdle(ctx context.Context, e *env) (*Run, error) {
	return e.measure(ctx, func(context.Context, *window) {}, func() *histogram { return &histogram{} })
}

func runPut(ctx context.Context, e *env) (*Run, error) {
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		key := fmt.Sprintf("bench/put/%06d", rand.IntN(writeKeys))
		_, err := e.conn(worker).Put(ctx, key, payload)
		return err
	})
}

func runGet(opts ...clientv3.OpOption) func(context.Context, *env) (*Run, error) {
	key := func(i int) string { return fmt.Sprintf("bench/get/%06d", i) }
	return func(ctx context.Context, e *env) (*Run, error) {
		for first := 0; first < readKeys; first += preloadBatch {
			var ops []clientv3.Op
			for i := range preloadBatch {
				ops = append(ops, clientv3.OpPut(key(first+i), payload))
			}
			if _, err := e.conn(0).Txn(ctx).Then(ops...).Commit(); err != nil {
				return nil, fmt.Errorf("preload: %w", err)
			}
		}
		return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
			got, err := e.conn(worker).Get(ctx, key(rand.IntN(readKeys)), opts...)
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
		key := fmt.Sprintf("bench/cas/%03d", worker)
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
		m := concurrency.NewMutex(sessions[worker%len(sessions)], fmt.Sprintf("bench/mutex/%03d", worker))
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
		m := concurrency.NewMutex(sessions[worker], "bench/hot")
		if err := m.Lock(ctx); err != nil {
			return err
		}
		return m.Unlock(ctx)
	})
}
