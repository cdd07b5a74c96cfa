package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

const (
	defaultLockTTL   = 10 * time.Second
	defaultLockGrace = 5 * time.Second
)

const lockLong = `Wait for a lock, run a command while holding it, and release it.

If the lock is lost, because no member could be reached for the time to live or because somebody deleted its key, the
command is stopped: with SIGTERM and, after the grace, with SIGKILL, and all that it started with it. (On a terminal,
only the command itself.) SIGINT and SIGTERM are passed on to the command, and the lock is kept until it ends.

The command finds the fencing token in LATCHKEY_LOCK_TOKEN. It grows from holder to holder: a resource that remembers
the largest one it has seen, and refuses smaller ones, is safe from holders who woke up too late. The key is in
LATCHKEY_LOCK_KEY. etcdctl lock and concurrency.Mutex take the same locks.

Others see with latchkey locks who holds the lock, and can ask for its release: what they say is printed to standard
error, and with --yield the command is stopped as if the lock were lost. With --delay, which all that use the lock must
give, nobody gets it for that time after a holder was cut off; after a normal end there is no delay.

Exit codes: that of the command, 128 and the number for one that a signal ended, and
  124  somebody else holds the lock, and the time to wait is over
  125  the lock could not be taken, or was lost
  126  the command can not be executed
  127  there is no such command
  2    wrong use`

// lockOptions are the flags of the lock command.
type lockOptions struct {
	ttl, grace, wait time.Duration
	bounded          bool // wait was given
	try, yield       bool
	owner, info      string
	delay            time.Duration
	lost             error // what to say when it is lost; nil for a lock
}

// options are those of the lock.
func (o *lockOptions) options() []lock.Option {
	return []lock.Option{lock.WithOwner(o.owner), lock.WithInfo(o.info), lock.WithDelay(o.delay)}
}

func newLockCommand(a *app) *cobra.Command {
	var o lockOptions
	c := &cobra.Command{
		Use:   "lock NAME [flags] -- COMMAND [ARGS]",
		Short: "run a command while holding a lock",
		Long:  lockLong,
		Example: `  latchkey lock jobs/nightly -- ./nightly.sh
  latchkey lock jobs/nightly --try -- ./nightly.sh        # or do nothing
  latchkey lock deploy --wait=10m --ttl=30s --info="release 7" -- make deploy`,
		Args: commandBehindName("latchkey lock NAME -- COMMAND [ARGS]"),
		RunE: func(c *cobra.Command, args []string) error {
			o.bounded = c.Flags().Changed("wait")
			return a.runLocked(c.Context(), args[1:], o, func(ctx context.Context, cl *client.Client) (holding, []string, error) {
				l := lock.New(cl, args[0], o.options()...)
				held, err := within(ctx, o, "lock "+strconv.Quote(args[0]), l.TryAcquire, l.Acquire)
				if err != nil {
					return nil, nil, err
				}
				return held, lockVariables(held), nil
			})
		},
	}
	o.bind(c, "lock")
	f := c.Flags()
	f.BoolVar(&o.yield, "yield", false, "stop the command when somebody asks for the lock's release")
	f.DurationVar(&o.delay, "delay", 0, "keep the lock from others for this time after a holder was cut off")
	return a.addGlobals(c)
}

// bind adds the flags to a command that holds a what.
func (o *lockOptions) bind(c *cobra.Command, what string) {
	f := c.Flags()
	f.DurationVar(&o.wait, "wait", 0, "how long to wait for the "+what+" at most (no bound)")
	f.BoolVar(&o.try, "try", false, "do not wait at all")
	f.DurationVar(&o.ttl, "ttl", defaultLockTTL, "how long others wait for the "+what+" after this command was cut off")
	f.StringVar(&o.owner, "owner", "", "who holds the "+what+", for others to see (host and process)")
	f.StringVar(&o.info, "info", "", "what for, for others to see")
	f.DurationVar(&o.grace, "grace", defaultLockGrace, "time between SIGTERM and SIGKILL when the "+what+" is lost")
}

// commandBehindName checks the arguments of a command that runs another one.
func commandBehindName(use string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if c.ArgsLenAtDash() != 1 || len(args) < 2 {
			return usageErrorf("%s takes a name, and a command behind --: %s", c.CommandPath(), use)
		}
		return nil
	}
}

// lockVariables are what a command learns of a lock.
func lockVariables(held *lock.Held) []string {
	return []string{
		"LATCHKEY_LOCK_TOKEN=" + strconv.FormatUint(uint64(held.Token()), 10), "LATCHKEY_LOCK_KEY=" + held.Key(),
	}
}

// holding is what is held while a command runs.
type holding interface {
	Name() string
	Context() context.Context
	ReleaseRequested() <-chan lock.Request
	Release(ctx context.Context) error
}

// runLocked holds what take acquires around the command, which gets the variables
// that take returns. It returns an exitCode for all but success.
func (a *app) runLocked(
	ctx context.Context, argv []string, o lockOptions,
	take func(context.Context, *client.Client) (h holding, variables []string, err error),
) (err error) {
	c, err := a.connectAs(client.Config{SessionTTL: o.ttl})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.Close(); cerr != nil {
			fmt.Fprintf(a.errOut, "latchkey: %s\n", messageOf(cerr))
		}
	}()
	held, variables, err := take(ctx, c)
	if err != nil {
		if i, ok := signalOf(ctx); ok {
			return exitCode{code: i.code()}
		}
		code := exitFailed
		if errors.Is(err, lock.ErrHeld) {
			code = exitNotAcquired
		}
		return exitCode{code, a.explain(err)}
	}
	g := &guarded{argv: argv, in: a.in, out: a.out, errOut: a.errOut, grace: o.grace, lost: o.lost}
	g.env = append(append(g.env, a.environ...), variables...)
	working, stop := a.heed(held, o.yield)
	code, err := g.run(ctx, working)
	stop()

	// The command is gone, so nothing is lost if the release fails: what was held
	// ends by itself after the time to live, and others wait until then.
	releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.timeout)
	defer cancel()
	if rerr := held.Release(releasing); rerr != nil && err == nil {
		fmt.Fprintf(a.errOut, "latchkey: %s\n", messageOf(rerr))
	}
	if code == exitOK && err == nil {
		return nil
	}
	return exitCode{code, err}
}

// heed tells the user of requests to release the lock until stop is called. It
// returns a context that ends with the lock, or, if it is to yield, with the
// first request.
func (a *app) heed(held holding, yield bool) (working context.Context, stop func()) {
	working, cancel := context.WithCancelCause(held.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case r := <-held.ReleaseRequested():
				fmt.Fprintf(a.errOut, "latchkey: release of lock %s was requested by %s\n", held.Name(), requestText(&r))
				if yield {
					cancel(fmt.Errorf("its release was requested by %s", requestText(&r)))
				}
			case <-working.Done():
				return
			}
		}
	}()
	return working, func() {
		cancel(nil)
		<-done
	}
}

// errWaited is the cause of a wait that took too long.
var errWaited = errors.New("the time to wait is over")

// within acquires by try or by wait, within the bounds of o. The error for what
// somebody else holds is lock.ErrHeld.
func within[H any](ctx context.Context, o lockOptions, title string, try, wait func(context.Context) (H, error)) (H, error) {
	if o.try {
		return try(ctx)
	}
	if o.bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.wait, errWaited)
		defer cancel()
	}
	held, err := wait(ctx)
	if errors.Is(err, errWaited) {
		err = fmt.Errorf("acquire %s: %w after %s: %w", title, lock.ErrHeld, o.wait, errWaited)
	}
	return held, err
}
