package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/barrier"
)

const barrierLong = `Make processes wait for each other.

A gate holds everybody back from hold to open; it stays closed until somebody opens it. A barrier that is entered holds
a number of processes back until all have come, and again until all have finished.`

func newBarrierCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "barrier",
		Short: "make processes wait for each other",
		Long:  barrierLong,
		Example: `  latchkey barrier hold deploy/ready
  latchkey barrier wait deploy/ready --wait=10m && ./start.sh
  latchkey barrier open deploy/ready
  latchkey barrier enter jobs/import --count=3 -- ./import.sh`,
		RunE: runGroup,
	}
	c.AddCommand(newGateHold(a), newGateOpen(a), newGateWait(a), newBarrierEnter(a))
	return c
}

func newGateHold(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "hold NAME",
		Short:   "close a gate",
		Long:    "Close a gate. One that is closed stays as it is. It is a key, NAME, which etcd's recipe.Barrier understands.",
		Example: "  latchkey barrier hold deploy/ready",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withGate(args[0], "closed", c.Context(), (*barrier.Gate).Hold)
		},
	})
}

func newGateOpen(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "open NAME",
		Short:   "open a gate",
		Long:    "Open a gate, for all who wait at it. One that is open stays as it is.",
		Example: "  latchkey barrier open deploy/ready",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withGate(args[0], "open", c.Context(), (*barrier.Gate).Open)
		},
	})
}

func newGateWait(a *app) *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use:   "wait NAME",
		Short: "wait until a gate is open",
		Long: `Wait until a gate is open, which it is if nobody has closed it. The exit code is 124 when the time to wait is over
before.`,
		Example: "  latchkey barrier wait deploy/ready --wait=10m",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			if c.Flags().Changed("wait") {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, wait, errWaited)
				defer cancel()
			}
			return a.waited(c.Context(), a.withGate(args[0], "open", ctx, (*barrier.Gate).Wait))
		},
	}
	c.Flags().DurationVar(&wait, "wait", 0, "how long to wait at most (no bound)")
	return a.addGlobals(c)
}

// waited gives the error of a wait the exit code that it should have.
func (a *app) waited(ctx context.Context, err error) error {
	if i, ok := signalOf(ctx); ok && err != nil {
		return exitCode{code: i.code()}
	}
	if errors.Is(err, errWaited) {
		return exitCode{exitNotAcquired, err}
	}
	return err
}

// withGate does something to a gate, and prints what it is then.
func (a *app) withGate(name, state string, ctx context.Context, do func(*barrier.Gate, context.Context) error) error {
	return a.withClient(func(cl *client.Client) error {
		if err := do(barrier.NewGate(cl, name), ctx); err != nil {
			return err
		}
		return a.print(answer{
			simple: func(w *bytes.Buffer) { fmt.Fprintf(w, "gate %s is %s\n", name, state) },
			json:   map[string]any{"name": text(name), "closed": state == "closed"},
		})
	})
}

const enterLong = `Wait until as many processes as --count says have come, run a command, and wait until the commands of all have ended.

With --on-loss=break (the default) a process that dies takes the others along: their commands are stopped, with SIGTERM
and, after the grace, with SIGKILL. With wait, somebody else takes its place if the commands have not begun yet, and
with shrink the others go on without it. All must say the same.

The command finds its number, from 0, in LATCHKEY_BARRIER_INDEX, how many there are in LATCHKEY_BARRIER_PARTIES, which
round it is in LATCHKEY_BARRIER_GENERATION, and a fencing token, the same for all of them and larger than in the rounds
before, in LATCHKEY_BARRIER_TOKEN. SIGINT and SIGTERM are passed on to it.

Exit codes: that of the command, 128 and the number for one that a signal ended, and
  124  the time to wait is over, and not all have come
  125  the barrier broke, or this process was cut off
  126  the command can not be executed
  127  there is no such command
  2    wrong use`

// enterOptions are the flags of barrier enter.
type enterOptions struct {
	count            int
	onLoss, member   string
	ttl, grace, wait time.Duration
	bounded          bool // wait was given
}

// lossPolicies are what --on-loss takes.
var lossPolicies = map[string]barrier.LossPolicy{"break": barrier.Break, "wait": barrier.Wait, "shrink": barrier.Shrink}

// errBarrier is what is said when a command was stopped because of the barrier.
var errBarrier = errors.New("the barrier broke while the command ran")

func newBarrierEnter(a *app) *cobra.Command {
	var o enterOptions
	c := &cobra.Command{
		Use:   "enter NAME --count=N [flags] -- COMMAND [ARGS]",
		Short: "run a command when all have come, and wait until all have finished",
		Long:  enterLong,
		Example: `  latchkey barrier enter jobs/import --count=3 -- ./import.sh
  latchkey barrier enter jobs/import --count=3 --wait=10m --on-loss=shrink -- sh -c './job $LATCHKEY_BARRIER_INDEX'`,
		Args: commandBehindName("latchkey barrier enter NAME --count=N -- COMMAND [ARGS]"),
		RunE: func(c *cobra.Command, args []string) error {
			if o.count < 1 {
				return usageErrorf("--count %d: say how many processes there are", o.count)
			}
			if _, ok := lossPolicies[o.onLoss]; !ok {
				return usageErrorf("--on-loss %q: choose break, wait or shrink", o.onLoss)
			}
			o.bounded = c.Flags().Changed("wait")
			return a.runInside(c.Context(), args[0], args[1:], o)
		},
	}
	f := c.Flags()
	f.IntVar(&o.count, "count", 0, "how many processes there are")
	f.DurationVar(&o.wait, "wait", 0, "how long to wait for the others to come at most (no bound)")
	f.StringVar(&o.onLoss, "on-loss", "break", "what a process that dies means: break, wait or shrink")
	f.StringVar(&o.member, "member", "", "name of this process, for others to see (host and process)")
	f.DurationVar(&o.ttl, "ttl", defaultLockTTL, "how long it takes others to notice that this process was cut off")
	f.DurationVar(&o.grace, "grace", defaultLockGrace, "time between SIGTERM and SIGKILL when the barrier breaks")
	return a.addGlobals(c)
}

// runInside runs a command inside a barrier. It returns an exitCode for all but success.
func (a *app) runInside(ctx context.Context, name string, argv []string, o enterOptions) (err error) {
	c, err := a.connectAs(client.Config{SessionTTL: o.ttl})
	if err != nil {
		return err
	}
	defer closeClient(a.errOut, c)
	in, err := enter(ctx, barrier.NewDouble(c, name, o.count, barrier.WithOnLoss(lossPolicies[o.onLoss]), barrier.WithMember(o.member)), o)
	if err != nil {
		if i, ok := signalOf(ctx); ok {
			return exitCode{code: i.code()}
		}
		if errors.Is(err, errWaited) {
			return exitCode{exitNotAcquired, err}
		}
		return exitCode{exitFailed, a.explain(err)}
	}
	g := &guarded{argv: argv, in: a.in, out: a.out, errOut: a.errOut, grace: o.grace, lost: errBarrier}
	at := in.Arrival()
	g.env = append(append(g.env, a.environ...),
		"LATCHKEY_BARRIER_INDEX="+strconv.Itoa(at.Index), "LATCHKEY_BARRIER_PARTIES="+strconv.Itoa(at.Parties),
		"LATCHKEY_BARRIER_GENERATION="+strconv.FormatUint(at.Generation, 10),
		"LATCHKEY_BARRIER_TOKEN="+strconv.FormatUint(uint64(at.Token), 10))
	code, err := g.run(ctx, in.Context())
	if left := a.leave(ctx, in); left != nil && err == nil {
		code, err = exitFailed, left
	}
	if code == exitOK && err == nil {
		return nil
	}
	return exitCode{code, err}
}

// enter enters within the bounds of o.
func enter(ctx context.Context, d *barrier.Double, o enterOptions) (*barrier.Inside, error) {
	if o.bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.wait, errWaited)
		defer cancel()
	}
	return d.Enter(ctx)
}

// leave waits until all have left. Whom a signal has interrupted does not wait, but sees
// to it that the others need not either.
func (a *app) leave(ctx context.Context, in *barrier.Inside) error {
	err := in.Leave(ctx)
	if _, ok := signalOf(ctx); !ok {
		return err
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.timeout)
	defer cancel()
	_ = in.Leave(leaving) // it is this process that is in a hurry
	return nil
}

// closeClient closes a client whose command is over.
func closeClient(errOut io.Writer, c *client.Client) {
	if err := c.Close(); err != nil {
		fmt.Fprintf(errOut, "latchkey: %s\n", messageOf(err))
	}
}
