package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/election"
)

// fleet is what the workers share: a clock that all of them have, and somebody
// who harms them.
type fleet struct {
	start   time.Time
	harm    chan string // what happens to whoever runs the next tick
	refused atomic.Int64

	mu  sync.Mutex // protects out
	out io.Writer
}

func (f *fleet) say(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(f.out, "%6.2f s  %s\n", time.Since(f.start).Seconds(), fmt.Sprintf(format, args...))
}

// work stands for the election until ctx ends, and runs ticks whenever it leads.
func (f *fleet) work(ctx context.Context, name string, endpoints []string) error {
	c, err := client.New(client.Config{Endpoints: endpoints})
	if err != nil {
		return err
	}
	defer c.Close()
	w := &worker{fleet: f, name: name, client: c}
	err = election.New[string](c, electionOf).Run(ctx, name, w.lead)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// worker is one of the fleet.
type worker struct {
	fleet  *fleet
	name   string
	client *client.Client
}

// lead runs the ticks that are due, beginning after the last one that was run,
// whoever ran it.
func (w *worker) lead(ctx context.Context, l *election.Leadership[string]) error {
	w.fleet.say("  %s leads, in term %d", w.name, l.Term())
	for {
		tick, err := w.next(ctx)
		if err != nil {
			return err
		}
		if tick > ticks {
			<-ctx.Done()
			return nil
		}
		due := time.NewTimer(time.Until(w.fleet.start.Add(time.Duration(tick) * interval)))
		select {
		case <-due.C: // at once for one that is late
		case <-ctx.Done():
			due.Stop()
			return nil
		}
		select {
		case <-w.fleet.harm:
			if err := w.sleepThrough(ctx, l); err != nil {
				return err
			}
		default:
		}
		if err := w.run(ctx, l, tick); err != nil {
			return err
		}
	}
}

// next returns the tick after the last one that was run.
func (w *worker) next(ctx context.Context) (int, error) {
	kv, err := w.client.GetOne(ctx, lastKey)
	if errors.Is(err, client.ErrNotFound) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	last, err := strconv.Atoi(string(kv.Value))
	return last + 1, err
}

// run does what the tick is for, which here is to write down who ran it. The
// transaction is executed in our term only, and only if the tick before is the
// last one. So one whose answer is lost can be tried again, or left to the
// loop: it was run or it was not, and the store knows.
func (w *worker) run(ctx context.Context, l *election.Leadership[string], tick int) error {
	last := client.Value(lastKey).Equal([]byte(strconv.Itoa(tick - 1)))
	if tick == 1 {
		last = client.Missing(lastKey)
	}
	// The context of a leader who has been replaced has ended. Others may not
	// look at theirs in time: they are refused all the same.
	res, err := l.Txn().If(last).Then(
		client.OpPut(lastKey, []byte(strconv.Itoa(tick))),
		client.OpPut(runKey(tick), fmt.Appendf(nil, "%d %s", l.Term(), w.name)),
	).Commit(context.WithoutCancel(ctx))
	switch {
	case errors.Is(err, election.ErrLost):
		w.fleet.refused.Add(1)
		w.fleet.say("  %s is refused: %v", w.name, err)
		return err
	case err != nil && !errors.Is(err, client.ErrUncertain):
		return err
	case err == nil && !res.Succeeded:
		w.fleet.say("  tick %d was run already", tick)
	}
	return nil
}

// sleepThrough is a pause in which the worker's key is deleted and another one
// is elected, of which this one notices nothing.
func (w *worker) sleepThrough(ctx context.Context, l *election.Leadership[string]) error {
	ctx = context.WithoutCancel(ctx)
	if _, err := w.client.Delete(ctx, l.Key()); err != nil {
		return err
	}
	for leader, err := range election.New[string](w.client, electionOf).Observe(ctx) {
		if err != nil {
			return err
		}
		if !leader.Vacant && leader.Term != l.Term() {
			break
		}
	}
	return nil
}

func runKey(tick int) string { return fmt.Sprintf("%s%04d", runsPrefix, tick) }
