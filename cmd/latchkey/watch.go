package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/latchkey-go/latchkey/client"
)

const watchLong = `Print every change of a key, or of all keys with a prefix, as it happens and until the command is interrupted.

In the simple form a change is three lines: PUT or DELETE, the key, and the value, which is empty for a deleted key. In
the table it is one line, and in JSON one object to a line. A watch that can not go on ends with exit code 1.

Index and revision are the same count here, one for all keys. In etcd v2 a watch ended with the first change; that is
--forever=false.`

// watchFlags are the flags of watch and exec-watch.
type watchFlags struct {
	prefix, recursive    bool
	revision, afterIndex int64
}

func (w *watchFlags) bind(f *pflag.FlagSet) {
	f.BoolVar(&w.prefix, "prefix", false, "all keys that begin with KEY")
	f.BoolVar(&w.recursive, "recursive", false, "all keys of the directory KEY, that is all that begin with KEY/")
	f.Int64Var(&w.revision, "rev", 0, "begin with the changes of this revision instead of now")
	f.Int64Var(&w.afterIndex, "after-index", 0, "begin with the changes after this revision")
}

// apply returns the key and the options of the watch.
func (w *watchFlags) apply(key string) (string, []client.WatchOption, error) {
	from := client.Revision(w.revision)
	if w.afterIndex != 0 {
		if w.revision != 0 {
			return "", nil, usageErrorf("--rev and --after-index contradict each other")
		}
		from = client.Revision(w.afterIndex + 1)
	}
	options := []client.WatchOption{client.FromRevision(from)}
	if w.recursive {
		key = directory(key)
	}
	if w.prefix || w.recursive {
		options = append(options, client.Prefix())
	}
	return key, options, nil
}

func newWatchCommand(a *app) *cobra.Command {
	var flags watchFlags
	var forever bool
	c := &cobra.Command{
		Use:   "watch KEY",
		Short: "print changes as they happen",
		Long:  watchLong,
		Example: `  latchkey watch greeting
  latchkey watch config/ --prefix --output=json
  latchkey watch config --recursive --after-index=41
  latchkey watch greeting --forever=false        # wait for one change`,
		Args: exactly("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			key, options, err := flags.apply(args[0])
			if err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error {
				return a.watch(c.Context(), cl, key, options, forever)
			})
		},
	}
	flags.bind(c.Flags())
	c.Flags().BoolVar(&forever, "forever", true, "go on after the first change")
	return a.addGlobals(c)
}

func (a *app) watch(ctx context.Context, cl *client.Client, key string, options []client.WatchOption, forever bool) error {
	color := colorOf(a.out)
	if a.output == "table" {
		header := fmt.Sprintf("%-6s  %8s  %-24s  %s", "EVENT", "REVISION", "KEY", "VALUE")
		if _, err := fmt.Fprintln(a.out, paint(color, bold, header)); err != nil {
			return fmt.Errorf("print event: %w", err)
		}
	}
	for event, err := range cl.Watch(ctx, key, options...) {
		if err != nil {
			return explainWatch(err)
		}
		if err := a.print(eventAnswer(event, a.output, color)); err != nil {
			return err
		}
		if !forever {
			return nil
		}
	}
	return nil
}

// explainWatch says from where a watch can go on.
func explainWatch(err error) error {
	var compacted *client.CompactedError
	if errors.As(err, &compacted) {
		return fmt.Errorf("%w: begin with --rev=%d", err, compacted.Revision)
	}
	return err
}

func eventAnswer(e client.Event, output string, color bool) answer {
	word, hue := "PUT", green
	if e.Type == client.EventDelete {
		word, hue = "DELETE", red
	}
	object := struct {
		Event string `json:"event"`
		keyJSON
	}{e.Type.String(), toJSON(e.KV, e.Type == client.EventDelete)}
	return answer{
		simple: func(w *bytes.Buffer) {
			if output == "table" { // a stream has no widths to align to
				line := fmt.Sprintf("  %8d  %-24s  %s", e.KV.ModRevision, printable(e.KV.Key), printable(string(e.KV.Value)))
				fmt.Fprintln(w, paint(color, hue, fmt.Sprintf("%-6s", word))+strings.TrimRight(line, " "))
				return
			}
			fmt.Fprintln(w, paint(color, hue, word))
			writeKeys(w, []client.KV{e.KV}, getFlags{})
		},
		json: object,
	}
}
