package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

const watchLong = `Print every change of a key, or of all keys with a prefix, as it happens and until the command is interrupted.

In the simple form a change is three lines: PUT or DELETE, the key, and the value, which is empty for a deleted key. In
the table it is one line, and in JSON one object to a line. A watch that can not go on ends with exit code 1.`

func newWatchCommand(a *app) *cobra.Command {
	var (
		prefix   bool
		revision int64
	)
	c := &cobra.Command{
		Use:   "watch KEY",
		Short: "print changes as they happen",
		Long:  watchLong,
		Example: `  latchkey watch greeting
  latchkey watch config/ --prefix --output=json
  latchkey watch greeting --rev=7                # from revision 7 on`,
		Args: exactly("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			options := []client.WatchOption{client.FromRevision(client.Revision(revision))}
			if prefix {
				options = append(options, client.Prefix())
			}
			return a.withClient(func(cl *client.Client) error {
				return a.watch(c.Context(), cl, args[0], options)
			})
		},
	}
	c.Flags().BoolVar(&prefix, "prefix", false, "all keys that begin with KEY")
	c.Flags().Int64Var(&revision, "rev", 0, "begin with the changes of this revision instead of now")
	return a.addGlobals(c)
}

func (a *app) watch(ctx context.Context, cl *client.Client, key string, options []client.WatchOption) error {
	color := colorOf(a.out)
	if a.output == "table" {
		header := fmt.Sprintf("%-6s  %8s  %-24s  %s", "EVENT", "REVISION", "KEY", "VALUE")
		if _, err := fmt.Fprintln(a.out, paint(color, bold, header)); err != nil {
			return fmt.Errorf("print event: %w", err)
		}
	}
	for event, err := range cl.Watch(ctx, key, options...) {
		var compacted *client.CompactedError
		switch {
		case errors.As(err, &compacted):
			return fmt.Errorf("%w: begin with --rev=%d", err, compacted.Revision)
		case err != nil:
			return err
		}
		if err := a.print(eventAnswer(event, a.output, color)); err != nil {
			return err
		}
	}
	return nil
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
