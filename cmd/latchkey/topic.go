package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

func newTopicCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "topic",
		Short: "publish and subscribe to topics, and look after their groups",
		Long: `Durable topics, as package pubsub has them. Messages are bytes here; programs that use the package put JSON into them
unless told otherwise.`,
		Example: `  latchkey topic pub orders '{"id":7}' --message-key=customer-3 --max-age=24h
  latchkey topic sub orders --earliest
  latchkey topic list
  latchkey topic groups orders
  latchkey topic seek orders billing --since=1h`,
		RunE: runGroup,
	}
	c.AddCommand(newTopicPub(a), newTopicSub(a), newTopicList(a), newTopicGroups(a), newTopicSeek(a))
	return c
}

// startFlags are the flags that say where to begin.
type startFlags struct {
	earliest bool
	after    string
	since    string
}

func (s *startFlags) bind(f *pflag.FlagSet) {
	f.BoolVar(&s.earliest, "earliest", false, "begin with the oldest message")
	f.StringVar(&s.after, "after", "", "begin behind this offset, or this revision")
	f.StringVar(&s.since, "since", "", "begin with what is as young as this, such as 1h, or 2026-01-02T15:04:05Z")
}

// start returns where to begin; ok is false when no flag says so.
func (s *startFlags) start(now time.Time) (start pubsub.Start, ok bool, err error) {
	given := 0
	if s.earliest {
		start, given = pubsub.Earliest(), given+1
	}
	if s.after != "" {
		offset, err := pubsub.ParseOffset(s.after)
		if err != nil {
			return start, false, usageErrorf("--after %w", err)
		}
		start, given = pubsub.After(offset), given+1
	}
	if s.since != "" {
		at, err := time.Parse(time.RFC3339, s.since)
		if err != nil {
			ago, err := time.ParseDuration(s.since)
			if err != nil {
				return start, false, usageErrorf("--since %q: neither a duration nor a time", s.since)
			}
			at = now.Add(-ago)
		}
		start, given = pubsub.Since(at), given+1
	}
	if given > 1 {
		return start, false, usageErrorf("--earliest, --after and --since contradict each other")
	}
	return start, given == 1, nil
}

func newTopicList(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:   "list [PATTERN]",
		Short: "list topics",
		Long: `List topics, with what they keep. In a pattern, * stands for one segment of a name, and ** at its end for one or more.
Without a pattern all are listed.`,
		Example: "  latchkey topic list\n  latchkey topic list 'chat/*' --output=json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			pattern := strings.Join(append(args, "**")[:1], "")
			return a.withClient(func(cl *client.Client) error {
				var topics []pubsub.Info
				for info, err := range pubsub.List(c.Context(), cl, pattern) {
					if err != nil {
						return err
					}
					topics = append(topics, info)
				}
				return a.print(topicsAnswer(topics))
			})
		},
	})
}

func topicsAnswer(topics []pubsub.Info) answer {
	t := &table{header: []string{"TOPIC", "PARTITIONS", "KEEPS"}}
	for _, info := range topics {
		t.add(info.Name, strconv.Itoa(info.Partitions), info.Retention.String())
	}
	if topics == nil {
		topics = []pubsub.Info{}
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			for _, info := range topics {
				fmt.Fprintln(w, info.Name)
			}
		},
		table: t,
		json:  map[string]any{"topics": topics},
	}
}

func newTopicGroups(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:   "groups TOPIC",
		Short: "tell how far the groups of a topic are",
		Long: `Print the consumer groups of a topic, and how many messages are behind their cursors. In the table and in JSON, also
who has which partition.`,
		Example: "  latchkey topic groups orders\n  latchkey topic groups orders --output=table",
		Args:    exactly("TOPIC"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				t, err := openTopic(c.Context(), cl, args[0])
				if err != nil {
					return err
				}
				names, err := t.Groups(c.Context())
				if err != nil {
					return err
				}
				var groups []groupJSON
				for _, name := range names {
					lag, err := t.Group(name).Lag(c.Context())
					if err != nil {
						return err
					}
					groups = append(groups, groupOf(name, lag))
				}
				return a.print(groupsAnswer(groups))
			})
		},
	})
}

// openTopic opens a topic that exists.
func openTopic(ctx context.Context, c *client.Client, name string, opts ...pubsub.Option) (*pubsub.Topic[[]byte], error) {
	return pubsub.Open[[]byte](ctx, c, name, append(opts, pubsub.WithCodec(pubsub.Raw()))...)
}

// groupJSON is a group in JSON.
type groupJSON struct {
	Group      string          `json:"group"`
	Lag        int64           `json:"lag"`
	Partitions []partitionJSON `json:"partitions"`
}

type partitionJSON struct {
	Partition int           `json:"partition"`
	Owner     string        `json:"owner,omitempty"`
	After     pubsub.Offset `json:"after"`
	Lag       int64         `json:"lag"`
}

func groupOf(name string, lag pubsub.Lag) groupJSON {
	out := groupJSON{Group: name, Lag: lag.Messages}
	for _, p := range lag.Partitions {
		out.Partitions = append(out.Partitions, partitionJSON{p.Partition, p.Owner, p.After, p.Messages})
	}
	return out
}

func groupsAnswer(groups []groupJSON) answer {
	t := &table{header: []string{"GROUP", "PARTITION", "OWNER", "AFTER", "LAG"}}
	for _, g := range groups {
		for _, p := range g.Partitions {
			t.add(g.Group, strconv.Itoa(p.Partition), p.Owner, p.After.String(), strconv.FormatInt(p.Lag, 10))
		}
	}
	if groups == nil {
		groups = []groupJSON{}
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			for _, g := range groups {
				fmt.Fprintf(w, "%s %d\n", g.Group, g.Lag)
			}
		},
		table: t,
		json:  map[string]any{"groups": groups},
	}
}

func newTopicSeek(a *app) *cobra.Command {
	var flags startFlags
	var latest bool
	c := &cobra.Command{
		Use:   "seek TOPIC GROUP",
		Short: "move a group to another place of its topic",
		Long: `Move a consumer group: its members go on there within moments, and what they are handling may be handled once more. A
group that does not exist is made.`,
		Example: `  latchkey topic seek orders billing --earliest
  latchkey topic seek orders billing --latest
  latchkey topic seek orders billing --since=30m
  latchkey topic seek orders billing --after=1234.0`,
		Args: exactly("TOPIC", "GROUP"),
		RunE: func(c *cobra.Command, args []string) error {
			start, ok, err := flags.start(time.Now())
			if err != nil {
				return err
			}
			if ok == latest {
				return usageErrorf("%s takes one of --latest, --earliest, --after and --since", c.CommandPath())
			}
			if latest {
				start = pubsub.Latest()
			}
			return a.withClient(func(cl *client.Client) error {
				t, err := openTopic(c.Context(), cl, args[0])
				if err != nil {
					return err
				}
				if err := t.Group(args[1]).Seek(c.Context(), start); err != nil {
					return err
				}
				return a.print(answer{
					simple: func(w *bytes.Buffer) { fmt.Fprintln(w, "OK") },
					json:   map[string]any{"group": args[1], "start": start.String()},
				})
			})
		},
	}
	c.Flags().BoolVar(&latest, "latest", false, "begin with what comes from now on")
	flags.bind(c.Flags())
	return a.addGlobals(c)
}
