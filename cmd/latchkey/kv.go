package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/latchkey-go/latchkey/client"
)

// valueBytesMax bounds what `put KEY -` reads: more than any server takes.
const valueBytesMax = 64 << 20

// getFlags are the flags of get, on the command line and in a transaction.
type getFlags struct {
	prefix, keysOnly, valueOnly, serializable bool
	limit, revision                           int64
}

func (g *getFlags) bind(f *pflag.FlagSet) {
	f.BoolVar(&g.prefix, "prefix", false, "all keys that begin with KEY")
	f.Int64Var(&g.revision, "rev", 0, "as it was at this revision")
	f.Int64Var(&g.limit, "limit", 0, "at most this many keys, 0 for all")
	f.BoolVar(&g.keysOnly, "keys-only", false, "leave out the values")
	f.BoolVar(&g.valueOnly, "print-value-only", false, "leave out the keys")
	f.BoolVar(&g.serializable, "serializable", false, "whatever the member that is asked knows now, which may be old")
}

func (g *getFlags) options() []client.GetOption {
	options := []client.GetOption{client.AtRevision(client.Revision(g.revision)), client.Limit(g.limit)}
	if g.prefix {
		options = append(options, client.Prefix())
	}
	if g.keysOnly {
		options = append(options, client.KeysOnly())
	}
	if g.serializable {
		options = append(options, client.Serializable())
	}
	return options
}

// putFlags are the flags of put, on the command line and in a transaction.
type putFlags struct{ lease string }

func (p *putFlags) bind(f *pflag.FlagSet) {
	f.StringVar(&p.lease, "lease", "", "lease that the key ends with, as `lease grant` prints it")
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
		Long:  "Print a key, or all keys with a prefix. A key that does not exist prints nothing, which is no error.",
		Example: `  latchkey get greeting
  latchkey get config/ --prefix --output=table
  latchkey get "" --prefix --keys-only           # every key
  latchkey get greeting --rev=7 --print-value-only`,
		Args: exactly("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				res, err := cl.Get(c.Context(), args[0], flags.options()...)
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

func newPutCommand(a *app) *cobra.Command {
	var flags putFlags
	c := &cobra.Command{
		Use:   "put KEY VALUE|-",
		Short: "write a key",
		Long:  "Write a key. A VALUE of - is read from standard input, as it is. Behind -- a value may begin with a dash.",
		Example: `  latchkey put greeting hello
  latchkey put config/app.yaml - < app.yaml
  latchkey put workers/7 alive --lease=694d77aa9e38260f
  latchkey put offset -- -3`,
		Args: exactly("KEY", "VALUE"),
		RunE: func(c *cobra.Command, args []string) error {
			options, err := flags.options()
			if err != nil {
				return err
			}
			value, err := a.readValue(args[1])
			if err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error {
				res, err := cl.Put(c.Context(), args[0], value, options...)
				if err != nil {
					return err
				}
				return a.print(putAnswer(res))
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
