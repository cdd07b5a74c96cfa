package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/latchkey-go/latchkey/client"
)

// writeFlags are the flags of the commands that write one key.
type writeFlags struct {
	putFlags
	ttl string
}

func (w *writeFlags) bind(f *pflag.FlagSet) {
	w.putFlags.bind(f)
	f.StringVar(&w.ttl, "ttl", "", "delete the key after this time, in seconds or as 2m: a lease of its own")
}

// swapFlags make a change depend on what the key was.
type swapFlags struct {
	value      string
	index      int64
	ifValue    bool // value was given
	ifIndex    bool // index was given
	valueName  string
	indexName  string
	mustExist  bool
	mustBeGone bool
}

func (s *swapFlags) bind(f *pflag.FlagSet, verb string) {
	s.valueName, s.indexName = verb+"-with-value", verb+"-with-index"
	if verb == "" {
		s.valueName, s.indexName = "with-value", "with-index"
	}
	f.StringVar(&s.value, s.valueName, "", "only if this is the key's value")
	f.Int64Var(&s.index, s.indexName, 0, "only if this is the revision of the key's last change (etcd v2: its modified index)")
}

// read takes over which of the flags were given.
func (s *swapFlags) read(f *pflag.FlagSet) {
	s.ifValue, s.ifIndex = f.Changed(s.valueName), f.Changed(s.indexName)
}

// compares returns the conditions; none if the change is to be made in any case.
func (s *swapFlags) compares(key string) []client.Compare {
	var list []client.Compare
	if s.ifValue {
		list = append(list, client.Value(key).Equal([]byte(s.value)))
	}
	if s.ifIndex {
		list = append(list, client.ModRevision(key).Equal(client.Revision(s.index)))
	}
	if s.mustExist {
		list = append(list, client.Exists(key))
	}
	if s.mustBeGone {
		list = append(list, client.Missing(key))
	}
	return list
}

// verb names the command that has these conditions.
func (s *swapFlags) verb() string {
	switch {
	case s.mustBeGone:
		return "mk"
	case s.mustExist:
		return "update"
	default:
		return "put"
	}
}

// errCompare is a condition that did not hold.
var errCompare = errors.New("compare failed")

// explain says which condition did not hold for what the key was.
func (s *swapFlags) explain(was []client.KV) error {
	switch {
	case s.mustBeGone:
		return client.ErrExists
	case len(was) == 0:
		return client.ErrNotFound
	case s.ifValue && string(was[0].Value) != s.value:
		return fmt.Errorf("%w: the value is %s, not %s", errCompare, excerpt(was[0].Value), excerpt([]byte(s.value)))
	default:
		return fmt.Errorf("%w: the index is %d, not %d", errCompare, was[0].ModRevision, s.index)
	}
}

// excerpt quotes a value for a message, which is one line.
func excerpt(value []byte) string {
	const most = 60
	if len(value) > most {
		return fmt.Sprintf("%q...", value[:most])
	}
	return fmt.Sprintf("%q", value)
}

func newPutCommand(a *app) *cobra.Command {
	var flags writeFlags
	var swap swapFlags
	c := &cobra.Command{
		Use:     "put KEY VALUE|-",
		Aliases: []string{"set"},
		Short:   "write a key",
		Long: `Write a key. A VALUE of - is read from standard input, as it is. Behind -- a value may begin with a dash.

The key has no lease afterwards unless --lease or --ttl gives it one. What --swap-with-index compares is a revision: the
store has one count for all keys, and each key remembers the one of its last change (get --output=json shows it).
Called as set, it prints the value instead of OK, as etcd v2 did.`,
		Example: `  latchkey put greeting hello
  latchkey put config/app.yaml - < app.yaml
  latchkey put workers/7 alive --lease=694d77aa9e38260f
  latchkey set /testdir/testkey "Hello world" --ttl=60
  latchkey put counter 8 --swap-with-value=7
  latchkey put offset -- -3`,
		Args: exactly("KEY", "VALUE"),
		RunE: func(c *cobra.Command, args []string) error {
			swap.read(c.Flags())
			return a.write(c, args, flags, swap, c.CalledAs() == "set")
		},
	}
	flags.bind(c.Flags())
	swap.bind(c.Flags(), "swap")
	return a.addGlobals(c)
}

func newMkCommand(a *app) *cobra.Command {
	var flags writeFlags
	c := &cobra.Command{
		Use:     "mk KEY VALUE|-",
		Short:   "make a key that does not exist yet",
		Long:    "Make a key, and print its value. One that exists already is an error, and stays as it is.",
		Example: "  latchkey mk /testdir/testkey \"Hello world\"\n  latchkey mk workers/7 alive --ttl=30",
		Args:    exactly("KEY", "VALUE"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.write(c, args, flags, swapFlags{mustBeGone: true}, true)
		},
	}
	flags.bind(c.Flags())
	return a.addGlobals(c)
}

func newUpdateCommand(a *app) *cobra.Command {
	var flags writeFlags
	c := &cobra.Command{
		Use:   "update KEY VALUE|-",
		Short: "write a key that exists",
		Long: `Write a key that exists, and print its value. One that does not exist is an error. As after put, the key has no lease
unless --lease or --ttl gives it one.`,
		Example: "  latchkey update /testdir/testkey \"Hello\"",
		Args:    exactly("KEY", "VALUE"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.write(c, args, flags, swapFlags{mustExist: true}, true)
		},
	}
	flags.bind(c.Flags())
	return a.addGlobals(c)
}

// write writes one key under the conditions of swap, and prints OK or the value.
func (a *app) write(c *cobra.Command, args []string, flags writeFlags, swap swapFlags, printValue bool) error {
	options, err := flags.options()
	if err != nil {
		return err
	}
	if flags.ttl != "" && flags.lease != "" {
		return usageErrorf("--ttl makes a lease, and --lease names one: give one of them")
	}
	value, err := a.readValue(args[1])
	if err != nil {
		return err
	}
	return a.withClient(func(cl *client.Client) error {
		ctx, revoke := c.Context(), func() {}
		if flags.ttl != "" {
			ttl, err := parseTTL(flags.ttl)
			if err != nil {
				return err
			}
			lease, err := cl.Grant(ctx, ttl)
			if err != nil {
				return err
			}
			options = append(options, client.WithLease(lease.ID))
			revoke = func() { a.giveUpLease(ctx, cl, lease.ID) }
		}
		res, err := putIf(ctx, cl, args[0], value, swap, options)
		if err != nil {
			if !errors.Is(err, client.ErrUncertain) {
				revoke()
			}
			return err
		}
		r := putAnswer(res)
		if printValue {
			r.simple = func(w *bytes.Buffer) { fmt.Fprintf(w, "%s\n", value) }
		}
		return a.print(r)
	})
}

// giveUpLease ends the lease of a key that was not written.
func (a *app) giveUpLease(ctx context.Context, cl *client.Client, id client.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.timeout)
	defer cancel()
	_ = cl.Revoke(ctx, id) // else it ends by itself
}

func putIf(ctx context.Context, cl *client.Client, key string, value []byte, swap swapFlags, options []client.PutOption) (*client.PutResult, error) {
	compares := swap.compares(key)
	if len(compares) == 0 {
		return cl.Put(ctx, key, value, options...)
	}
	res, err := cl.Txn().If(compares...).Then(client.OpPut(key, value, options...)).Else(client.OpGet(key)).Commit(ctx)
	switch {
	case err != nil:
		return nil, err
	case !res.Succeeded:
		return nil, fmt.Errorf("%s %q: %w", swap.verb(), key, swap.explain(res.Results[0].Get.KVs))
	}
	return res.Results[0].Put, nil
}
