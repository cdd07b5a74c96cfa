package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/latchkey-go/latchkey/recipes/barrier"
	"github.com/latchkey-go/latchkey/recipes/election"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

const (
	electionName = "bench/leader"
	barrierName  = "bench/barrier"
	// A leader leads for so long, so that there is always one who waits.
	reign = 5 * time.Millisecond
)

func runLock(ctx context.Context, e *env) (*Run, error) {
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		held, err := lock.New(e.client(worker), ownLock(worker)).Acquire(ctx)
		if err != nil {
			return err
		}
		return held.Release(ctx)
	})
}

// runHotLock also checks that the lock goes from one to the next in the order in
// which they have come: that is the order of their tokens, which are the revisions
// at which they have queued.
func runHotLock(ctx context.Context, e *env) (*Run, error) {
	var last, behind atomic.Uint64
	turns := make([]int, e.workers) // each element is owned by its worker
	r, err := e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		held, err := lock.New(e.client(worker), hotLock).Acquire(ctx)
		if err != nil {
			return err
		}
		if token := uint64(held.Token()); last.Swap(token) >= token {
			behind.Add(1)
		}
		turns[worker]++
		return held.Release(ctx)
	})
	if err != nil {
		return nil, err
	}
	if n := behind.Load(); n > 0 {
		return nil, fmt.Errorf("%d hand-offs were out of order", n)
	}
	r.Note = fmt.Sprintf("all hand-offs in the order of arrival; of %d clients each had %d to %d",
		e.workers, slices.Min(turns), slices.Max(turns))
	return r, nil
}

// handOver measures from the moment at which a leader begins to resign to the
// start of the next one. lead waits for leadership and returns how to resign.
func handOver(ctx context.Context, e *env, lead func(ctx context.Context, worker int) (resign func(context.Context) error, err error)) (*Run, error) {
	var left atomic.Int64 // when the last leader began to resign, since origin
	origin := time.Now()
	return e.loop(ctx, func(ctx context.Context, worker int, done count) error {
		resign, err := lead(ctx, worker)
		if err != nil {
			return err
		}
		if at := left.Load(); at != 0 {
			done(time.Since(origin) - time.Duration(at))
		}
		if err := wait(ctx, reign); err != nil {
			return err
		}
		left.Store(int64(time.Since(origin)))
		return resign(ctx)
	})
}

func runResign(ctx context.Context, e *env) (*Run, error) {
	sessions, closeAll, err := openSessions(e, e.workers)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	return handOver(ctx, e, func(ctx context.Context, worker int) (func(context.Context) error, error) {
		el := concurrency.NewElection(sessions[worker], electionName)
		return el.Resign, el.Campaign(ctx, payload)
	})
}

func runHandOver(ctx context.Context, e *env) (*Run, error) {
	elections := make([]*election.Election[string], e.workers)
	for i := range elections {
		elections[i] = election.New[string](e.client(i), electionName)
	}
	return handOver(ctx, e, func(ctx context.Context, worker int) (func(context.Context) error, error) {
		l, err := elections[worker].Campaign(ctx, payload)
		if err != nil {
			return nil, err
		}
		return l.Resign, nil
	})
}

// runBarrier counts the rounds, in and out, at the first member.
func runBarrier(ctx context.Context, e *env) (*Run, error) {
	doubles := make([]*barrier.Double, e.workers)
	for i := range doubles {
		doubles[i] = barrier.NewDouble(e.client(i), barrierName, e.workers)
	}
	return e.loop(ctx, func(ctx context.Context, worker int, done count) error {
		start := time.Now()
		in, err := doubles[worker].Enter(ctx)
		if err == nil {
			err = in.Leave(ctx)
		}
		if err == nil && worker == 0 {
			done(time.Since(start))
		}
		return err
	})
}
