package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

func newAlarmCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "alarm",
		Short: "look at alarms, and switch them off",
		Long: `Alarms: NOSPACE, the data is larger than the quota and only deletes are accepted; CORRUPT, the members' data differs and
nothing is accepted.`,
		Example: "  latchkey alarm list\n  latchkey alarm disarm",
		RunE:    runGroup,
	}
	c.AddCommand(newAlarmAction(a, "list", "print the alarms", false),
		newAlarmAction(a, "disarm", "switch all alarms off, and print them", true))
	return c
}

func newAlarmAction(a *app, name, short string, disarm bool) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     name,
		Short:   short,
		Example: "  latchkey alarm " + name,
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(cl *client.Client) error {
				alarms, err := cl.Alarms(c.Context())
				if err != nil {
					return err
				}
				for _, alarm := range alarms {
					if !disarm {
						break
					}
					if err := cl.Disarm(c.Context(), alarm); err != nil {
						return err
					}
				}
				return a.print(alarmsAnswer(alarms))
			})
		},
	})
}

func alarmsAnswer(alarms []client.Alarm) answer {
	type alarmJSON struct {
		Member hexID  `json:"member_id"`
		Alarm  string `json:"alarm"`
	}
	object := []alarmJSON{}
	t := &table{header: []string{"MEMBER", "ALARM"}}
	for _, alarm := range alarms {
		object = append(object, alarmJSON{hexID(alarm.Member), alarm.Type.String()})
		t.add(hexID(alarm.Member).String(), alarm.Type.String())
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			for _, alarm := range alarms {
				fmt.Fprintf(w, "memberID:%d alarm:%s\n", alarm.Member, alarm.Type)
			}
		},
		table: t,
		json:  map[string]any{"alarms": object},
	}
}

func newCompactCommand(a *app) *cobra.Command {
	var physical bool
	c := &cobra.Command{
		Use:     "compact REVISION",
		Aliases: []string{"compaction"},
		Short:   "forget the history before a revision",
		Long: `Forget what keys were before REVISION. What they are now stays. The server does this by itself
(--auto-compaction-mode), so it is seldom needed.`,
		Example: "  latchkey compact 4711\n  latchkey compact 4711 --physical        # and wait until it is off the disk",
		Args:    exactly("REVISION"),
		RunE: func(c *cobra.Command, args []string) error {
			revision, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || revision <= 0 {
				return usageErrorf("%q is not a revision, such as 4711", args[0])
			}
			var options []client.CompactOption
			if physical {
				options = append(options, client.Physical())
			}
			return a.withClient(func(cl *client.Client) error {
				if err := cl.Compact(c.Context(), client.Revision(revision), options...); err != nil {
					return err
				}
				return a.print(answer{
					simple: func(w *bytes.Buffer) { fmt.Fprintf(w, "compacted revision %d\n", revision) },
					json:   map[string]int64{"compacted_revision": revision},
				})
			})
		},
	}
	c.Flags().BoolVar(&physical, "physical", false, "wait until it is off the disk of the member that is asked")
	return a.addGlobals(c)
}

func newDefragCommand(a *app) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "defrag",
		Short: "give free space of etcd's data file back; Latchkey has it used again",
		Long: `Have each of the endpoints, one after the other, clear its data file. A member of Latchkey writes a checkpoint and
serves on meanwhile: free space in the file is used again anyway, and the file never shrinks. A member of etcd gives
the free space back to the file system, and answers nobody until it is done.`,
		Example: "  latchkey defrag\n  latchkey defrag --cluster --timeout=2m",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if all {
				if err := a.useMembers(c.Context()); err != nil {
					return err
				}
			}
			return a.withClient(func(cl *client.Client) error { return a.defrag(c.Context(), cl) })
		},
	}
	c.Flags().BoolVar(&all, "cluster", false, "all members, not only the endpoints given")
	return a.addGlobals(c)
}

func (a *app) defrag(ctx context.Context, cl *client.Client) error {
	failed := 0
	for _, endpoint := range a.endpoints {
		if err := cl.Defragment(ctx, endpoint); err != nil {
			fmt.Fprintf(a.errOut, "latchkey: %s: %s\n", endpoint, messageOf(err))
			failed++
			continue
		}
		err := a.print(answer{
			simple: func(w *bytes.Buffer) { fmt.Fprintf(w, "Finished defragmenting member[%s]\n", endpoint) },
			json:   map[string]string{"endpoint": endpoint},
		})
		if err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d members were not defragmented", failed, len(a.endpoints))
	}
	return nil
}
