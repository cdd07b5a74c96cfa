// Cron runs a job at every tick in one place of a fleet, once for each tick,
// whatever happens to the one who runs it. Four workers elect a leader on a member
// that runs in this process; the leader runs the ticks. Meanwhile leaders are
// killed, cut off, and replaced while they sleep through it. What a tick has done
// is written in a transaction that holds only during the leader's term, and only
// if the tick before was the last: so a tick is never run twice and never left
// out, and one who was replaced can do no harm. The example checks that, and
// exits with 1 if anything is wrong.
//
//	go run ./examples/cron
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/election"
	"github.com/latchkey-go/latchkey/server"
)

const (
	timeout = 20 * time.Second
	workers = 4
	ticks   = 60
	// interval is the time between two ticks; real ones would be hours.
	interval = 50 * time.Millisecond

	electionOf = "cron/leader"
	lastKey    = "cron/last" // the last tick that was run
	runsPrefix = "cron/runs/"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	err := run(ctx, os.Stdout)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cron:", err)
		os.Exit(1)
	}
}

// run starts the fleet, harms it, and checks what it has done.
func run(ctx context.Context, out io.Writer) (err error) {
	endpoints, stop, err := startMember(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	c, err := client.New(client.Config{Endpoints: endpoints})
	if err != nil {
		return err
	}
	defer c.Close()

	f := &fleet{start: time.Now(), out: out, harm: make(chan string, 1)}
	running, finish := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer finish()
	errs := make([]error, workers)
	for i := range workers {
		wg.Go(func() { errs[i] = f.work(running, fmt.Sprintf("worker-%d", i+1), endpoints) })
	}
	if err := f.harass(ctx, c); err != nil {
		return err
	}
	finish()
	wg.Wait()
	return errors.Join(errors.Join(errs...), f.verdict(ctx, c))
}

// startMember starts a server in this process.
func startMember(ctx context.Context) (endpoints []string, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "latchkey-cron-")
	if err != nil {
		return nil, nil, err
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	address := socket.Addr().String()
	m, err := server.Start(ctx, server.Config{
		DataDir: dir, Sockets: server.Sockets{Client: socket},
		ListenClientURLs: []string{"http://" + address}, ListenPeerURLs: []string{"http://127.0.0.1:0"},
	})
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return []string{address}, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		return errors.Join(m.Stop(ctx), os.RemoveAll(dir))
	}, nil
}

// harass watches the ticks, and harms the leader at some of them.
func (f *fleet) harass(ctx context.Context, c *client.Client) error {
	e := election.New[string](c, electionOf)
	for ev, err := range c.Watch(ctx, lastKey, client.FromRevision(1)) {
		if err != nil {
			return err
		}
		tick, err := strconv.Atoi(string(ev.KV.Value))
		if err != nil {
			return err
		}
		switch tick {
		case 10:
			f.say("The leader's lease is revoked, as if its process had died.")
			leader, err := e.Leader(ctx)
			if err != nil {
				return err
			}
			if err := c.Revoke(ctx, leader.Lease); err != nil {
				return err
			}
		case 20:
			f.say("The leader is asked to step down.")
			if err := e.RequestStepDown(ctx, "reboot"); err != nil {
				return err
			}
		case 30, 45:
			f.say("The next tick takes so long that its runner is replaced meanwhile.")
			f.harm <- "sleep"
		case ticks:
			return nil
		}
	}
	return ctx.Err()
}

// verdict checks that each tick was run once, in order, and in terms that grow.
func (f *fleet) verdict(ctx context.Context, c *client.Client) error {
	res, err := c.Get(ctx, runsPrefix, client.Prefix())
	if err != nil {
		return err
	}
	if len(res.KVs) != ticks {
		return fmt.Errorf("%d of %d ticks were run", len(res.KVs), ticks)
	}
	terms, last := 0, uint64(0)
	for i, kv := range res.KVs {
		if kv.Key != runKey(i+1) || kv.Version != 1 {
			return fmt.Errorf("tick %d: %s was written %d times", i+1, kv.Key, kv.Version)
		}
		term, err := strconv.ParseUint(strings.Fields(string(kv.Value))[0], 10, 64)
		if err != nil || term < last {
			return fmt.Errorf("tick %d was run in term %d, after term %d: %w", i+1, term, last, err)
		}
		if term > last {
			terms++
		}
		last = term
	}
	refused := f.refused.Load()
	if terms < 4 || refused < 2 {
		return fmt.Errorf("too little happened: %d terms, %d runs refused", terms, refused)
	}
	f.say("All %d ticks were run once, in %d terms. %d runs of leaders who had been replaced were refused.", ticks, terms, refused)
	return nil
}
