package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

const queueWorkLong = `Run a command for each job of a queue. The command gets the job on its standard input, and finds its id, which
attempt it is and its group in LATCHKEY_JOB_ID, LATCHKEY_JOB_ATTEMPT and LATCHKEY_JOB_GROUP.

What the command's exit code says about the job:
  0    it is done
  65   it can not be done: it goes to the dead letters at once (EX_DATAERR)
  75   not now: it is tried again in a while, which does not count as a failure (EX_TEMPFAIL)
  else it has failed, and is tried again later, up to --attempts times; then it goes to the dead letters

If the job is lost, because no member could be reached for the time to live, or is cancelled, the command is stopped:
with SIGTERM and, after the grace, with SIGKILL. On SIGINT and SIGTERM the worker starts nothing more and waits for the
commands that run, for --drain at most.`

// The exit codes of a command that say more than that it failed, as in sysexits.h.
const (
	exitDataErr  = 65
	exitTempFail = 75
)

// workFlags are the flags of work.
type workFlags struct {
	concurrency       int
	attempts          int
	ttl, grace, drain time.Duration
	snooze            time.Duration
	max               int
}

func newQueueWorkCommand(a *app) *cobra.Command {
	var flags workFlags
	c := &cobra.Command{
		Use:   "work QUEUE [flags] -- COMMAND [ARGS]",
		Short: "run a command for each job",
		Long:  queueWorkLong,
		Example: `  latchkey queue work mail -- ./send.sh
  latchkey queue work thumbnails --concurrency=8 --attempts=3 -- convert - -resize 200 png:-
  latchkey queue work mail --max=1 -- cat                 # one job, and end`,
		Args: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 1 || len(args) < 2 {
				return usageErrorf("latchkey queue work takes a queue, and a command behind --: latchkey queue work QUEUE -- COMMAND [ARGS]")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return a.work(c.Context(), args[0], args[1:], flags) },
	}
	f := c.Flags()
	f.IntVar(&flags.concurrency, "concurrency", 1, "how many commands run at once")
	f.IntVar(&flags.attempts, "attempts", 20, "how often a job may fail, unless it says so itself")
	f.IntVar(&flags.max, "max", 0, "end after so many jobs; 0 to go on for ever")
	f.DurationVar(&flags.snooze, "snooze", time.Minute, "how long a job waits after exit code 75")
	f.DurationVar(&flags.ttl, "ttl", defaultLockTTL, "how long others wait for its jobs after this worker was cut off")
	f.DurationVar(&flags.grace, "grace", defaultLockGrace, "time between SIGTERM and SIGKILL when a job is lost")
	f.DurationVar(&flags.drain, "drain", time.Minute, "how long the commands may go on after a signal to this worker")
	return a.addGlobals(c)
}

// work runs the command for jobs until a signal comes, or there were enough.
func (a *app) work(ctx context.Context, name string, argv []string, flags workFlags) (err error) {
	c, err := a.connectAs(client.Config{SessionTTL: flags.ttl})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.Close(); cerr != nil {
			fmt.Fprintf(a.errOut, "latchkey: %s\n", messageOf(cerr))
		}
	}()
	q, err := queue.Open[[]byte](ctx, c, name, queue.WithCodec[[]byte](bytesCodec{}), queue.WithMaxAttempts(flags.attempts),
		queue.WithLogger(slog.New(slog.NewTextHandler(a.errOut, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	if err != nil {
		return a.explain(err)
	}
	enough, stop := context.WithCancel(ctx)
	defer stop()
	left := make(chan struct{}, max(1, flags.max))
	w := &commandWorker{app: a, argv: argv, flags: flags, out: &lockedWriter{to: a.out}, errOut: &lockedWriter{to: a.errOut}}
	err = q.Run(enough, func(ctx context.Context, j *queue.Job[[]byte]) error {
		if flags.max > 0 {
			select {
			case left <- struct{}{}:
			default:
				return queue.Snooze(0) // there were enough: this one is for others
			}
			defer func() {
				if len(left) == flags.max {
					stop()
				}
			}()
		}
		return w.run(ctx, j)
	}, queue.WithConcurrency(flags.concurrency), queue.WithDrainTimeout(flags.drain))
	if err != nil {
		return a.explain(err)
	}
	if i, ok := signalOf(ctx); ok {
		return exitCode{code: i.code()}
	}
	return nil
}

// lockedWriter lets commands that run at once write, one at a time.
type lockedWriter struct {
	mu sync.Mutex
	to io.Writer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

// commandWorker runs a command for each job.
type commandWorker struct {
	app         *app
	argv        []string
	flags       workFlags
	out, errOut io.Writer
}

// run runs the command for one job; its exit code decides.
func (w *commandWorker) run(ctx context.Context, j *queue.Job[[]byte]) error {
	g := &guarded{argv: w.argv, in: bytes.NewReader(j.Value), out: w.out, errOut: w.errOut, grace: w.flags.grace}
	g.env = append(append(g.env, w.app.environ...), "LATCHKEY_JOB_ID="+string(j.ID),
		"LATCHKEY_JOB_ATTEMPT="+strconv.Itoa(j.Attempt), "LATCHKEY_JOB_GROUP="+j.Group)
	code, err := g.run(context.WithoutCancel(ctx), ctx)
	switch {
	case err != nil:
		return err // it could not be run, or was stopped
	case code == exitOK:
		return nil
	case code == exitDataErr:
		return queue.Discard(fmt.Errorf("exit code %d", code))
	case code == exitTempFail:
		return queue.Snooze(w.flags.snooze)
	}
	return fmt.Errorf("exit code %d", code)
}
