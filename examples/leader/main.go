// Leader is a microservice of three instances, of which one serves at a time.
// They elect it on a member that runs in this process. A gateway finds out who
// leads by observing the election, and sends requests there. Then the leader is
// asked to hand over for an upgrade, and the next one loses its network. At the
// end the example checks what was served by whom, and exits with 1 if anything is
// wrong.
//
//	go run ./examples/leader
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/election"
	"github.com/latchkey-go/latchkey/server"
)

const (
	timeout   = 20 * time.Second
	instances = 3
	requests  = 10 // at least, in each part of the story
	pace      = 5 * time.Millisecond
	// sessionTTL is how long the others wait for one that is cut off. It is short,
	// as somebody watches.
	sessionTTL = 2 * time.Second
	electionOf = "orders/leader"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	err := run(ctx, os.Stdout)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "leader:", err)
		os.Exit(1)
	}
}

// run starts everything, tells the story and checks how it ends.
func run(ctx context.Context, out io.Writer) (err error) {
	endpoints, stop, err := startMember(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	s := &story{out: out, start: time.Now(), services: make(map[string]*instance)}

	c, err := client.New(client.Config{Endpoints: endpoints})
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range instances {
		in, err := newInstance(s, fmt.Sprintf("instance-%d", i+1), endpoints)
		if err != nil {
			return err
		}
		defer in.client.Close()
		s.services[in.name] = in
	}
	e := election.New[string](c, electionOf)
	g := &gateway{story: s, leaders: make(chan election.Leader[string])}
	running, finish := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, in := range s.services {
		wg.Go(func() { in.run(running) })
	}
	wg.Go(func() { g.observe(running, e) })
	err = awaitLine(ctx, c, instances)
	if err == nil {
		err = s.tell(ctx, g, e)
	}
	finish()
	wg.Wait()
	if err != nil {
		return err
	}
	return s.verdict(g.next)
}

// awaitLine waits until there are n candidates.
func awaitLine(ctx context.Context, c *client.Client, n int) error {
	for {
		res, err := c.Get(ctx, electionOf+"/", client.Prefix(), client.CountOnly())
		if err != nil || res.Count == int64(n) {
			return err
		}
		for _, err := range c.Watch(ctx, electionOf+"/", client.Prefix(), client.FromRevision(res.Revision+1)) {
			if err != nil {
				return err
			}
			break
		}
	}
}

// startMember starts a server in this process.
func startMember(ctx context.Context) (endpoints []string, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "latchkey-leader-")
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

// tell is the story, part by part.
func (s *story) tell(ctx context.Context, g *gateway, e *election.Election[string]) error {
	first, err := g.send(ctx, requests, 0)
	if err != nil {
		return err
	}
	s.say("%s has served %d requests in term %d", first.Value, requests, first.Term)

	line, err := e.Candidates(ctx)
	if err != nil {
		return err
	}
	to := line[len(line)-1].ID
	s.say("The operator asks %s to hand over to %s.", first.ID, to)
	if err := e.RequestHandOver(ctx, to, "upgrade"); err != nil {
		return err
	}
	second, err := g.send(ctx, requests, first.Term)
	if err != nil {
		return err
	}
	if second.ID != to {
		return fmt.Errorf("%s was to lead, and it is %s", to, second.ID)
	}
	s.say("%s has served %d requests in term %d", second.Value, requests, second.Term)

	s.say("The network of %s is cut. It serves until its session can not be trusted any more.", second.ID)
	restore := s.services[second.Value].wire.cut()
	defer restore()
	third, err := g.send(ctx, requests, second.Term)
	if err != nil {
		return err
	}
	s.say("%s has served %d requests in term %d", third.Value, requests, third.Term)
	return nil
}
