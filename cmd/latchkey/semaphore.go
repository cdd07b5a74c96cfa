package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// errPermitsLost is what is said when permits are lost.
var errPermitsLost = errors.New("the permits were lost while the command ran")

const semaphoreLong = `Wait for permits of a semaphore, run a command while holding them, and release them. No more permits are out than the
limit, which is kept in the cluster: whoever comes first says with --limit what it is, and another number is refused.
Without --limit the command takes what is there. latchkey semaphore limit changes it, for good.

Who comes first is served first, so that a command which wants many permits is not overtaken by those that want few,
unless those are --barging.

The command finds how many permits it has in LATCHKEY_SEMAPHORE_PERMITS, and the key in LATCHKEY_SEMAPHORE_KEY.
Everything else, the exit codes too, is as with latchkey lock.`

func newSemaphoreCommand(a *app) *cobra.Command {
	o := lockOptions{lost: errPermitsLost}
	var limit, weight int64
	var barging bool
	c := &cobra.Command{
		Use:   "semaphore NAME [flags] -- COMMAND [ARGS]",
		Short: "run a command while holding permits of a semaphore",
		Long:  semaphoreLong,
		Example: `  latchkey semaphore builds --limit=4 -- make
  latchkey semaphore builds --limit=4 --weight=2 --try -- make -j2
  latchkey semaphore list builds
  latchkey semaphore limit builds 8`,
		Args: commandBehindName("latchkey semaphore NAME --limit N -- COMMAND [ARGS]"),
		RunE: func(c *cobra.Command, args []string) error {
			o.bounded = c.Flags().Changed("wait")
			opts := o.options()
			if barging {
				opts = append(opts, lock.WithBarging())
			}
			return a.runLocked(c.Context(), args[1:], o, func(ctx context.Context, cl *client.Client) (holding, []string, error) {
				s := lock.NewSemaphore(cl, args[0], limit, opts...)
				p, err := within(ctx, o, "semaphore "+strconv.Quote(args[0]),
					func(ctx context.Context) (*lock.Permit, error) { return s.TryAcquire(ctx, weight) },
					func(ctx context.Context) (*lock.Permit, error) { return s.Acquire(ctx, weight) })
				if err != nil {
					return nil, nil, err
				}
				return p, []string{
					"LATCHKEY_SEMAPHORE_PERMITS=" + strconv.FormatInt(p.Permits(), 10), "LATCHKEY_SEMAPHORE_KEY=" + p.Key(),
				}, nil
			})
		},
	}
	f := c.Flags()
	f.Int64Var(&limit, "limit", 0, "how many permits there are (what the cluster says)")
	f.Int64Var(&weight, "weight", 1, "how many permits to take")
	f.BoolVar(&barging, "barging", false, "do not wait in line")
	o.bind(c, "permits")
	c.AddCommand(newSemaphoreListCommand(a), newSemaphoreLimitCommand(a))
	return a.addGlobals(c)
}

func newSemaphoreListCommand(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "list NAME",
		Short:   "print the limit of a semaphore, who has permits, and who waits",
		Example: "  latchkey semaphore list builds\n  latchkey semaphore list builds --output=json",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				info, err := lock.NewSemaphore(cl, args[0], 0).Inspect(c.Context())
				if err != nil {
					return err
				}
				return a.print(semaphoreAnswer(info))
			})
		},
	})
}

func semaphoreAnswer(info lock.SemaphoreInfo) answer {
	queue := lock.Info{Name: info.Name, Revision: info.Revision, Holders: info.Holders, Waiters: info.Waiters}
	who := contendersAnswer(queue, "PERMITS", func(c lock.Contender) string { return strconv.FormatInt(c.Permits, 10) })
	return answer{
		simple: func(w *bytes.Buffer) {
			fmt.Fprintf(w, "%d of %d\n", info.Used, info.Limit)
			who.simple(w)
		},
		table: who.table,
		json: struct {
			Limit int64 `json:"limit"`
			Used  int64 `json:"used"`
			lockJSON
		}{info.Limit, info.Used, lockJSONOf(queue)},
	}
}

func newSemaphoreLimitCommand(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:   "limit NAME N",
		Short: "change the limit of a semaphore",
		Long: `Change the limit of a semaphore, for good: from then on it counts, whatever programs come with. Nobody loses permits. If
more are out than that, nobody gets any until enough were released; with 0, until it is changed again.`,
		Example: "  latchkey semaphore limit builds 8",
		Args:    exactly("NAME", "N"),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.ParseInt(args[1], 10, 64)
			if err != nil {
				return usageErrorf("%q is not a number of permits", args[1])
			}
			return a.withClient(func(cl *client.Client) error {
				if err := lock.NewSemaphore(cl, args[0], 0).SetLimit(c.Context(), n); err != nil {
					return err
				}
				return a.print(answer{
					simple: func(w *bytes.Buffer) { fmt.Fprintf(w, "limit %d\n", n) },
					json: struct {
						Limit int64 `json:"limit"`
					}{n},
				})
			})
		},
	})
}
