package main

import "github.com/spf13/cobra"

// groups are the headings under which `latchkey help` lists the commands.
var groups = []struct {
	title    string
	commands []string
}{
	{"Keys:", []string{"get", "ls", "put", "mk", "update", "del", "rm", "txn", "watch", "exec-watch"}},
	{"Coordination:", []string{
		"lock", "rwlock", "semaphore", "locks",
		"elect",
		"barrier", "counter",
		"service",
		"queue", "topic",
		"lease",
	}},
	{"Users:", []string{"user", "role", "auth"}},
	{"Cluster:", []string{
		"status", "health", "cluster-health", "endpoint", "member", "move-leader", "alarm", "compact", "defrag",
	}},
	{"A member and its data:", []string{"server", "snapshot", "backup", "doctor"}},
}

// groupCommands puts the commands that root has under their headings.
func groupCommands(root *cobra.Command) {
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, name := range g.commands {
			if c, _, err := root.Find([]string{name}); err == nil && c != root {
				c.GroupID = g.title
			}
		}
	}
}
