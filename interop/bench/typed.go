package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

// These do through this project's client what their namesakes in scenarios.go
// do through the official one.

func runTypedPut(ctx context.Context, e *env) (*Run, error) {
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		_, err := e.client(worker).Put(ctx, writeKey(), []byte(payload))
		return err
	})
}

func runTypedGet(ctx context.Context, e *env) (*Run, error) {
	for first := 0; first < readKeys; first += preloadBatch {
		txn := e.client(0).Txn()
		for i := range preloadBatch {
			txn.Then(client.OpPut(readKey(first+i), []byte(payload)))
		}
		if _, err := txn.Commit(ctx); err != nil {
			return nil, fmt.Errorf("preload: %w", err)
		}
	}
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		_, err := e.client(worker).GetOne(ctx, readKey(rand.IntN(readKeys)))
		return err
	})
}

func runTypedCompareAndSwap(ctx context.Context, e *env) (*Run, error) {
	revs := make([]client.Revision, e.workers) // each element is owned by its worker
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		key := ownKey(worker)
		res, err := e.client(worker).Txn().
			If(client.ModRevision(key).Equal(revs[worker])).
			Then(client.OpPut(key, []byte(payload))).
			Else(client.OpGet(key)).
			Commit(ctx)
		if err != nil {
			return err
		}
		if res.Succeeded {
			revs[worker] = res.Revision
			return nil
		}
		kvs := res.Results[0].Get.KVs
		if len(kvs) != 1 {
			return errors.New("compare-and-swap failed on an absent key")
		}
		// An earlier run on this cluster left the key: adopt its revision.
		revs[worker] = kvs[0].ModRevision
		return nil
	})
}

func runTypedLease(ctx context.Context, e *env) (*Run, error) {
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		granted, err := e.client(worker).Grant(ctx, leaseTTL*time.Second)
		if err != nil {
			return err
		}
		return e.client(worker).Revoke(ctx, granted.ID)
	})
}
