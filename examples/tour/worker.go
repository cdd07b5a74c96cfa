package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// The names that the workers use in the cluster.
const (
	lockName     = "tour/number"
	recordPrefix = "tour/record/"
)

// A worker counts a few times while it holds the lock, and takes its time for
// each, so that two at once would be in each other's way.
const (
	countsPerTenure = 3
	thinking        = 8 * time.Millisecond
)

// worker takes the lock again and again until ctx ends.
func (t *tour) worker(ctx context.Context, name string) error {
	c, err := client.New(client.Config{Endpoints: t.cluster.endpoints()})
	if err != nil {
		return err
	}
	l := lock.New(c, lockName)
	for ctx.Err() == nil {
		err := l.Do(ctx, func(ctx context.Context, h *lock.Held) error { return t.work(ctx, name, h) })
		if err != nil && ctx.Err() == nil {
			t.say("%s has to try again: %v", name, err)
		}
	}
	return c.Close()
}

// work is what a worker does while it holds the lock. It stops when ctx ends,
// which happens when the lock is lost.
func (t *tour) work(ctx context.Context, name string, h *lock.Held) error {
	mine := tenure{worker: name, token: h.Token(), from: time.Now()}
	defer func() {
		mine.to = time.Now()
		t.held.add(mine)
	}()
	first := t.store.read()
	for range countsPerTenure {
		if err := t.count(ctx, name, h.Token()); err != nil {
			return err
		}
		mine.writes++
	}
	// This record is in the cluster only if the lock is still held when it is
	// written: the two are one transaction.
	_, err := h.Txn().Then(client.OpPut(recordKey(h.Token()), []byte(name))).Commit(ctx)
	mine.recorded = err == nil
	t.mention("%s held the lock with token %d and counted from %d to %d", name, h.Token(), first, first+mine.writes)
	return err
}

// count makes the number in the store one larger, in three steps that only a
// lock can hold together.
func (t *tour) count(ctx context.Context, name string, token fence.Token) error {
	n := t.store.read()
	if err := pause(ctx, thinking); err != nil {
		return err
	}
	return t.store.write(name, token, n+1)
}

func recordKey(token fence.Token) string { return fmt.Sprintf("%s%020d", recordPrefix, token) }

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sleeper takes the lock, loses its network, and does not care.
type sleeper struct {
	name  string
	wire  *wire
	c     *client.Client
	held  *lock.Held
	count int // what it read while it held the lock
}

// sleeperTTL is how long the others have to wait for a holder that is gone.
const sleeperTTL = 2 * time.Second

func (t *tour) newSleeper(ctx context.Context, name string) (*sleeper, error) {
	s := &sleeper{name: name, wire: newWire()}
	var err error
	s.c, err = client.New(client.Config{
		Endpoints: t.cluster.endpoints(), SessionTTL: sleeperTTL, Dialer: s.wire.dial,
	})
	if err != nil {
		return nil, err
	}
	if s.held, err = lock.New(s.c, lockName).Acquire(ctx); err != nil {
		return nil, errors.Join(err, s.c.Close())
	}
	s.count = t.store.read()
	return s, nil
}
