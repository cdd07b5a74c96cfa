// Discovery shows a gRPC service whose instances find their clients by themselves.
// Three instances register on an embedded member, a client balances its calls over
// them all the time, one instance is killed, one is drained, and one is added. At
// the end the calls are judged: none may have failed before the kill, nor after the
// time to live of the killed instance, nor because of the one that was drained.
//
//	go run ./examples/discovery
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/discovery"
	"github.com/latchkey-go/latchkey/server"
)

const (
	service = "shop/checkout"
	// ttl is how long an instance that dies stays registered.
	ttl = 2 * time.Second
	// moment is what the cluster and the machine may need beyond the TTL.
	moment = 1500 * time.Millisecond
	// showTimeout bounds the whole show; it needs a quarter of it.
	showTimeout = 20 * time.Second
)

var errWrong = errors.New("something went wrong, see above")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, showTimeout)
	err := run(ctx, os.Stdout)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "discovery:", err)
		os.Exit(1)
	}
}

// run starts the member and the client, and tells the story.
func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "latchkey-discovery-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	endpoint := socket.Addr().String()
	member, err := server.Start(ctx, server.Config{
		DataDir:          dir,
		ListenClientURLs: []string{"http://" + endpoint},
		ListenPeerURLs:   []string{"http://127.0.0.1:0"},
		Sockets:          server.Sockets{Client: socket},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, member.Stop(context.WithoutCancel(ctx))) }()

	s := &show{out: out, endpoint: endpoint, instances: make(map[string]*instance)}
	defer s.end()
	s.shopper, err = startShopper(ctx, member.Client())
	if err != nil {
		return err
	}
	defer s.shopper.close()
	return s.story(ctx, member.Client())
}

// show is what the steps of the story share. It belongs to one goroutine.
type show struct {
	out       io.Writer
	endpoint  string // of the member
	instances map[string]*instance
	shopper   *shopper
}

func (s *show) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// add starts an instance.
func (s *show) add(ctx context.Context, names ...string) error {
	for _, name := range names {
		in, err := startInstance(ctx, s.endpoint, name)
		if err != nil {
			return err
		}
		s.instances[name] = in
	}
	return nil
}

// end stops what still runs.
func (s *show) end() {
	for _, in := range s.instances {
		in.close()
	}
}

func (s *show) story(ctx context.Context, c *client.Client) error {
	if err := s.add(ctx, "ann", "bob", "cid"); err != nil {
		return err
	}
	if err := s.shopper.until(ctx, "ann", "bob", "cid"); err != nil {
		return err
	}
	s.say("ann, bob and cid are registered, and have all been called")

	watching, stop := context.WithCancel(ctx)
	defer stop()
	losses := make(chan error, 1)
	go func() { losses <- awaitLoss(watching, c, "ann") }()
	killed := time.Now()
	s.instances["ann"].kill()
	s.say("ann is killed: no goodbye, no renewals, nobody answers")
	if err := <-losses; err != nil {
		return err
	}
	lost := time.Now()
	s.say("ann is known to be lost after %v; its time to live is %v", lost.Sub(killed).Round(time.Millisecond), ttl)
	if err := s.shopper.until(ctx, "bob", "cid"); err != nil {
		return err
	}
	s.say("calls go to bob and cid")

	if err := s.instances["bob"].leave(ctx); err != nil {
		return err
	}
	s.say("bob has said goodbye, and stopped only then")
	if err := s.add(ctx, "dot"); err != nil {
		return err
	}
	if err := s.shopper.until(ctx, "cid", "dot"); err != nil {
		return err
	}
	s.say("dot has joined; calls go to cid and dot")
	return s.verdict(killed, lost)
}

// awaitLoss waits until an instance is lost: who watches could now restart it.
func awaitLoss(ctx context.Context, c *client.Client, name string) error {
	for in, err := range discovery.Losses[struct{}](ctx, c, service) {
		if err != nil {
			return err
		}
		if in.ID == name {
			return nil
		}
	}
	return ctx.Err()
}

// verdict judges the calls.
func (s *show) verdict(killed, lost time.Time) error {
	calls := s.shopper.stop()
	var before, between, after, failures int
	for _, c := range calls {
		switch {
		case c.err == nil:
			continue
		case c.at.Before(killed):
			before++
		case c.at.Before(lost):
			between++
		default:
			after++
			s.say("  a call failed: %v", c.err)
		}
		failures++
	}
	s.say("%d calls, of which failed: %d before the kill, %d until ann was lost, %d afterwards", len(calls), before, between, after)
	if before > 0 || after > 0 || lost.Sub(killed) > ttl+moment {
		return errWrong
	}
	s.say("All is well.")
	return nil
}
