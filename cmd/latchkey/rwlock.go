package main

import (
	"bytes"
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

const rwlockLong = `Wait for a read-write lock, run a command while holding it, and release it. Any number of commands have it together
with --shared; without, one has it alone. Who comes first is served first: with --shared as well, a command waits for
one that came earlier and wants the lock alone.

Everything else, the exit codes too, is as with latchkey lock, but a name can not be that of both kinds of lock.`

func newRWLockCommand(a *app) *cobra.Command {
	var o lockOptions
	var shared bool
	c := &cobra.Command{
		Use:   "rwlock NAME [flags] -- COMMAND [ARGS]",
		Short: "run a command while holding a read-write lock",
		Long:  rwlockLong,
		Example: `  latchkey rwlock config --shared -- ./report.sh
  latchkey rwlock config --wait=1m -- ./migrate.sh
  latchkey rwlock list config`,
		Args: commandBehindName("latchkey rwlock NAME -- COMMAND [ARGS]"),
		RunE: func(c *cobra.Command, args []string) error {
			o.bounded = c.Flags().Changed("wait")
			return a.runLocked(c.Context(), args[1:], o, func(ctx context.Context, cl *client.Client) (holding, []string, error) {
				l := lock.NewRW(cl, args[0], o.options()...)
				title := "lock " + strconv.Quote(args[0])
				if shared {
					held, err := within(ctx, o, title, l.TryRLock, l.RLock)
					if err != nil {
						return nil, nil, err
					}
					return held, lockVariables(held), nil
				}
				held, err := within(ctx, o, title, l.TryLock, l.Lock)
				if err != nil {
					return nil, nil, err
				}
				return held, lockVariables(held.Held), nil
			})
		},
	}
	c.Flags().BoolVar(&shared, "shared", false, "hold it together with others that are shared")
	o.bind(c, "lock")
	c.AddCommand(newRWLockListCommand(a))
	return a.addGlobals(c)
}

func newRWLockListCommand(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "list NAME",
		Short:   "print who has a read-write lock, and who waits for it",
		Example: "  latchkey rwlock list config\n  latchkey rwlock list config --output=json",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				info, err := lock.NewRW(cl, args[0]).Inspect(c.Context())
				if err != nil {
					return err
				}
				return a.print(rwlockAnswer(info))
			})
		},
	})
}

// contendersAnswer prints who has something, and who waits for it. what says how,
// or how much of it, under a header.
func contendersAnswer(info lock.Info, header string, what func(lock.Contender) string) answer {
	t := &table{header: []string{"STATE", header, "OWNER", "INFO", "KEY"}}
	add := func(state string, cs []lock.Contender) {
		for _, c := range cs {
			t.add(state, what(c), ownerOf(c), c.Info, c.Key)
		}
	}
	add("holds", info.Holders)
	add("waits", info.Waiters)
	return answer{simple: func(w *bytes.Buffer) { writeLines(w, t.rows) }, table: t, json: lockJSONOf(info)}
}

func rwlockAnswer(info lock.Info) answer {
	r := contendersAnswer(info, "MODE", func(c lock.Contender) string { return c.Mode.String() })
	object := lockJSONOf(info)
	for i, c := range info.Holders {
		object.Holders[i].Mode = c.Mode.String()
	}
	for i, c := range info.Waiters {
		object.Waiters[i].Mode = c.Mode.String()
	}
	r.json = object
	return r
}
