package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/latchkey-go/latchkey/client"
)

// app is one run of the program: its streams, and what the flags that all
// client commands share were set to.
type app struct {
	in      io.Reader
	out     io.Writer
	errOut  io.Writer
	environ []string // "NAME=value"

	endpoints []string
	output    string
	timeout   time.Duration
	security  security
	login     login
}

const (
	defaultEndpoint = "127.0.0.1:2379"
	defaultTimeout  = 5 * time.Second
)

const rootLong = `Latchkey: locks, leases, watches and transactions on a small replicated server.

The server speaks the etcd v3 API; the client commands work on etcd too.

Exit codes: 0 done, 1 could not be done, 2 wrong use, 3 nobody knows whether the change was made because the answer got
lost, 130 and 143 interrupted. Commands write results to stdout and one line about an error to stderr.`

const rootExample = `  latchkey server
  latchkey put greeting hello
  latchkey get greeting
  latchkey watch config --recursive
  latchkey lock jobs/nightly -- ./nightly.sh
  latchkey status --endpoints=10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379`

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "latchkey",
		Short:         "locks, leases, watches and transactions on a small replicated server",
		Long:          rootLong,
		Example:       rootExample,
		SilenceErrors: true, // run reports them, in one line
		SilenceUsage:  true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if err := a.checkGlobals(); err != nil {
				return err
			}
			return a.completeLogin(c)
		},
		Args: cobra.ArbitraryArgs, // runGroup refuses them
		RunE: runGroup,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(
		newServerCommand(a), newVersionCommand(a),
		newGetCommand(a), newLsCommand(a), newPutCommand(a), newMkCommand(a), newUpdateCommand(a), newDelCommand(a),
		newRmCommand(a), newTxnCommand(a), newWatchCommand(a), newExecWatchCommand(a), newLeaseCommand(a),
		newLockCommand(a), newRWLockCommand(a), newSemaphoreCommand(a), newLocksCommand(a),
		newElectCommand(a),
		newBarrierCommand(a), newCounterCommand(a),
		newServiceCommand(a),
		newQueueCommand(a), newTopicCommand(a),
		newStatusCommand(a), newHealthCommand(a, false), newClusterHealthCommand(a), newEndpointCommand(a),
		newMemberCommand(a), newMoveLeaderCommand(a), newUserCommand(a), newRoleCommand(a), newAuthCommand(a), newAlarmCommand(a),
		newCompactCommand(a), newDefragCommand(a),
		newProxyCommand("gateway"), newProxyCommand("grpc-proxy"),
		newSnapshotCommand(a), newBackupCommand(a), newDoctorCommand(a),
	)
	groupCommands(root)
	return root
}

// outputs are what --output takes.
var outputs = []string{"simple", "table", "json"}

// addGlobals gives a client command the flags that all of them share.
func (a *app) addGlobals(c *cobra.Command) *cobra.Command {
	f := c.Flags()
	f.StringSliceVar(&a.endpoints, "endpoints", a.defaultEndpoints(), "members, HOST:PORT,... (or LATCHKEY_ENDPOINTS, ETCDCTL_ENDPOINTS)")
	f.StringVarP(&a.output, "output", "w", "simple", "how to print results: simple, table or json")
	f.DurationVar(&a.timeout, "timeout", defaultTimeout, "how long to wait for an answer")
	a.login.addTo(f)
	a.security.addTo(f, a)
	f.SortFlags = false
	// It fails only for a flag that is not there.
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// defaultEndpoints is what holds without --endpoints. Our variable wins.
func (a *app) defaultEndpoints() []string {
	for _, name := range []string{"LATCHKEY_ENDPOINTS", "ETCDCTL_ENDPOINTS"} {
		if value := a.getenv(name); value != "" {
			return strings.Split(value, ",")
		}
	}
	return []string{defaultEndpoint}
}

// getenv returns the last value that the environment has for name.
func (a *app) getenv(name string) string {
	value := ""
	for _, entry := range a.environ {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	return value
}

func (a *app) checkGlobals() error {
	switch a.output {
	case "", "simple", "table", "json":
	default:
		return usageErrorf("--output %q: choose simple, table or json", a.output)
	}
	if a.timeout < 0 {
		return usageErrorf("--timeout %s is negative", a.timeout)
	}
	return nil
}

// connect makes a client for the flags. The caller closes it.
func (a *app) connect() (*client.Client, error) { return a.connectAs(client.Config{}) }

// connectAs is connect with a configuration that has more than the flags say.
func (a *app) connectAs(conf client.Config) (*client.Client, error) {
	var err error
	if conf.TLS, err = a.security.config(a.endpoints); err != nil {
		return nil, err
	}
	conf.Endpoints, conf.RequestTimeout = a.endpoints, a.timeout
	conf.Username, conf.Password = a.login.user, a.login.password
	c, err := client.New(conf)
	if err != nil {
		return nil, usageErrorf("--endpoints %s: %w", strings.Join(a.endpoints, ","), err)
	}
	return c, nil
}

// withClient runs f with a client, and closes it behind f.
func (a *app) withClient(f func(*client.Client) error) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	return errors.Join(a.explain(f(c)), c.Close())
}

// explain adds what to do about an error, where that is known.
func (a *app) explain(err error) error {
	switch {
	case errors.Is(err, client.ErrUncertain):
		return exitCode{exitUncertain, fmt.Errorf("%w: look before you repeat it", err)}
	case errors.Is(err, client.ErrUnauthenticated) && a.login.user == "":
		return fmt.Errorf("%w: --user NAME[:PASSWORD] says who asks", err)
	case errors.Is(err, client.ErrUnavailable) && isSecurity(err):
		return fmt.Errorf("%w: is TLS spoken there, and what certificates does it want? (https:// in --endpoints, --cacert, --cert, --key)", err)
	case errors.Is(err, client.ErrUnavailable):
		return fmt.Errorf("%w: is a member running at %s? (latchkey server starts one, --endpoints chooses others)",
			err, strings.Join(a.endpoints, ","))
	}
	return err
}

// isSecurity reports whether something answered, and TLS is why nothing came of
// it. What a dial fails with has no type behind gRPC, only a text.
func isSecurity(err error) bool {
	return strings.Contains(err.Error(), "handshake failed") || strings.Contains(err.Error(), "reading server preface")
}

// runGroup is for commands that only have commands below them.
func runGroup(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var names []string
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	if near, ok := nearest(args[0], names); ok {
		return usageErrorf("%s has no command %q, did you mean %q?", c.CommandPath(), args[0], near)
	}
	return usageErrorf("%s has no command %q: %s --help lists them", c.CommandPath(), args[0], c.CommandPath())
}

// flagError turns pflag's errors into ours: one line, with a suggestion.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usageErrorf("%w: see %s --help", err, c.CommandPath())
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	name := unknown.GetSpecifiedName()
	if near, ok := nearest(name, names); ok && len(name) > 1 {
		return usageErrorf("unknown flag --%s, did you mean --%s?", name, near)
	}
	return usageErrorf("%w: see %s --help", err, c.CommandPath())
}

// exactly checks the arguments of a command against the names in its use line.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		want := "no argument"
		if len(names) > 0 {
			want = strings.Join(names, " and ")
		}
		return usageErrorf("%s takes %s, not %d arguments: %s", c.CommandPath(), want, len(args), c.UseLine())
	}
}
