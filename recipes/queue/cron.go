package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

const (
	// cronSpread is over how long the processes that have an entry spread their
	// attempts to fire a tick: most of them see that it was fired.
	cronSpread = 100 * time.Millisecond
	cronsMax   = 1000
)

// Cron is an entry that enqueues a job at each tick of a schedule.
type Cron[T any] struct {
	Name     string // the same in all processes; without "/"
	Schedule string // see ParseSchedule
	// Job makes the value for a tick.
	Job  func(tick time.Time) T
	Opts []EnqueueOption // Delay, At and Unique have no effect
}

// Cron fires entries until ctx ends, and returns nil then. Any number of processes
// may run it for the same entries: each tick fires once, if one of them is alive at
// its time, and is not made up for otherwise. The job's header "cron" is the name of
// its entry, "tick" its time. An entry that exists in the store with a later tick
// does not fire earlier ones.
//
// Errors: [ErrOption], those of schedules, and those of the client that waiting
// does not cure.
func (q *Queue[T]) Cron(ctx context.Context, entries ...Cron[T]) error {
	var crons []*cron
	for _, e := range entries {
		s, err := ParseSchedule(e.Schedule)
		if err != nil {
			return fmt.Errorf("cron entry %q: %w", e.Name, err)
		}
		if e.Name == "" || strings.Contains(e.Name, "/") || e.Job == nil || len(entries) > cronsMax {
			return fmt.Errorf("cron entry %q: %w", e.Name, ErrOption)
		}
		crons = append(crons, &cron{name: e.Name, schedule: s, opts: newEnqueueOptions(e.Opts), make: func(tick time.Time) ([]byte, error) {
			return q.encode(e.Job(tick))
		}})
	}
	now := time.Now()
	for _, c := range crons {
		if err := q.beginCron(ctx, c, now); err != nil {
			return fmt.Errorf("cron entry %q: %w", c.name, err)
		}
		c.next = c.schedule.Next(now)
	}
	return q.runCrons(ctx, crons)
}

// cron is an entry at work.
type cron struct {
	name     string
	schedule *Schedule
	opts     enqueueOptions
	make     func(tick time.Time) ([]byte, error)
	next     time.Time
}

// beginCron makes the entry's key, if there is none: nothing before now fires.
func (q *core) beginCron(ctx context.Context, c *cron, now time.Time) error {
	key := shard.CronKey(c.name)
	for n := 0; ; n++ {
		_, err := q.client.Txn().If(client.Missing(key)).
			Then(client.OpPut(key, []byte(shard.Bound(now.UnixMilli())))).Commit(ctx)
		if err == nil || !retry.Temporary(err) || !pause(ctx, n) {
			return err // twice does no harm
		}
	}
}

func (q *core) runCrons(ctx context.Context, crons []*cron) error {
	for len(crons) > 0 {
		first := crons[0]
		for _, c := range crons {
			if c.next.Before(first.next) {
				first = c
			}
		}
		if !sleep(ctx, time.Until(first.next)+rand.N(cronSpread)) {
			return nil
		}
		if err := q.fire(ctx, first); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("cron entry %q: %w", first.name, err)
		}
		// Ticks that passed meanwhile are not made up for.
		first.next = first.schedule.Next(later(first.next, time.Now().Add(-cronSpread)))
	}
	<-ctx.Done()
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// fire enqueues the job of a tick, unless that was done.
func (q *core) fire(ctx context.Context, c *cron) error {
	tick := c.next.UnixMilli()
	for n := 0; ; n++ {
		kv, err := q.client.GetOne(ctx, shard.CronKey(c.name))
		if err == nil && string(kv.Value) >= shard.Bound(tick) {
			return nil
		}
		if err == nil || errors.Is(err, client.ErrNotFound) {
			break
		}
		if !retry.Temporary(err) || !pause(ctx, n) {
			return err
		}
	}
	payload, err := c.make(c.next)
	if err != nil {
		return err
	}
	r := &request{payload: payload, opts: c.opts, spread: rand.IntN(shardsMax)}
	r.opts.unique, r.opts.delay, r.opts.due = "", 0, c.next
	r.opts.header = map[string]string{"cron": c.name, "tick": c.next.UTC().Format(time.RFC3339)}
	for k, v := range c.opts.header {
		r.opts.header[k] = v
	}
	if err := q.check(r); err != nil {
		return err
	}
	for {
		conf, err := q.load(ctx)
		if err != nil {
			return err
		}
		d, err := q.draft(ctx, r, conf)
		if err != nil {
			return err
		}
		a, _, err := q.settle(ctx, shard.Tick(c.name, tick, d, conf.mod))
		if err != nil {
			return err
		}
		// Not executed: it was fired, unless the configuration has changed.
		if a.Succeeded || len(a.Results[1].KVs) == 0 || a.Results[1].KVs[0].Mod == conf.mod {
			return nil
		}
	}
}

// Crons returns the entries that were ever fired or begun, with their last ticks.
func (q *core) Crons(ctx context.Context) (map[string]time.Time, error) {
	out := make(map[string]time.Time)
	var rev client.Revision
	for kv, err := range q.pages(ctx, "k/", &rev) {
		if err != nil {
			return nil, q.wrap("crons of", err)
		}
		out[shard.Record(kv.Key)] = time.UnixMilli(shard.TickOf(kv.Value))
	}
	return out, nil
}

// ForgetCron removes what the store knows of an entry that is no longer used.
func (q *core) ForgetCron(ctx context.Context, name string) error {
	_, err := q.client.Delete(ctx, shard.CronKey(name))
	return q.wrap("forget a cron entry of", err)
}
