package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

// lsPage is how many keys ls asks for at once.
const lsPage = 1000

func newLsCommand(a *app) *cobra.Command {
	var flags lsFlags
	c := &cobra.Command{
		Use:   "ls [DIRECTORY]",
		Short: "list a directory of keys",
		Long: `List the keys of a directory, and the directories in it, which end with a slash. A directory is nothing but the keys
that begin with its name and a slash, so one that does not exist is empty. With --recursive all keys are listed,
however deep.`,
		Example: `  latchkey ls
  latchkey ls /config
  latchkey ls /config --recursive --output=json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageErrorf("%s takes one directory at most, not %d arguments: %s", c.CommandPath(), len(args), c.UseLine())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if flags.serializable && flags.consistent {
				return errConsistency
			}
			dir := directory(strings.Join(args, ""))
			return a.withClient(func(cl *client.Client) error {
				names, revision, err := flags.list(c.Context(), cl, dir)
				if err != nil {
					return err
				}
				return a.print(lsAnswer(names, revision))
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&flags.recursive, "recursive", false, "all keys, not the directories that they are in")
	f.BoolVar(&flags.sorted, "sort", false, "sort by name, as is done anyway")
	f.Int64Var(&flags.revision, "rev", 0, "as it was at this revision")
	bindConsistency(f, &flags.serializable, &flags.consistent)
	return a.addGlobals(c)
}

// lsFlags are the flags of ls.
type lsFlags struct {
	recursive, sorted, serializable, consistent bool
	revision                                    int64
}

// list returns what is in the directory dir, which ends with a slash or is empty, all as of one revision. It skips over
// the directories in it, however large they are.
func (f lsFlags) list(ctx context.Context, cl *client.Client, dir string) (names []string, revision client.Revision, err error) {
	to := client.FromKey()
	if dir != "" {
		to = client.Range(behind(dir))
	}
	revision = client.Revision(f.revision)
	for from := dir; ; {
		options := []client.GetOption{to, client.KeysOnly(), client.Limit(lsPage), client.AtRevision(revision)}
		if f.serializable {
			options = append(options, client.Serializable())
		}
		res, err := cl.Get(ctx, from, options...)
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = res.Revision
		}
		for _, kv := range res.KVs {
			name := kv.Key
			if slash := strings.IndexByte(name[len(dir):], '/'); slash >= 0 && !f.recursive {
				name = name[:len(dir)+slash+1]
			}
			if len(names) == 0 || names[len(names)-1] != name {
				names = append(names, name)
			}
			from = kv.Key + "\x00"
		}
		if !res.More {
			return names, revision, nil
		}
		if last := names[len(names)-1]; !f.recursive && strings.HasSuffix(last, "/") && last != dir {
			from = behind(last)
		}
	}
}

// behind returns the first possible key behind those of a directory, which ends with a slash.
func behind(dir string) string { return dir[:len(dir)-1] + string('/'+1) }

func lsAnswer(names []string, revision client.Revision) answer {
	object := struct {
		Revision client.Revision `json:"revision"`
		Names    []text          `json:"names"`
	}{revision, []text{}}
	t := &table{header: []string{"NAME"}}
	for _, name := range names {
		object.Names = append(object.Names, text(name))
		t.add(name)
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			for _, name := range names {
				fmt.Fprintln(w, name)
			}
		},
		table: t, json: object,
	}
}
