// Chat is services that talk over topics, on a member in this process: rooms are
// topics, whoever comes late reads what was said, a moderator's verdict commits with
// the message that it is about, and an archive handles each message once although
// its process dies in the middle. It checks itself and fails if anything was not as
// promised.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
	"github.com/latchkey-go/latchkey/server"
)

// runTimeout bounds the whole program.
const runTimeout = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// line is what somebody says.
type line struct{ From, Text string }

// chat is the members of the play. It is used by one goroutine.
type chat struct {
	ctx      context.Context
	out      io.Writer
	endpoint string
	clients  []*client.Client
}

func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "chat-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// A socket that is bound now tells the others where the member will be.
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	endpoint := socket.Addr().String()
	cfg := server.Config{DataDir: dir, ListenClientURLs: []string{"http://" + endpoint}, ListenPeerURLs: []string{"http://127.0.0.1:0"}}
	cfg.Sockets.Client = socket
	s, err := server.Start(ctx, cfg)
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	defer func() { err = errors.Join(err, s.Stop(context.WithoutCancel(ctx))) }()
	c := &chat{ctx: ctx, out: out, endpoint: endpoint}
	defer func() {
		for _, cl := range c.clients {
			err = errors.Join(err, cl.Close())
		}
	}()
	for _, scene := range []func(*chat) error{live, late, moderated, archived} {
		if err := scene(c); err != nil {
			return err
		}
	}
	c.say("Everything was as promised.")
	return nil
}

func (c *chat) say(format string, args ...any) { fmt.Fprintf(c.out, format+"\n", args...) }

// process returns a client of its own, as another process would have.
func (c *chat) process() (*client.Client, error) {
	cl, err := client.New(client.Config{Endpoints: []string{c.endpoint}})
	if err == nil {
		c.clients = append(c.clients, cl)
	}
	return cl, err
}

// room opens a room from a process of its own.
func (c *chat) room(name string) (*pubsub.Topic[line], *client.Client, error) {
	cl, err := c.process()
	if err != nil {
		return nil, nil, err
	}
	t, err := pubsub.Open[line](c.ctx, cl, "chat/"+name, pubsub.MaxAge(24*time.Hour), pubsub.WithPartitions(4))
	return t, cl, err
}

// live: two talk, and both see the same order.
func live(c *chat) error {
	c.say("Ann and Ben talk in the kitchen; each of them sees both.")
	heard := make(chan []string, 2)
	failed := make(chan error, 4)
	for _, name := range []string{"Ann", "Ben"} {
		room, _, err := c.room("kitchen")
		if err != nil {
			return err
		}
		go func() {
			var lines []string
			for m, err := range room.Subscribe(c.ctx, pubsub.Earliest()) {
				if err != nil {
					failed <- err
					return
				}
				if lines = append(lines, m.Value.From+": "+m.Value.Text); len(lines) == 6 {
					break
				}
			}
			heard <- lines
		}()
		go func() {
			for _, text := range []string{"hello", "is there soup?", "bye"} {
				if _, err := room.Publish(c.ctx, line{name, text}, pubsub.Key(name)); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	var first []string
	for range 2 {
		select {
		case lines := <-heard:
			if first != nil && !slices.Equal(first, lines) {
				return fmt.Errorf("they saw different orders: %v and %v", first, lines)
			}
			first = lines
		case err := <-failed:
			return err
		}
	}
	for _, text := range first {
		c.say("    %s", text)
	}
	return nil
}

// late: who comes later reads it all, or goes on where he was.
func late(c *chat) error {
	room, _, err := c.room("kitchen")
	if err != nil {
		return err
	}
	read := func(n int) (texts []string, err error) {
		for m, err := range room.Subscribe(c.ctx, pubsub.Durable("cleo", pubsub.Earliest())) {
			if err != nil {
				return nil, err
			}
			texts = append(texts, m.Value.Text)
			if len(texts) == n {
				m.Done()
				break
			}
		}
		return texts, nil
	}
	before, err := read(4)
	if err != nil {
		return err
	}
	c.say("Cleo comes late, reads the first four lines, and leaves.")
	after, err := read(2)
	if err != nil {
		return err
	}
	c.say("She comes back, and goes on with the fifth: %q.", after[0])
	if all := strings.Join(append(before, after...), " "); strings.Count(all, "hello") != 2 || strings.Count(all, "bye") != 2 {
		return fmt.Errorf("she has read %q", all)
	}
	return nil
}

// moderated: what is said in any room is seen in one order, and a verdict commits
// with the state that it changes.
func moderated(c *chat) error {
	hall, cl, err := c.room("hall")
	if err != nil {
		return err
	}
	if _, err := hall.Publish(c.ctx, line{"Dan", "buy my things!"}); err != nil {
		return err
	}
	done := errors.New("done")
	for m, err := range pubsub.Match[line](c.ctx, cl, "chat/*", pubsub.Earliest()) {
		if err != nil {
			return err
		}
		if !strings.Contains(m.Value.Text, "buy") {
			continue
		}
		err := cl.Update(c.ctx, func(tx *client.Tx) error {
			if _, err := tx.Get("banned/" + m.Value.From); !errors.Is(err, client.ErrNotFound) {
				return errors.Join(done, err)
			}
			tx.Put("banned/"+m.Value.From, []byte(m.Offset.String()))
			return hall.PublishTx(tx, line{"moderator", m.Value.From + " may not talk here any more"})
		})
		if err != nil {
			return err
		}
		c.say("The moderator reads all rooms, and bans %s in the transaction that says so in the %s.", m.Value.From, m.Topic)
		return nil
	}
	return errors.New("the moderator saw nothing")
}

// archived: a group handles each line once, although its first member dies.
func archived(c *chat) error {
	room, cl, err := c.room("kitchen")
	if err != nil {
		return err
	}
	const lines = 6
	count := func(die func()) func(context.Context, *pubsub.Msg[line]) error {
		n := 0
		return func(ctx context.Context, m *pubsub.Msg[line]) error {
			if n++; n == 3 && die != nil {
				die()
				return ctx.Err()
			}
			return m.Tx(ctx, func(tx *client.Tx) error {
				kv, err := tx.Get("archive/" + m.Offset.String())
				if !errors.Is(err, client.ErrNotFound) {
					return fmt.Errorf("%s is there already: %w", kv.Key, err)
				}
				tx.Put("archive/"+m.Offset.String(), []byte(m.Value.Text))
				return nil
			})
		}
	}
	dead := make(chan error, 1)
	err = room.Group("archive").Run(c.ctx, count(func() { dead <- cl.Close() }), pubsub.Concurrency(1))
	if err := <-dead; err != nil {
		return err
	}
	c.say("The archive's first process dies in the middle (%v).", errors.Is(err, client.ErrClosed))
	room, cl, err = c.room("kitchen")
	if err != nil {
		return err
	}
	working, stop := context.WithCancel(c.ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- room.Group("archive").Run(working, count(nil), pubsub.Concurrency(1)) }()
	res, err := cl.Get(c.ctx, "archive/", client.Prefix())
	for err == nil && len(res.KVs) < lines {
		for _, werr := range cl.Watch(c.ctx, "archive/", client.Prefix(), client.FromRevision(res.Revision+1)) {
			err = werr
			break
		}
		if err == nil {
			res, err = cl.Get(c.ctx, "archive/", client.Prefix())
		}
	}
	stop()
	if err := errors.Join(err, unless(<-ended, context.Canceled)); err != nil {
		return err
	}
	for _, kv := range res.KVs {
		if kv.Version != 1 {
			return fmt.Errorf("%s was written %d times", kv.Key, kv.Version)
		}
	}
	c.say("Its second one goes on: %d lines are archived, each of them once.", len(res.KVs))
	return nil
}

// unless returns err, if it is not the one that is expected.
func unless(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
