package main

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/counter"
)

// counterNextMax bounds the numbers that next prints at once.
const counterNextMax = 1_000_000

func newCounterCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "counter",
		Short: "numbers that many processes share",
		Long: `Numbers that many processes share. A counter is a key with a decimal number; one that does not exist is 0. Additions are
made exactly once, also when answers get lost.`,
		Example: `  latchkey counter add orders
  latchkey counter add stock/4711 -- -3
  latchkey counter get orders
  latchkey counter set orders 0
  id=$(latchkey counter next invoice-ids)`,
		RunE: runGroup,
	}
	c.AddCommand(newCounterAdd(a), newCounterGet(a), newCounterSet(a), newCounterNext(a))
	return c
}

// parseInt64 reads a number of the command line.
func parseInt64(arg string) (int64, error) {
	n, err := strconv.ParseInt(arg, 10, 64)
	if err != nil {
		return 0, usageErrorf("%q is not a number of 64 bits, such as -3", arg)
	}
	return n, nil
}

// numberAnswer prints a number.
func numberAnswer(name string, n int64) answer {
	return answer{
		simple: func(w *bytes.Buffer) { fmt.Fprintln(w, n) },
		json:   map[string]any{"name": text(name), "value": n},
	}
}

func newCounterAdd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "add NAME [NUMBER]",
		Short: "add a number, exactly once, and print the sum",
		Long:  "Add a number, 1 if none is given, exactly once, and print the sum. A negative one stands behind --.",
		Example: `  latchkey counter add orders
  latchkey counter add stock/4711 -- -3`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usageErrorf("%s takes a name and at most one number, not %d arguments: %s", c.CommandPath(), len(args), c.UseLine())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			d := int64(1)
			if len(args) > 1 {
				var err error
				if d, err = parseInt64(args[1]); err != nil {
					return err
				}
			}
			return a.withClient(func(cl *client.Client) error {
				sum, err := counter.NewInt64(cl, args[0]).Add(c.Context(), d)
				if err != nil {
					return err
				}
				return a.print(numberAnswer(args[0], sum))
			})
		},
	}
	return a.addGlobals(c)
}

func newCounterGet(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "get NAME",
		Short:   "print a counter",
		Example: "  latchkey counter get orders",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				n, _, err := counter.NewInt64(cl, args[0]).Get(c.Context())
				if err != nil {
					return err
				}
				return a.print(numberAnswer(args[0], n))
			})
		},
	})
}

func newCounterSet(a *app) *cobra.Command {
	var from int64
	c := &cobra.Command{
		Use:   "set NAME NUMBER",
		Short: "set a counter",
		Long: `Set a counter, and print what it is then. With --from it is only set if it is that number; otherwise the exit code is 1,
and nothing has changed.`,
		Example: `  latchkey counter set orders 0
  latchkey counter set state 2 --from=1`,
		Args: exactly("NAME", "NUMBER"),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := parseInt64(args[1])
			if err != nil {
				return err
			}
			guarded := c.Flags().Changed("from")
			return a.withClient(func(cl *client.Client) error {
				_, err := counter.NewInt64(cl, args[0]).Update(c.Context(), func(old int64) (int64, error) {
					if guarded && old != from {
						return 0, fmt.Errorf("it is %d, not %d", old, from)
					}
					return n, nil
				})
				if err != nil {
					return err
				}
				return a.print(numberAnswer(args[0], n))
			})
		},
	}
	c.Flags().Int64Var(&from, "from", 0, "what the counter has to be")
	return a.addGlobals(c)
}

func newCounterNext(a *app) *cobra.Command {
	n := int64(1)
	c := &cobra.Command{
		Use:   "next NAME",
		Short: "print numbers that nobody else gets",
		Long: `Print a number that nobody else gets, or several, one to a line. NAME is a sequence: programs that use one of that name
get other numbers.`,
		Example: `  latchkey counter next invoice-ids
  latchkey counter next invoice-ids --count=10`,
		Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if n < 1 || n > counterNextMax {
				return usageErrorf("--count %d: at least 1, at most %d", n, counterNextMax)
			}
			return a.withClient(func(cl *client.Client) error {
				end, err := counter.NewInt64(cl, args[0]).Add(c.Context(), n)
				if err != nil {
					return err
				}
				return a.print(rangeAnswer(args[0], end-n+1, end))
			})
		},
	}
	c.Flags().Int64Var(&n, "count", 1, "how many numbers")
	return a.addGlobals(c)
}

// rangeAnswer prints the numbers from first to last.
func rangeAnswer(name string, first, last int64) answer {
	return answer{
		simple: func(w *bytes.Buffer) {
			for v := first; v <= last; v++ {
				fmt.Fprintln(w, v)
			}
		},
		json: map[string]any{"name": text(name), "first": first, "last": last},
	}
}
