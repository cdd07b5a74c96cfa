package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

// pubFlags are the flags of topic pub.
type pubFlags struct {
	key, dedup string
	headers    []string
	age        time.Duration
	bytes      int64
	messages   int64
	unlimited  bool
	partitions int
	kubernetes bool
}

func newTopicPub(a *app) *cobra.Command {
	var flags pubFlags
	c := &cobra.Command{
		Use:   "pub TOPIC [MESSAGE]",
		Short: "publish messages",
		Long: `Publish a message, or each line of standard input as one, and print the offsets. A topic that does not exist is made
when a flag says what it keeps: --max-age, --max-bytes, --max-messages or --unlimited.`,
		Example: `  latchkey topic pub orders '{"id":7}' --message-key=customer-3
  latchkey topic pub orders '{"id":7}' --max-age=24h        # makes the topic
  latchkey topic pub orders --header=source=import < orders.jsonl`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			options, err := flags.topic(c)
			if err != nil {
				return err
			}
			message, err := flags.message(len(args) == 2)
			if err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error {
				t, err := openTopic(c.Context(), cl, args[0], options...)
				if err != nil {
					return err
				}
				if len(args) == 1 {
					return a.publishLines(c.Context(), t, message)
				}
				at, err := t.Publish(c.Context(), []byte(args[1]), message...)
				if err != nil {
					return err
				}
				return a.print(offsetAnswer(at))
			})
		},
	}
	f := c.Flags()
	f.StringVar(&flags.key, "message-key", "", "the message's key: those of one key are handled in order")
	f.StringArrayVar(&flags.headers, "header", nil, "NAME=VALUE, as often as needed")
	f.StringVar(&flags.dedup, "dedup-id", "", "publish nothing if a message with this id was published in the last two minutes")
	f.DurationVar(&flags.age, "max-age", 0, "make a topic that keeps its messages that long")
	f.Int64Var(&flags.bytes, "max-bytes", 0, "make a topic that keeps so many bytes")
	f.Int64Var(&flags.messages, "max-messages", 0, "make a topic that keeps so many messages")
	f.BoolVar(&flags.unlimited, "unlimited", false, "make a topic that keeps everything")
	f.IntVar(&flags.partitions, "partitions", 0, "make a topic with so many partitions, 8 unless given")
	f.BoolVar(&flags.kubernetes, "beside-kubernetes", false, "make it in a cluster of Kubernetes as well")
	return a.addGlobals(c)
}

// topic returns the options of a topic that may have to be made.
func (p *pubFlags) topic(c *cobra.Command) ([]pubsub.Option, error) {
	var out []pubsub.Option
	given := c.Flags().Changed
	if given("max-age") {
		out = append(out, pubsub.MaxAge(p.age))
	}
	if given("max-bytes") {
		out = append(out, pubsub.MaxBytes(p.bytes))
	}
	if given("max-messages") {
		out = append(out, pubsub.MaxMessages(p.messages))
	}
	if len(out) > 0 && p.unlimited {
		return nil, usageErrorf("--unlimited contradicts a bound")
	}
	if p.unlimited {
		out = append(out, pubsub.Unlimited())
	}
	if given("partitions") {
		out = append(out, pubsub.WithPartitions(p.partitions))
	}
	if p.kubernetes {
		out = append(out, pubsub.BesideKubernetes())
	}
	return out, nil
}

// message returns the options of the messages.
func (p *pubFlags) message(one bool) ([]pubsub.PublishOption, error) {
	out := []pubsub.PublishOption{pubsub.Key(p.key)}
	for _, header := range p.headers {
		name, value, ok := strings.Cut(header, "=")
		if !ok || name == "" {
			return nil, usageErrorf("--header %q: it is NAME=VALUE", header)
		}
		out = append(out, pubsub.WithHeader(name, value))
	}
	if p.dedup != "" {
		if !one {
			return nil, usageErrorf("--dedup-id is for one message")
		}
		out = append(out, pubsub.DedupID(p.dedup))
	}
	return out, nil
}

// publishLines publishes each line of the input, and prints the offsets in order.
// Those that are known are printed when one fails.
func (a *app) publishLines(ctx context.Context, t *pubsub.Topic[[]byte], opts []pubsub.PublishOption) (err error) {
	p := t.Publisher()
	offsets := make(chan *pubsub.Pending, 4096)
	printed := make(chan error, 1)
	go func() {
		var failed error
		for item := range offsets {
			at, err := item.Wait(ctx)
			if err == nil {
				err = a.print(offsetAnswer(at))
			}
			failed = errors.Join(failed, err)
			if failed != nil {
				for range offsets { // the rest is told by the first
				}
			}
		}
		printed <- failed
	}()
	lines := bufio.NewScanner(a.in)
	lines.Buffer(nil, pubsub.MessageBytesMax+1)
	for err == nil && lines.Scan() {
		var item *pubsub.Pending
		if item, err = p.Publish(ctx, bytes.Clone(lines.Bytes()), opts...); err == nil {
			offsets <- item
		}
	}
	if err == nil && lines.Err() != nil {
		err = fmt.Errorf("read messages: %w", lines.Err())
	}
	closed := p.Close(ctx)
	close(offsets)
	return errors.Join(err, <-printed, closed)
}

func offsetAnswer(at pubsub.Offset) answer {
	return answer{
		simple: func(w *bytes.Buffer) { fmt.Fprintln(w, at) },
		json:   map[string]any{"offset": at},
	}
}

// subFlags are the flags of topic sub.
type subFlags struct {
	startFlags
	durable string
	count   int
	match   bool
}

func newTopicSub(a *app) *cobra.Command {
	var flags subFlags
	c := &cobra.Command{
		Use:   "sub TOPIC",
		Short: "print messages as they come",
		Long: `Print the messages of a topic, from now on or from another place, until the command is interrupted. In the simple form a
message is its bytes and a line's end; the table has the offset, the time and the key as well, and JSON, one object to a
line, everything.

With --match TOPIC is a pattern, as of topic list, and the messages of all topics that match come in the order of their
commits.`,
		Example: `  latchkey topic sub orders
  latchkey topic sub orders --earliest --count=10 --output=table
  latchkey topic sub orders --durable=audit --earliest      # goes on where it ended
  latchkey topic sub 'chat/*' --match --since=1h`,
		Args: exactly("TOPIC"),
		RunE: func(c *cobra.Command, args []string) error {
			start, given, err := flags.start(time.Now())
			if err != nil {
				return err
			}
			if !given {
				start = pubsub.Latest()
			}
			if flags.durable != "" {
				start = pubsub.Durable(flags.durable, start)
			}
			if flags.match && flags.durable != "" {
				return usageErrorf("--durable is for one topic")
			}
			return a.withClient(func(cl *client.Client) error {
				return a.subscribe(c.Context(), cl, args[0], start, flags)
			})
		},
	}
	flags.bind(c.Flags())
	f := c.Flags()
	f.StringVar(&flags.durable, "durable", "", "go on where the last subscription of this name has ended")
	f.IntVar(&flags.count, "count", 0, "end after so many messages")
	f.BoolVar(&flags.match, "match", false, "TOPIC is a pattern")
	return a.addGlobals(c)
}

func (a *app) subscribe(ctx context.Context, cl *client.Client, topic string, start pubsub.Start, flags subFlags) error {
	codec := pubsub.WithCodec(pubsub.Raw())
	messages := pubsub.Match[[]byte](ctx, cl, topic, start, codec)
	if !flags.match {
		t, err := openTopic(ctx, cl, topic)
		if err != nil {
			return err
		}
		messages = t.Subscribe(ctx, start)
	}
	color := colorOf(a.out)
	if a.output == "table" {
		header := fmt.Sprintf("%-16s  %-24s  %-16s  %s", "OFFSET", "TIME", "KEY", "MESSAGE")
		if _, err := fmt.Fprintln(a.out, paint(color, bold, header)); err != nil {
			return fmt.Errorf("print message: %w", err)
		}
	}
	n := 0
	for m, err := range messages {
		if err != nil {
			return err
		}
		if err := a.print(messageAnswer(m, a.output)); err != nil {
			return err
		}
		m.Done()
		if n++; n == flags.count {
			return nil
		}
	}
	return nil
}

// messageJSON is a message in JSON.
type messageJSON struct {
	Topic     string          `json:"topic"`
	Offset    pubsub.Offset   `json:"offset"`
	Partition int             `json:"partition"`
	Time      string          `json:"time"`
	Key       text            `json:"key,omitempty"`
	Header    map[string]text `json:"header,omitempty"`
	Value     text            `json:"value"`
}

func messageAnswer(m *pubsub.Msg[[]byte], output string) answer {
	out := messageJSON{
		Topic: m.Topic, Offset: m.Offset, Partition: m.Partition, Time: m.Time.UTC().Format("2006-01-02T15:04:05.000Z"),
		Key: text(m.Key), Value: text(m.Value),
	}
	for name, value := range m.Header {
		if out.Header == nil {
			out.Header = make(map[string]text)
		}
		out.Header[name] = text(value)
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			if output == "table" { // a stream has no widths to align to
				fmt.Fprintf(w, "%-16s  %-24s  %-16s  %s\n", out.Offset, out.Time, printable(m.Key), printable(string(m.Value)))
				return
			}
			w.Write(m.Value)
			w.WriteByte('\n')
		},
		json: out,
	}
}
