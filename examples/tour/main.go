// Tour shows on one machine what Latchkey is for. It starts a cluster of three
// members in this process, with real sockets and real disks. Four workers
// contend for one lock, and count up a number in a store that only the lock
// protects. Then the leader is killed, a worker loses its network while it
// holds the lock, and the dead member comes back. At the end the tour checks
// what the store and the members have, and exits with 1 if anything is wrong.
//
//	go run ./examples/tour
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// tourTimeout bounds the whole tour; it needs a quarter of it.
const tourTimeout = 20 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeoutCause(ctx, tourTimeout, errTooSlow)
	err := run(ctx, os.Stdout)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tour:", err)
		os.Exit(1)
	}
}

// tour is what the chapters share.
type tour struct {
	*narrator
	cluster *cluster
	store   *store
	held    *tenures
	killed  int // the member that was killed
}

var (
	errWrong   = errors.New("something went wrong, see above")
	errTooSlow = fmt.Errorf("not over after %s", tourTimeout)
)

func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "latchkey-tour-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	t := &tour{narrator: newNarrator(out), store: newStore(), held: &tenures{}}
	t.chapter("Three members")
	t.cluster, err = startCluster(ctx, dir, "red", "green", "blue")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.cluster.stop()) }()
	t.say("red, green and blue are a cluster; each has its log on disk, below %s", dir)

	working, home := context.WithCancel(ctx)
	var workers sync.WaitGroup
	errs := make(chan error, len(names)) // each worker sends once
	for _, name := range names {
		workers.Go(func() { errs <- t.worker(working, name) })
	}
	err = t.story(ctx)
	home()
	workers.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	if err != nil {
		return err
	}
	return t.verdict(ctx)
}

// names are the workers' names.
var names = []string{"ann", "bob", "cid", "dot"}

func (t *tour) story(ctx context.Context) error {
	for _, chapter := range []func(context.Context) error{t.contend, t.loseLeader, t.loseNetwork, t.comeBack} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

// writesPerChapter is how much of the workers' progress a chapter waits for.
const writesPerChapter = 30

// progress returns once the store has taken as many writes more.
func (t *tour) progress(ctx context.Context) error {
	_, journal := t.store.snapshot()
	return t.store.waitWrites(ctx, len(journal)+writesPerChapter)
}

func (t *tour) contend(ctx context.Context) error {
	t.chapter("One lock, four workers")
	t.say("%s all want to count; only the holder of the lock may", strings.Join(names, ", "))
	return t.progress(ctx)
}

func (t *tour) loseLeader(ctx context.Context) error {
	t.chapter("The leader dies")
	leader, err := t.cluster.leader(ctx, 0)
	if err != nil {
		return err
	}
	t.killed = leader
	name := t.cluster.configs[leader].Name
	t.say("%s leads, and is killed: no goodbye, nothing flushed", name)
	died := time.Now()
	t.cluster.kill(leader)
	if err := t.progress(ctx); err != nil {
		return err
	}
	successor, err := t.cluster.leader(ctx, (leader+1)%len(t.cluster.members))
	if err != nil {
		return err
	}
	t.say("%s leads now; the longest wait for a write was %s", t.cluster.configs[successor].Name,
		t.longestGap(died).Round(time.Millisecond))
	return nil
}

// longestGap is the longest time without a write, since the given one.
func (t *tour) longestGap(since time.Time) time.Duration {
	var longest time.Duration
	_, journal := t.store.snapshot()
	for _, e := range journal {
		if e.at.After(since) {
			longest = max(longest, e.at.Sub(since))
			since = e.at
		}
	}
	return longest
}

func (t *tour) loseNetwork(ctx context.Context) (err error) {
	t.chapter("A holder disappears")
	eve, err := t.newSleeper(ctx, "eve")
	if err != nil {
		return err
	}
	// Her network is gone, so nobody hears how she leaves.
	defer func() { _ = eve.c.Close() }()
	mine := tenure{worker: eve.name, token: eve.held.Token(), from: time.Now()}
	eve.wire.cut()
	t.say("eve has the lock, with token %d, and her network fails; the others wait", eve.held.Token())
	select {
	case <-eve.held.Context().Done():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	mine.to = trustedUntil(eve.held)
	t.held.add(mine)
	t.say("eve's handle tells her that the lock is lost: %v", context.Cause(eve.held.Context()))
	if err := t.progress(ctx); err != nil {
		return err
	}
	t.say("eve does not listen, and writes %d with her token", eve.count+1)
	err = t.store.write(eve.name, eve.held.Token(), eve.count+1)
	if !errors.Is(err, fence.ErrStale) {
		return fmt.Errorf("the store should have refused eve's write, but said: %v", err)
	}
	t.say("%v", err)
	return nil
}

// trustedUntil is when a handle that is lost now could be relied on for the
// last time: when we hear of it, or a little earlier, when the session that was
// not renewed had run out.
func trustedUntil(h *lock.Held) time.Time {
	now := time.Now()
	var session *client.SessionError
	if errors.As(context.Cause(h.Context()), &session) {
		if end := session.Renewed.Add(sleeperTTL); end.Before(now) {
			return end
		}
	}
	return now
}

func (t *tour) comeBack(ctx context.Context) error {
	t.chapter("The dead member returns")
	if err := t.cluster.start(ctx, t.killed); err != nil {
		return err
	}
	if err := t.cluster.joined(ctx, t.killed); err != nil {
		return err
	}
	t.say("%s has read its log and joined the others", t.cluster.configs[t.killed].Name)
	return t.progress(ctx)
}

func (t *tour) verdict(ctx context.Context) error {
	t.chapter("Was it right?")
	value, journal := t.store.snapshot()
	held := t.held.snapshot()
	checks := judge(value, journal, held)
	records, err := t.checkRecords(ctx, held)
	if err != nil {
		return err
	}
	good := true
	for _, c := range append(checks, records) {
		if len(c.faults) == 0 {
			t.say("%s: %s.", c.name, c.detail)
			continue
		}
		good = false
		for _, fault := range c.faults {
			t.say("NOT TRUE that %q: %s", strings.ToLower(c.name), fault)
		}
	}
	if !good {
		return errWrong
	}
	return nil
}

// checkRecords asks each member, alone, for the records that the workers were
// told are written.
func (t *tour) checkRecords(ctx context.Context, held []tenure) (check, error) {
	result := check{name: "Every member has every record"}
	var wanted int
	for i, endpoint := range t.cluster.endpoints() {
		c, err := client.New(client.Config{Endpoints: []string{endpoint}})
		if err != nil {
			return result, err
		}
		res, err := c.Get(ctx, recordPrefix, client.Prefix())
		if err = errors.Join(err, c.Close()); err != nil {
			return result, fmt.Errorf("read the records of %s: %w", t.cluster.configs[i].Name, err)
		}
		found := make(map[string]string)
		for _, kv := range res.KVs {
			found[kv.Key] = string(kv.Value)
		}
		wanted = 0
		for _, one := range held {
			if !one.recorded {
				continue
			}
			wanted++
			if by := found[recordKey(one.token)]; by != one.worker {
				result.faultf("%s has %q, not %q, under token %d", t.cluster.configs[i].Name, by, one.worker, one.token)
			}
		}
	}
	result.detail = fmt.Sprintf("%d were acknowledged, three have them all", wanted)
	return result, nil
}
