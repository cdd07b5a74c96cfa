// Barrier starts a job on several machines at once. It starts a member of Latchkey in this
// process, and four workers with a session each, as if each ran on a machine of its own.
// They share out some numbers to add up. A double barrier sees to it that nobody begins
// before all are there, and that nobody takes the result before all have finished.
//
// In the second round one of the machines dies in the middle of its work. The others are
// told, throw away what they have, and do the round again with a machine that takes its
// place. At the end the program checks the sums, and exits with 1 if one is wrong.
//
//	go run ./examples/barrier
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/barrier"
	"github.com/latchkey-go/latchkey/recipes/counter"
	"github.com/latchkey-go/latchkey/server"
)

const (
	// jobTimeout bounds the whole program; it needs a fraction of it.
	jobTimeout = 20 * time.Second
	workers    = 4
	// numbers from 1 to this are added up in each round.
	numbers = 1000
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	err := run(ctx, os.Stdout)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "barrier:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "latchkey-barrier-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := server.Start(ctx, server.Config{
		DataDir:          dir,
		ListenClientURLs: []string{"http://127.0.0.1:0"},
		ListenPeerURLs:   []string{"http://127.0.0.1:0"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop(context.WithoutCancel(ctx))) }()

	j := &job{out: out, connect: func() *client.Client { return s.Client() }, sum: counter.NewInt64(s.Client(), "sum")}
	for round := 1; round <= 2; round++ {
		j.say("round %d", round)
		if err := j.round(ctx, round); err != nil {
			return err
		}
	}
	return j.check(ctx)
}

// job is what all workers share: the store, and somebody who tells what happens.
type job struct {
	connect func() *client.Client
	sum     *counter.Int64

	mu  sync.Mutex // protects out
	out io.Writer
}

func (j *job) say(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(j.out, format+"\n", args...)
}

// round runs the workers of one round. In the second, one of them dies, and another
// machine is there to take its place.
func (j *job) round(ctx context.Context, round int) error {
	names := []string{"ann", "bob", "cid", "dot"}
	var wg sync.WaitGroup
	errs := make([]error, workers+1)
	for i, name := range names {
		dies := round == 2 && name == "dot"
		wg.Go(func() {
			errs[i] = j.worker(ctx, round, name, dies)
			if dies {
				j.say("  %s is gone (%v); eve takes its place", name, errs[i])
				errs[i] = j.worker(ctx, round, "eve", false)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// worker does its share of a round, and does it again if the round broke.
func (j *job) worker(ctx context.Context, round int, name string, dies bool) error {
	c := j.connect()
	session, err := c.NewSession(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = session.Close(context.WithoutCancel(ctx)) }() // the dead one's is revoked already
	d := barrier.NewDouble(c, "job", workers, barrier.WithMember(name), barrier.WithSession(session))
	for {
		in, err := d.Enter(ctx)
		if errors.Is(err, barrier.ErrBroken) {
			continue // somebody was lost before we had begun
		}
		if err != nil {
			return err
		}
		at := in.Arrival()
		j.say("  %s has begun as number %d of %d", name, at.Index, at.Parties)
		if dies {
			// What the cluster does when a machine has said nothing for a TTL.
			if err := c.Revoke(ctx, session.ID()); err != nil {
				return err
			}
		}
		err = j.work(in, round)
		if left := in.Leave(ctx); err == nil {
			err = left
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, barrier.ErrBroken) || dies:
			return err
		}
		j.say("  %s is told: %v", name, err)
	}
}

// work adds up a share of the numbers. The result is written under the round's name and
// the member's index, and only while this member has not been lost; so what a broken
// attempt has left behind is overwritten by the next one, and by nobody who is late.
func (j *job) work(in *barrier.Inside, round int) error {
	at, sum := in.Arrival(), 0
	for n := at.Index + 1; n <= numbers; n += at.Parties {
		if !in.Valid() {
			return context.Cause(in.Context())
		}
		sum += n
	}
	if round == 2 && at.Generation == 1 {
		// One of us is about to die: wait until we know.
		<-in.Context().Done()
		return context.Cause(in.Context())
	}
	_, err := in.Txn().Then(client.OpPut(partKey(round, at.Index), fmt.Append(nil, sum))).Commit(in.Context())
	return err
}

func partKey(round, index int) string { return fmt.Sprintf("parts/%d/%d", round, index) }

// check adds the parts of each round up.
func (j *job) check(ctx context.Context) error {
	c := j.connect()
	for round := 1; round <= 2; round++ {
		for index := range workers {
			kv, err := c.GetOne(ctx, partKey(round, index))
			if err != nil {
				return err
			}
			var part int64
			if _, err := fmt.Sscan(string(kv.Value), &part); err != nil {
				return err
			}
			if _, err := j.sum.Add(ctx, part); err != nil {
				return err
			}
		}
	}
	got, _, err := j.sum.Get(ctx)
	if err != nil {
		return err
	}
	if want := int64(2 * numbers * (numbers + 1) / 2); got != want {
		return fmt.Errorf("the sum of both rounds is %d, and should be %d", got, want)
	}
	left, err := c.Get(ctx, "job/", client.Prefix(), client.CountOnly())
	if err != nil {
		return err
	}
	if left.Count > 0 {
		return fmt.Errorf("%d keys are left behind", left.Count)
	}
	j.say("the sum of both rounds is %d, as it should be, and nothing is left behind", got)
	return nil
}
