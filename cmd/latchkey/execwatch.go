package main

import (
	"bytes"
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

// envValueBytesMax bounds the value that a command finds in its environment: the system bounds a variable and, with all
// of them, the arguments.
const envValueBytesMax = 64 << 10

func newExecWatchCommand(a *app) *cobra.Command {
	var flags watchFlags
	c := &cobra.Command{
		Use:   "exec-watch KEY [flags] -- COMMAND [ARGS]",
		Short: "run a command for every change",
		Long: `Run a command for every change of a key, or of all keys with a prefix, one after the other and in order. It finds in its
environment, under the names that etcdctl of v2 and of v3 used:

  ETCD_WATCH_ACTION           set or delete; ETCD_WATCH_EVENT_TYPE has PUT or DELETE
  ETCD_WATCH_KEY              the key, as it is
  ETCD_WATCH_VALUE            the value; not set if it is larger than 64 KiB or has a zero byte
  ETCD_WATCH_MODIFIED_INDEX   the revision of the change; ETCD_WATCH_REVISION as well

When the command fails, exec-watch ends with its exit code; 126 and 127 mean that it can not be executed or does not
exist. Otherwise it goes on until it is interrupted, which is passed on to the command.`,
		Example: `  latchkey exec-watch config --recursive -- systemctl reload app
  latchkey exec-watch greeting -- sh -c 'echo "$ETCD_WATCH_KEY is $ETCD_WATCH_VALUE"'`,
		Args: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 1 || len(args) < 2 {
				return usageErrorf("latchkey exec-watch takes a key, and a command behind --: latchkey exec-watch KEY -- COMMAND [ARGS]")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			key, options, err := flags.apply(args[0])
			if err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error {
				return a.execWatch(c.Context(), cl, key, options, args[1:])
			})
		},
	}
	flags.bind(c.Flags())
	return a.addGlobals(c)
}

func (a *app) execWatch(ctx context.Context, cl *client.Client, key string, options []client.WatchOption, argv []string) error {
	for event, err := range cl.Watch(ctx, key, options...) {
		if err != nil {
			return explainWatch(err)
		}
		g := &guarded{argv: argv, in: a.in, out: a.out, errOut: a.errOut, env: eventEnv(a.environ, event), grace: defaultLockGrace}
		if code, err := g.run(ctx, context.Background()); code != exitOK || err != nil {
			return exitCode{code, err}
		}
	}
	return nil
}

// eventEnv adds what happened to the environment. What an event of an outer exec-watch left there is taken out.
func eventEnv(environ []string, e client.Event) []string {
	var env []string
	for _, entry := range environ {
		if !strings.HasPrefix(entry, "ETCD_WATCH_") {
			env = append(env, entry)
		}
	}
	action, kind := "set", "PUT"
	if e.Type == client.EventDelete {
		action, kind = "delete", "DELETE"
	}
	revision := decimal(e.KV.ModRevision)
	env = append(env, "ETCD_WATCH_ACTION="+action, "ETCD_WATCH_EVENT_TYPE="+kind,
		"ETCD_WATCH_MODIFIED_INDEX="+revision, "ETCD_WATCH_REVISION="+revision)
	if !strings.Contains(e.KV.Key, "\x00") && len(e.KV.Key) <= envValueBytesMax {
		env = append(env, "ETCD_WATCH_KEY="+e.KV.Key)
	}
	if !bytes.Contains(e.KV.Value, []byte{0}) && len(e.KV.Value) <= envValueBytesMax {
		env = append(env, "ETCD_WATCH_VALUE="+string(e.KV.Value))
	}
	return env
}
