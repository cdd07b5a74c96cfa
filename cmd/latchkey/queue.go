package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

const queueLong = `Put jobs into a work queue, work on them, and look after it.

A job is some bytes here; programs that use the package recipes/queue see what their codec makes of them (JSON by
default). Jobs are done at least once, and those of a worker that dies are given to others within its time to live.`

// bytesCodec leaves values as they are.
type bytesCodec struct{}

func (bytesCodec) Encode(v []byte) ([]byte, error) { return v, nil }
func (bytesCodec) Decode(b []byte) ([]byte, error) { return b, nil }

func newQueueCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "queue",
		Short: "put jobs into a work queue, work on them, and look after it",
		Long:  queueLong,
		Example: `  latchkey queue push mail '{"to":"ada"}'
  latchkey queue work mail -- ./send.sh
  latchkey queue stats mail`,
		Args: cobra.ArbitraryArgs,
		RunE: runGroup,
	}
	c.AddCommand(
		newQueuePushCommand(a), newQueueWorkCommand(a), newQueueListCommand(a), newQueueStatsCommand(a),
		newQueuePauseCommand(a, true), newQueuePauseCommand(a, false), newQueueDeadCommand(a), newQueueRedriveCommand(a),
		newQueueCancelCommand(a), newQueuePurgeCommand(a),
	)
	return c
}

// oneQueue is for commands that take a queue's name and nothing else.
func oneQueue(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageErrorf("%s takes the name of a queue: %s", c.CommandPath(), c.UseLine())
	}
	return nil
}

// someOf is for commands that take a queue's name and at least so many more.
func someOf(least int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < 1+least {
			return usageErrorf("%s takes the name of a queue and more: %s", c.CommandPath(), c.UseLine())
		}
		return nil
	}
}

// withQueue opens a queue for f.
func (a *app) withQueue(ctx context.Context, name string, f func(*queue.Queue[[]byte]) error, opts ...queue.Option) error {
	return a.withClient(func(cl *client.Client) error {
		opts = append(opts, queue.WithCodec[[]byte](bytesCodec{}))
		q, err := queue.Open[[]byte](ctx, cl, name, opts...)
		if err != nil {
			return err
		}
		return f(q)
	})
}

// pushFlags are the flags of push.
type pushFlags struct {
	delay, ttl    time.Duration
	group, unique string
	priority      int
	attempts      int
	lines         bool
}

func (f pushFlags) options() (opts []queue.EnqueueOption) {
	if f.delay > 0 {
		opts = append(opts, queue.Delay(f.delay))
	}
	if f.group != "" {
		opts = append(opts, queue.Group(f.group))
	}
	if f.unique != "" {
		opts = append(opts, queue.Unique(f.unique))
	}
	return append(opts, queue.Priority(f.priority), queue.Attempts(f.attempts), queue.TTL(f.ttl))
}

func newQueuePushCommand(a *app) *cobra.Command {
	var flags pushFlags
	c := &cobra.Command{
		Use:   "push QUEUE [JOB]...",
		Short: "put jobs into a queue, which is made if there is none",
		Long: `Put jobs into a queue, each of them durable when its id is printed. Without a JOB it is read from the standard input;
with --lines, each line is one.`,
		Example: `  latchkey queue push mail '{"to":"ada"}' '{"to":"bob"}'
  latchkey queue push reports --delay=1h --unique=monthly <report.json
  latchkey queue push urls --lines <urls.txt`,
		Args: someOf(0),
		RunE: func(c *cobra.Command, args []string) error {
			jobs, err := flags.jobs(a.in, args[1:])
			if err != nil {
				return err
			}
			return a.withQueue(c.Context(), args[0], func(q *queue.Queue[[]byte]) error {
				return a.push(c.Context(), q, jobs, flags.options())
			})
		},
	}
	f := c.Flags()
	f.DurationVar(&flags.delay, "delay", 0, "how long the jobs wait first")
	f.DurationVar(&flags.ttl, "ttl", 0, "drop them if they were not started by then (no bound)")
	f.StringVar(&flags.group, "group", "", "jobs of a group run one after the other, in order")
	f.StringVar(&flags.unique, "unique", "", "refuse the job while one with this key is in the queue")
	f.IntVar(&flags.priority, "priority", 0, "0 goes first")
	f.IntVar(&flags.attempts, "attempts", 0, "how often it may fail (what the worker says)")
	f.BoolVar(&flags.lines, "lines", false, "each line of the standard input is a job")
	return a.addGlobals(c)
}

func (f pushFlags) jobs(in io.Reader, args []string) (jobs [][]byte, err error) {
	for _, arg := range args {
		jobs = append(jobs, []byte(arg))
	}
	if len(jobs) > 0 {
		return jobs, nil
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	if !f.lines {
		return [][]byte{b}, nil
	}
	for line := range bytes.Lines(b) {
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
			jobs = append(jobs, bytes.Clone(line))
		}
	}
	return jobs, nil
}

func (a *app) push(ctx context.Context, q *queue.Queue[[]byte], jobs [][]byte, opts []queue.EnqueueOption) error {
	for _, job := range jobs {
		id, err := q.Enqueue(ctx, job, opts...)
		if err != nil {
			return err
		}
		if err := a.print(answer{
			simple: func(w *bytes.Buffer) { fmt.Fprintln(w, id) },
			json:   map[string]any{"id": id},
		}); err != nil {
			return err
		}
	}
	return nil
}

// jobJSON is a job in JSON.
type jobJSON struct {
	ID        queue.ID    `json:"id"`
	State     queue.State `json:"state"`
	Job       text        `json:"job"`
	Messages  int         `json:"messages,omitempty"`
	Attempts  int         `json:"attempts"`
	Crashes   int         `json:"crashes,omitempty"`
	Enqueued  time.Time   `json:"enqueued"`
	Due       *time.Time  `json:"due,omitempty"`
	Group     string      `json:"group,omitempty"`
	Priority  int         `json:"priority,omitempty"`
	Worker    string      `json:"worker,omitempty"`
	LastError string      `json:"last_error,omitempty"`
}

func jobOf(in queue.Info) jobJSON {
	out := jobJSON{
		ID: in.ID, State: in.State, Job: text(in.Payload), Attempts: in.Attempts, Crashes: in.Crashes,
		Enqueued: in.Enqueued.UTC(), Group: in.Group, Priority: in.Priority, Worker: in.Worker, LastError: in.LastError,
	}
	if in.Messages > 1 {
		out.Messages = in.Messages
	}
	if !in.Due.IsZero() {
		due := in.Due.UTC()
		out.Due = &due
	}
	return out
}

// jobsAnswer lists jobs.
func jobsAnswer(jobs []queue.Info) answer {
	t := &table{header: []string{"ID", "STATE", "FAILED", "CRASHED", "ENQUEUED", "GROUP", "JOB", "LAST ERROR"}}
	out := make([]jobJSON, 0, len(jobs))
	for _, in := range jobs {
		j := jobOf(in)
		out = append(out, j)
		first, _, _ := strings.Cut(in.LastError, "\n")
		t.add(string(j.ID), string(j.State), fmt.Sprint(j.Attempts), fmt.Sprint(j.Crashes), j.Enqueued.Format(time.RFC3339),
			j.Group, string(j.Job), first)
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			for _, j := range out {
				fmt.Fprintf(w, "%s\t%s\t%s\n", j.ID, j.State, printable(string(j.Job)))
			}
		},
		table: t,
		json:  map[string]any{"jobs": out},
	}
}

// listDefault is how many jobs are listed unless told otherwise.
const listDefault = 100

func newQueueListCommand(a *app) *cobra.Command {
	var filter queue.Filter
	var state string
	c := &cobra.Command{
		Use:   "list QUEUE",
		Short: "list jobs, whether they wait or run",
		Example: `  latchkey queue list mail --output=table
  latchkey queue list mail --state=delayed --limit=1000`,
		Args: oneQueue,
		RunE: func(c *cobra.Command, args []string) error {
			filter.State = queue.State(state)
			return a.withQueue(c.Context(), args[0], func(q *queue.Queue[[]byte]) error {
				var jobs []queue.Info
				for in, err := range q.Items(c.Context(), filter) {
					if err != nil {
						return err
					}
					jobs = append(jobs, in)
				}
				return a.print(jobsAnswer(jobs))
			})
		},
	}
	f := c.Flags()
	f.StringVar(&state, "state", "", "only ready, delayed or running ones")
	f.StringVar(&filter.Group, "group", "", "only those of a group")
	f.IntVar(&filter.Limit, "limit", listDefault, "how many at most; 0 for all")
	return a.addGlobals(c)
}

func newQueueDeadCommand(a *app) *cobra.Command {
	var limit int
	var purge bool
	c := &cobra.Command{
		Use:   "dead QUEUE [ID]...",
		Short: "list, or delete, the jobs that have failed too often",
		Example: `  latchkey queue dead mail --output=table
  latchkey queue dead mail --purge`,
		Args: someOf(0),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withQueue(c.Context(), args[0], func(q *queue.Queue[[]byte]) error {
				if purge {
					n, err := q.Dead().Purge(c.Context(), idsOf(args[1:])...)
					return a.printCount("purged", n, err)
				}
				var jobs []queue.Info
				for in, err := range q.Dead().Items(c.Context()) {
					if err != nil {
						return err
					}
					if jobs = append(jobs, in); limit > 0 && len(jobs) == limit {
						break
					}
				}
				return a.print(jobsAnswer(jobs))
			})
		},
	}
	f := c.Flags()
	f.IntVar(&limit, "limit", listDefault, "how many are listed at most; 0 for all")
	f.BoolVar(&purge, "purge", false, "delete them: those with an ID that is given, or all")
	return a.addGlobals(c)
}

func idsOf(args []string) (ids []queue.ID) {
	for _, arg := range args {
		ids = append(ids, queue.ID(arg))
	}
	return ids
}

// printCount prints how many jobs something was done to.
func (a *app) printCount(what string, n int, err error) error {
	if err != nil {
		return err
	}
	return a.print(answer{
		simple: func(w *bytes.Buffer) { fmt.Fprintln(w, n) },
		json:   map[string]any{what: n},
	})
}

func newQueueRedriveCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "redrive QUEUE [ID]...",
		Short: "put dead jobs back into the queue: those named, or all",
		Example: `  latchkey queue redrive mail
  latchkey queue redrive mail 0003-00-000000000000002a-8f14e45f-000000000001`,
		Args: someOf(0),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withQueue(c.Context(), args[0], func(q *queue.Queue[[]byte]) error {
				n, err := q.Dead().Redrive(c.Context(), idsOf(args[1:])...)
				return a.printCount("redriven", n, err)
			})
		},
	}
	return a.addGlobals(c)
}

func newQueueCancelCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "cancel QUEUE ID...",
		Short:   "remove jobs, and stop those that run",
		Example: `  latchkey queue cancel mail 0003-00-000000000000002a-8f14e45f-000000000001`,
		Args:    someOf(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withQueue(c.Context(), args[0], func(q *queue.Queue[[]byte]) error {
				for _, id := range idsOf(args[1:]) {
					if err := q.Cancel(c.Context(), id); err != nil {
						return err
					}
				}
				return a.printCount("cancelled", len(args)-1, nil)
			})
		},
	}
	return a.addGlobals(c)
}

func newQueuePurgeCommand(a *app) *cobra.Command {
	var filter queue.Filter
	var state string
	c := &cobra.Command{
		Use:   "purge QUEUE",
		Short: "delete the jobs that wait",
		Example: `  latchkey queue purge mail
  latchkey queue purge mail --state=delayed`,
		Args: oneQueue,
		RunE: func(c *cobra.Command, args []string) error {
			filter.State = queue.State(state)
			return a.withQueue(c.Context(), args[0], func(q *queue.Queue[[]byte]) error {
				n, err := q.Purge(c.Context(), filter)
				return a.printCount("purged", n, err)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&state, "state", "", "only ready, delayed or running ones")
	f.StringVar(&filter.Group, "group", "", "only those of a group")
	return a.addGlobals(c)
}

func newQueuePauseCommand(a *app, pause bool) *cobra.Command {
	use, short := "resume", "let workers go on"
	if pause {
		use, short = "pause", "let workers start nothing, until resume; what runs goes on"
	}
	c := &cobra.Command{
		Use:     use + " QUEUE",
		Short:   short,
		Example: "  latchkey queue " + use + " mail",
		Args:    oneQueue,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withQueue(c.Context(), args[0], func(q *queue.Queue[[]byte]) error {
				err := q.Resume(c.Context())
				if pause {
					err = q.Pause(c.Context())
				}
				if err != nil {
					return err
				}
				return a.print(answer{
					simple: func(w *bytes.Buffer) { fmt.Fprintln(w, "OK") },
					json:   map[string]any{"paused": pause},
				})
			})
		},
	}
	return a.addGlobals(c)
}

func newQueueStatsCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "stats QUEUE",
		Short:   "count jobs and workers",
		Example: `  latchkey queue stats mail --output=json`,
		Args:    oneQueue,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withQueue(c.Context(), args[0], func(q *queue.Queue[[]byte]) error {
				st, err := q.Stats(c.Context())
				if err != nil {
					return err
				}
				return a.print(statsAnswer(st))
			})
		},
	}
	return a.addGlobals(c)
}

// workerJSON is a worker in JSON.
type workerJSON struct {
	ID          string    `json:"id"`
	Host        string    `json:"host"`
	PID         int       `json:"pid"`
	Concurrency int       `json:"concurrency"`
	Shards      int       `json:"shards"`
	Since       time.Time `json:"since"`
}

func statsAnswer(st queue.Stats) answer {
	workers := make([]workerJSON, 0, len(st.Workers))
	for _, w := range st.Workers {
		workers = append(workers, workerJSON{
			ID: w.ID, Host: w.Host, PID: w.PID, Concurrency: w.Concurrency, Shards: w.Shards, Since: w.Since,
		})
	}
	out := map[string]any{
		"ready": st.Ready, "delayed": st.Delayed, "running": st.Running, "dead": st.Dead, "paused": st.Paused,
		"shards": st.Shards, "priorities": st.Priorities, "workers": workers,
	}
	if !st.Oldest.IsZero() {
		out["oldest"] = st.Oldest.UTC()
	}
	t := &table{header: []string{"READY", "DELAYED", "RUNNING", "DEAD", "PAUSED", "WORKERS", "SHARDS"}}
	t.add(fmt.Sprint(st.Ready), fmt.Sprint(st.Delayed), fmt.Sprint(st.Running), fmt.Sprint(st.Dead), fmt.Sprint(st.Paused),
		fmt.Sprint(len(st.Workers)), fmt.Sprint(st.Shards))
	return answer{
		simple: func(w *bytes.Buffer) {
			fmt.Fprintf(w, "ready %d\ndelayed %d\nrunning %d\ndead %d\npaused %v\nworkers %d\n",
				st.Ready, st.Delayed, st.Running, st.Dead, st.Paused, len(st.Workers))
		},
		table: t,
		json:  out,
	}
}
