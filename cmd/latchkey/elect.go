package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/election"
)

const electLong = `Stand for an election, run a command while leading, and resign when it ends.

The command is stopped when the leadership is lost, because no member could be reached for the time to live or because
somebody deleted its key, and when the leader is asked to step down, by step-down or by a candidate that preempts: with
SIGTERM and, after the grace, with SIGKILL, and all that it started with it. (On a terminal, only the command itself.)
Who is asked to step down leads until the command has ended. SIGINT and SIGTERM are passed on to the command.

Everybody sees the leader's VALUE. The command finds the fencing token of its term in LATCHKEY_ELECTION_TERM, which
grows from leader to leader, and the key in LATCHKEY_ELECTION_KEY. etcdctl elect and concurrency.Election take part.

Exit codes: that of the command, 128 and the number for one that a signal ended, and
  124  somebody else leads, and the time to wait is over
  125  nobody could be elected, or the leadership ended before the command did
  126  the command can not be executed
  127  there is no such command
  2    wrong use`

// errLed is what a command returns that was stopped as it may lead no more.
var errLed = errors.New("the leadership ended while the command ran")

// electOptions are the flags of the elect command.
type electOptions struct {
	ttl, grace, wait time.Duration
	bounded          bool // wait was given
	again            bool
	listen           bool
	identity         string
	priority         int
	preempt          bool
}

func newElectCommand(a *app) *cobra.Command {
	var o electOptions
	c := &cobra.Command{
		Use:   "elect NAME VALUE [flags] -- COMMAND [ARGS]",
		Short: "run a command while leading",
		Long:  electLong,
		Example: `  latchkey elect svc/leader 10.0.0.7:8080 -- ./serve
  latchkey elect svc/leader node-1 --again --identity=node-1 --priority=5 --preempt -- ./serve
  latchkey elect observe svc/leader
  latchkey elect list svc/leader
  latchkey elect step-down svc/leader --to=node-2 --reason=upgrade`,
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case o.listen && len(args) == 1:
				return nil
			case c.ArgsLenAtDash() != 2 || len(args) < 3:
				return usageErrorf("latchkey elect takes a name, a value, and a command behind --: latchkey elect NAME VALUE -- COMMAND [ARGS]")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if o.listen {
				return a.observeElection(c.Context(), args[0], false)
			}
			o.bounded = c.Flags().Changed("wait")
			return a.runElected(c.Context(), args[0], args[1], args[2:], o)
		},
	}
	f := c.Flags()
	f.DurationVar(&o.wait, "wait", 0, "how long to wait for the leadership at most (no bound)")
	f.BoolVar(&o.again, "again", false, "when the leadership ends before the command, stand again and run it anew")
	f.StringVar(&o.identity, "identity", "", "name of the candidate; after a restart it takes its former place at once")
	f.IntVar(&o.priority, "priority", 0, "candidates with a higher priority lead next")
	f.BoolVar(&o.preempt, "preempt", false, "ask a leader of lower priority to step down")
	f.DurationVar(&o.ttl, "ttl", defaultLockTTL, "how long others wait for the leadership after this command was cut off")
	f.DurationVar(&o.grace, "grace", defaultLockGrace, "time between SIGTERM and SIGKILL when the leadership ends")
	f.BoolVarP(&o.listen, "listen", "l", false, "print who leads, as observe does (etcdctl's flag)")
	a.addGlobals(c)
	c.AddCommand(newElectObserve(a), newElectList(a), newElectStepDown(a))
	return c
}

// runElected leads around the command. It returns an exitCode for all but success.
func (a *app) runElected(ctx context.Context, name, value string, argv []string, o electOptions) (err error) {
	c, err := a.connectAs(client.Config{SessionTTL: o.ttl})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.Close(); cerr != nil {
			fmt.Fprintf(a.errOut, "latchkey: %s\n", messageOf(cerr))
		}
	}()
	opts := []election.Option{election.WithIdentity(o.identity), election.WithPriority(o.priority)}
	if o.preempt {
		opts = append(opts, election.WithPreempt())
	}
	run, stopRun := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopRun(nil)
	line := a.standInLine(ctx, stopRun, o)
	code, failed := exitFailed, error(nil)
	err = election.New[string](c, name, opts...).Run(run, value, func(work context.Context, l *election.Leadership[string]) error {
		if !line() {
			return election.ErrStop // it was left just before
		}
		g := &guarded{argv: argv, in: a.in, out: a.out, errOut: a.errOut, grace: o.grace, lost: errLed}
		g.env = append(append(g.env, a.environ...),
			"LATCHKEY_ELECTION_TERM="+strconv.FormatUint(uint64(l.Term()), 10), "LATCHKEY_ELECTION_KEY="+l.Key())
		code, failed = g.run(ctx, work)
		if !o.again || work.Err() == nil || ctx.Err() != nil {
			return election.ErrStop
		}
		fmt.Fprintf(a.errOut, "latchkey: %s; standing again\n", messageOf(failed))
		line = a.standInLine(ctx, stopRun, o)
		return nil
	})
	return a.electedCode(ctx, err, code, failed)
}

// standInLine makes a signal, and the end of the time to wait, end the campaign.
// Once the returned function is called, they do not; it returns false when they
// have.
func (a *app) standInLine(ctx context.Context, leave context.CancelCauseFunc, o electOptions) (leads func() bool) {
	stopSignal := context.AfterFunc(ctx, func() { leave(context.Cause(ctx)) })
	stopTimer := func() bool { return true }
	if o.bounded {
		stopTimer = time.AfterFunc(o.wait, func() { leave(errWaited) }).Stop
	}
	return func() bool {
		signal, timer := stopSignal(), stopTimer()
		return signal && timer
	}
}

// electedCode makes the exit code of an election: err is how it ended, code and
// failed how the command did.
func (a *app) electedCode(ctx context.Context, err error, code int, failed error) error {
	if errors.Is(err, client.ErrUncertain) {
		// The command is gone, so nothing is lost if the resignation fails: the
		// leadership ends by itself after the time to live.
		fmt.Fprintf(a.errOut, "latchkey: %s\n", messageOf(err))
		err = nil
	}
	if err != nil {
		if i, ok := signalOf(ctx); ok {
			return exitCode{code: i.code()}
		}
		code := exitFailed
		if errors.Is(err, errWaited) {
			code = exitNotAcquired
		}
		return exitCode{code, a.explain(err)}
	}
	if i, ok := signalOf(ctx); ok && code == exitFailed && failed == nil {
		return exitCode{code: i.code()} // it came when we were just elected
	}
	if code == exitOK && failed == nil {
		return nil
	}
	return exitCode{code, failed}
}
