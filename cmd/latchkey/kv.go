package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/latchkey-go/latchkey/client"
)

// valueBytesMax bounds what `put KEY -` reads: more than any server takes.
const valueBytesMax = 64 << 20

// getFlags are the flags of get, on the command line and in a transaction.
type getFlags struct {
	prefix, recursive, keysOnly, valueOnly bool
	serializable, consistent, sorted       bool
	limit, revision                        int64
	sortBy, order                          string
}

func (g *getFlags) bind(f *pflag.FlagSet) {
	f.BoolVar(&g.prefix, "prefix", false, "all keys that begin with KEY")
	f.Int64Var(&g.revision, "rev", 0, "as it was at this revision")
	f.Int64Var(&g.limit, "limit", 0, "at most this many keys, 0 for all")
	f.BoolVar(&g.keysOnly, "keys-only", false, "leave out the values")
	f.BoolVar(&g.valueOnly, "print-value-only", false, "leave out the keys")
	f.BoolVar(&g.recursive, "recursive", false, "all keys of the directory KEY, that is all that begin with KEY/")
	f.StringVar(&g.sortBy, "sort-by", "", "sort by key, version, create, modify or value")
	f.StringVar(&g.order, "order", "", "ascend or descend")
	f.BoolVar(&g.sorted, "sort", false, "sort by key, as is done anyway")
	bindConsistency(f, &g.serializable, &g.consistent)
}

// bindConsistency adds the flags that say how new an answer has to be.
func bindConsistency(f *pflag.FlagSet, serializable, consistent *bool) {
	f.BoolVar(serializable, "serializable", false, "whatever the member that is asked knows now, which may be old")
	f.BoolVar(consistent, "consistent", false, "the newest that the cluster has, as is done anyway")
}

var errConsistency = usageErrorf("--serializable and --consistent contradict each other")

// sortTargets are what --sort-by takes, as in etcdctl.
var sortTargets = map[string]client.SortTarget{
	"": client.ByKey, "key": client.ByKey, "version": client.ByVersion, "create": client.ByCreateRevision,
	"modify": client.ByModRevision, "value": client.ByValue,
}

func (g *getFlags) options() ([]client.GetOption, error) {
	options := []client.GetOption{client.AtRevision(client.Revision(g.revision)), client.Limit(g.limit)}
	if g.serializable && g.consistent {
		return nil, errConsistency
	}
	if g.prefix || g.recursive {
		options = append(options, client.Prefix())
	}
	if g.keysOnly {
		options = append(options, client.KeysOnly())
	}
	if g.serializable {
		options = append(options, client.Serializable())
	}
	target, ok := sortTargets[strings.ToLower(g.sortBy)]
	if !ok {
		return nil, usageErrorf("--sort-by %q: choose key, version, create, modify or value", g.sortBy)
	}
	switch strings.ToLower(g.order) {
	case "":
		if g.sortBy != "" {
			options = append(options, client.Ascending(target))
		}
	case "ascend":
		options = append(options, client.Ascending(target))
	case "descend":
		options = append(options, client.Descending(target))
	default:
		return nil, usageErrorf("--order %q: choose ascend or descend", g.order)
	}
	return options, nil
}

// key returns the key to ask for.
func (g *getFlags) key(arg string) string {
	if g.recursive {
		return directory(arg)
	}
	return arg
}

// directory returns the prefix of all keys of a directory. There is none but the keys that begin with its name and "/".
func directory(name string) string {
	if name == "" || strings.HasSuffix(name, "/") {
		return name
	}
	return name + "/"
}

// putFlags are the flags of put, on the command line and in a transaction.
type putFlags struct{ lease string }

func (p *putFlags) bind(f *pflag.FlagSet) {
	f.StringVar(&p.lease, "lease", "", "`ID` of the lease that the key ends with, as lease grant prints it")
}

func (p *putFlags) options() ([]client.PutOption, error) {
	if p.lease == "" {
		return nil, nil
	}
	id, err := parseLease(p.lease)
	if err != nil {
		return nil, err
	}
	return []client.PutOption{client.WithLease(id)}, nil
}

// delFlags are the flags of del, on the command line and in a transaction.
type delFlags struct{ prefix bool }

func (d *delFlags) bind(f *pflag.FlagSet) {
	f.BoolVar(&d.prefix, "prefix", false, "all keys that begin with KEY")
}

func (d *delFlags) options() []client.DeleteOption {
	if d.prefix {
		return []client.DeleteOption{client.Prefix()}
	}
	return nil
}

func newGetCommand(a *app) *cobra.Command {
	var flags getFlags
	c := &cobra.Command{
		Use:   "get KEY",
		Short: "print a key, or all keys with a prefix",
		Long: `Print a key, or all keys with a prefix. A key that does not exist prints nothing, which is no error.

Keys are names as they are: /a and a are two keys. A directory is the keys that begin with its name and a slash.`,
		Example: `  latchkey get greeting
  latchkey get config --recursive                # all of config/
  latchkey get config/ --prefix --output=table
  latchkey get "" --prefix --keys-only           # every key
  latchkey get jobs/ --prefix --sort-by=modify --order=descend --limit=1
  latchkey get greeting --rev=7 --print-value-only`,
		Args: exactly("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			options, err := flags.options()
			if err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error {
				res, err := cl.Get(c.Context(), flags.key(args[0]), options...)
				if err != nil {
					return err
				}
				return a.print(getAnswer(res, flags))
			})
		},
	}
	flags.bind(c.Flags())
	return a.addGlobals(c)
}

// readValue returns the value that an argument stands for.
func (a *app) readValue(arg string) ([]byte, error) {
	if arg != "-" {
		return []byte(arg), nil
	}
	value, err := io.ReadAll(io.LimitReader(a.in, valueBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read the value: %w", err)
	}
	if len(value) > valueBytesMax {
		return nil, fmt.Errorf("read the value: more than %d bytes", valueBytesMax)
	}
	return value, nil
}

func newDelCommand(a *app) *cobra.Command {
	var flags delFlags
	c := &cobra.Command{
		Use:     "del KEY",
		Aliases: []string{"delete"},
		Short:   "delete a key, or all keys with a prefix",
		Long:    "Delete a key, or all keys with a prefix, and print how many there were. Deleting nothing is no error.",
		Example: `  latchkey del greeting
  latchkey del config/ --prefix`,
		Args: exactly("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				res, err := cl.Delete(c.Context(), args[0], flags.options()...)
				if err != nil {
					return err
				}
				return a.print(deleteAnswer(res))
			})
		},
	}
	flags.bind(c.Flags())
	return a.addGlobals(c)
}

func getAnswer(res *client.GetResult, flags getFlags) answer {
	object := struct {
		Revision client.Revision `json:"revision"`
		Count    int64           `json:"count"`
		More     bool            `json:"more,omitempty"`
		Keys     []keyJSON       `json:"keys"`
	}{res.Revision, res.Count, res.More, []keyJSON{}}
	t := &table{header: []string{"KEY", "VALUE", "CREATED", "MODIFIED", "VERSION", "LEASE"}}
	for _, kv := range res.KVs {
		object.Keys = append(object.Keys, toJSON(kv, flags.keysOnly))
		lease := ""
		if kv.Lease != 0 {
			lease = hexID(kv.Lease).String()
		}
		t.add(kv.Key, string(kv.Value), decimal(kv.CreateRevision), decimal(kv.ModRevision), decimal(kv.Version), lease)
	}
	return answer{
		simple: func(w *bytes.Buffer) { writeKeys(w, res.KVs, flags) },
		table:  t,
		json:   object,
	}
}

// writeKeys writes a line for each key and one for each value.
func writeKeys(w *bytes.Buffer, kvs []client.KV, flags getFlags) {
	for _, kv := range kvs {
		if !flags.valueOnly {
			w.WriteString(kv.Key)
			w.WriteByte('\n')
		}
		if !flags.keysOnly {
			w.Write(kv.Value)
			w.WriteByte('\n')
		}
	}
}

func putAnswer(res *client.PutResult) answer {
	return answer{
		simple: func(w *bytes.Buffer) { w.WriteString("OK\n") },
		json: struct {
			Revision client.Revision `json:"revision"`
		}{res.Revision},
	}
}

func deleteAnswer(res *client.DeleteResult) answer {
	return answer{
		simple: func(w *bytes.Buffer) { fmt.Fprintln(w, res.Deleted) },
		json: struct {
			Revision client.Revision `json:"revision"`
			Deleted  int64           `json:"deleted"`
		}{res.Revision, res.Deleted},
	}
}

func decimal[N ~int64 | ~uint64](n N) string {
	if n < 0 {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(uint64(n), 10)
}

// parseFlags reads the words behind an operation of a transaction, with the
// same flags and arguments as the command of that name.
func parseFlags(name string, args []string, bind func(*pflag.FlagSet), want int) ([]string, error) {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	bind(f)
	if err := f.Parse(args); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if f.NArg() != want {
		return nil, fmt.Errorf("%s takes %d arguments, not %d", name, want, f.NArg())
	}
	return f.Args(), nil
}
