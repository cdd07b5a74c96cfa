package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const docsHead = `# The command line

<!-- Written by ` + "`go test ./cmd/latchkey -run TestCommandsPage -rewrite`" + `; a test holds it against the commands. -->

` + "`latchkey`" + ` is the server and its client in one binary. The client commands work on a cluster of etcd as well.
` + "`latchkey COMMAND --help`" + ` has examples and explains every flag; this page lists what there is.

Those who know etcdctl of etcd v2 find its commands and flags again, over the data of v3. Three things are not the same,
because v3 does not have them:

- A **directory** is nothing but the keys that begin with its name and a slash. It is there when it has a key and gone
  with the last one, so there is no ` + "`mkdir`" + `, and a key may have the name of a directory.
- An **index** is a revision: one count of changes for the whole store. ` + "`--swap-with-index`" + ` and ` + "`--with-index`" + `
  compare the revision of the key's last change, ` + "`--after-index`" + ` is a revision to go on from.
- A **TTL** is a lease: ` + "`--ttl`" + ` makes one for the key, ` + "`--lease`" + ` shares one among keys. A write without either
  leaves the key without a lease.

Results go to standard output and one line about an error to standard error. ` + "`--output`" + ` chooses the form: ` + "`simple`" + ` for
shells, with etcdctl's lines; ` + "`table`" + ` for eyes; ` + "`json`" + ` for programs, one object to a line. Keys and values that are not
UTF-8 are ` + "`{\"base64\": \"...\"}`" + ` there. Colours are for terminals, unless NO_COLOR is set.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the command could not do what it was asked: the key exists, a compare failed, a member is unhealthy, nobody answered |
| 2 | it was asked in a wrong way |
| 3 | nobody knows whether the change was made, because the answer got lost |
| 130, 143 | interrupted by SIGINT or SIGTERM |
| others | ` + "`lock`, `rwlock`, `semaphore`, `elect`, `barrier enter`, `service register` and `exec-watch`" + ` pass on the code of the command that they run; 124 to 127 are explained in ` + "`latchkey lock --help`" + ` |

` + "`latchkey completion bash|zsh|fish`" + ` prints a script for the shell, as in
` + "`source <(latchkey completion bash)`" + `.

`

// TestCommandsPage holds docs/cli.md against the commands.
func TestCommandsPage(t *testing.T) {
	root := newRoot(&app{})
	var page bytes.Buffer
	page.WriteString(docsHead)
	fmt.Fprintf(&page, "All client commands take %s.\n", strings.Join(globalFlags(root), ", "))
	for _, g := range append(groups, struct {
		title    string
		commands []string
	}{"The program:", []string{"version", "completion"}}) {
		fmt.Fprintf(&page, "\n## %s\n\n| command | what it does | flags |\n|---|---|---|\n", strings.TrimSuffix(g.title, ":"))
		for _, name := range g.commands {
			c, _, err := root.Find([]string{name})
			if err != nil || c == root {
				continue
			}
			writeCommand(&page, c)
		}
	}
	golden(t, "../../docs/cli.md", page.Bytes())
}

// globalFlags are the flags that all client commands share.
func globalFlags(root *cobra.Command) []string {
	c, _, _ := root.Find([]string{"status"})
	var names []string
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if isGlobal(f) {
			names = append(names, "`--"+f.Name+"`")
		}
	})
	return names
}

// isGlobal says whether addGlobals has made the flag.
func isGlobal(f *pflag.Flag) bool {
	shared := (&app{}).addGlobals(&cobra.Command{}).Flags().Lookup(f.Name)
	return shared != nil && shared.Usage == f.Usage
}

func writeCommand(page *bytes.Buffer, c *cobra.Command) {
	if c.HasSubCommands() && c.Name() != "completion" {
		if strings.Contains(c.Use, " ") { // it does something by itself
			writeRow(page, c)
		}
		for _, sub := range c.Commands() {
			writeCommand(page, sub)
		}
		return
	}
	writeRow(page, c)
}

func writeRow(page *bytes.Buffer, c *cobra.Command) {
	var flags []string
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !isGlobal(f) && f.Name != "help" {
			flags = append(flags, "`--"+f.Name+"`")
		}
	})
	names := "`" + strings.TrimPrefix(strings.TrimSuffix(c.UseLine(), " [flags]"), "latchkey ") + "`"
	for _, alias := range c.Aliases {
		names += ", `" + alias + "`"
	}
	if c.Name() == "server" {
		flags = []string{"etcd's; `latchkey server --help`"}
	}
	if c.Name() == "completion" {
		names = "`completion bash\\|zsh\\|fish`"
	}
	names = strings.ReplaceAll(strings.ReplaceAll(names, "\\|", "|"), "|", "\\|")
	fmt.Fprintf(page, "| %s | %s | %s |\n", names, c.Short, strings.Join(flags, " "))
}
