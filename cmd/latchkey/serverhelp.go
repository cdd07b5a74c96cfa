package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

const serverHelp = `Run a member.

Without any flag it is a cluster of one, for clients on this machine. The flags are etcd's, with what holds without them
in parentheses. Each can be set in the environment as well: --max-txn-ops is LATCHKEY_MAX_TXN_OPS or ETCD_MAX_TXN_OPS.
A flag wins over LATCHKEY_..., which wins over ETCD_... . The word "server" may be left out if a flag comes first.
`

const serverExamples = `
Exit codes: 0 stopped by a signal, 1 could not start or had to stop, 2 a flag, a variable or the file is wrong.

Examples:

  latchkey server
  latchkey server --name=a --data-dir=/var/lib/latchkey
  latchkey server --config-file=/etc/latchkey/latchkey.yaml
  latchkey server --name=a --initial-cluster=a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380 \
    --listen-peer-urls=http://10.0.0.1:2380 --listen-client-urls=http://10.0.0.1:2379
`

// helpWidth is how long a line of the help may be.
const helpWidth = 120

// writeServerHelp lists the flags by subject.
func writeServerHelp(w io.Writer) error {
	var text strings.Builder
	text.WriteString(serverHelp)
	for _, g := range flagGroups() {
		fmt.Fprintf(&text, "\n%s:\n\n", g.title)
		if isInert(g) {
			writeReasons(&text, g)
			continue
		}
		t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
		for _, f := range g.flags {
			fmt.Fprintf(t, "  %s\t%s", f.usageName(), f.usage)
			if f.fallback != "" {
				fmt.Fprintf(t, " (%s)", f.fallback)
			}
			fmt.Fprintln(t)
		}
		_ = t.Flush() // to memory
	}
	text.WriteString(serverExamples)
	_, err := io.WriteString(w, text.String())
	return err
}

func (f serverFlag) usageName() string {
	if f.value == "" {
		return "--" + f.name
	}
	return "--" + f.name + "=" + f.value
}

// isInert says whether the flags of a group do nothing.
func isInert(g flagGroup) bool {
	f := g.flags[0]
	return f.set == nil || f.usage == noOldDiscovery
}

// writeReasons lists flags that do nothing by the reason why.
func writeReasons(w io.Writer, g flagGroup) {
	var reasons []string
	names := make(map[string][]string)
	for _, f := range g.flags {
		if names[f.usage] == nil {
			reasons = append(reasons, f.usage)
		}
		names[f.usage] = append(names[f.usage], "--"+f.name)
	}
	for _, reason := range reasons {
		line := " "
		for i, name := range names[reason] {
			if i < len(names[reason])-1 {
				name += ","
			} else {
				name += ":"
			}
			if len(line)+1+len(name) > helpWidth {
				fmt.Fprintln(w, line)
				line = " "
			}
			line += " " + name
		}
		if len(line)+1+len(reason) > helpWidth {
			fmt.Fprintln(w, line)
			line = "   "
		}
		fmt.Fprintln(w, line+" "+reason)
	}
}
