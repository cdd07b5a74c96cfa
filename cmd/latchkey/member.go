package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

func newMemberCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "member",
		Short: "look at the members of the cluster, and change them",
		Example: `  latchkey member list
  latchkey member add n4 --peer-urls=http://10.0.0.4:2380 --learner
  latchkey member promote 8e9e05c52164694d
  latchkey member remove 8e9e05c52164694d`,
		RunE: runGroup,
	}
	c.AddCommand(a.memberList(), a.memberAdd(), a.memberRemove(), a.memberUpdate(), a.memberPromote())
	return c
}

func (a *app) memberList() *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "list",
		Short:   "print the members of the cluster",
		Long:    "Print the members of the cluster. A member is unstarted until it has told its name to the others.",
		Example: "  latchkey member list --output=table",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(cl *client.Client) error {
				members, err := cl.Members(c.Context())
				if err != nil {
					return err
				}
				return a.print(membersAnswer(members))
			})
		},
	})
}

func (a *app) memberAdd() *cobra.Command {
	var urls []string
	var learner bool
	c := &cobra.Command{
		Use:   "add NAME --peer-urls=URL,...",
		Short: "add a member, and print how to start it",
		Long: `Add a member that will listen to the other members at the peer URLs, and print the command and the environment, either
of which starts it. A learner gets all data without having a vote; add it so, and promote it when it has caught up:
until then it can not cost the cluster its majority. Add and start one member after the other.`,
		Example: `  latchkey member add n4 --peer-urls=http://10.0.0.4:2380 --learner`,
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(urls) == 0 {
				return usageErrorf("member add needs --peer-urls: where the new member will listen to the others")
			}
			return a.withClient(func(cl *client.Client) error {
				added, all, err := cl.AddMember(c.Context(), urls, learner)
				if err != nil {
					return err
				}
				return a.print(addedAnswer(args[0], added, all))
			})
		},
	}
	c.Flags().StringSliceVar(&urls, "peer-urls", nil, "where the new member will listen to the others, URL,...")
	c.Flags().BoolVar(&learner, "learner", false, "add it without a vote")
	return a.addGlobals(c)
}

func (a *app) memberRemove() *cobra.Command {
	return a.memberChange(&cobra.Command{
		Use:   "remove ID",
		Short: "remove a member for ever",
		Long: `Remove a member. It stops, and its data directory is of no more use. Remove a member that is dead before you add
another in its place.`,
		Example: "  latchkey member remove 8e9e05c52164694d",
	}, "removed", func(ctx context.Context, cl *client.Client, id uint64) ([]client.Member, error) {
		return cl.RemoveMember(ctx, id)
	})
}

func (a *app) memberPromote() *cobra.Command {
	return a.memberChange(&cobra.Command{
		Use:     "promote ID",
		Short:   "give a learner a vote",
		Long:    "Make a learner a voter. It is refused while the learner has not caught up with the leader.",
		Example: "  latchkey member promote 8e9e05c52164694d",
	}, "promoted", func(ctx context.Context, cl *client.Client, id uint64) ([]client.Member, error) {
		return cl.PromoteMember(ctx, id)
	})
}

func (a *app) memberUpdate() *cobra.Command {
	var urls []string
	c := a.memberChange(&cobra.Command{
		Use:   "update ID --peer-urls=URL,...",
		Short: "change where a member listens to the others",
		Long: `Tell the cluster the new peer URLs of a member. Stop it, update it, and start it with the new listen-peer-urls and
initial-advertise-peer-urls.`,
		Example: "  latchkey member update 8e9e05c52164694d --peer-urls=http://10.0.0.9:2380",
	}, "updated", func(ctx context.Context, cl *client.Client, id uint64) ([]client.Member, error) {
		if len(urls) == 0 {
			return nil, usageErrorf("member update needs --peer-urls")
		}
		return cl.UpdateMember(ctx, id, urls)
	})
	c.Flags().StringSliceVar(&urls, "peer-urls", nil, "where the member listens to the others from now on, URL,...")
	return c
}

// memberChange completes a command that changes the member whose id it is given.
func (a *app) memberChange(c *cobra.Command, done string,
	change func(context.Context, *client.Client, uint64) ([]client.Member, error),
) *cobra.Command {
	c.Args = exactly("ID")
	c.RunE = func(c *cobra.Command, args []string) error {
		id, err := parseMemberID(args[0])
		if err != nil {
			return err
		}
		return a.withClient(func(cl *client.Client) error {
			members, err := change(c.Context(), cl, id)
			if err != nil {
				return err
			}
			r := membersAnswer(members)
			r.simple = func(w *bytes.Buffer) { fmt.Fprintf(w, "Member %s %s\n", hexID(id), done) }
			return a.print(r)
		})
	}
	return a.addGlobals(c)
}

func newMoveLeaderCommand(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "move-leader ID",
		Short:   "have another member lead",
		Long:    "Hand leadership to a member. The endpoints must include the present leader's.",
		Example: "  latchkey move-leader 8e9e05c52164694d",
		Args:    exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseMemberID(args[0])
			if err != nil {
				return err
			}
			if err := a.withClient(func(cl *client.Client) error { return cl.MoveLeader(c.Context(), id) }); err != nil {
				return err
			}
			return a.print(answer{
				simple: func(w *bytes.Buffer) { fmt.Fprintf(w, "Leadership transferred to %s\n", hexID(id)) },
				json:   map[string]any{"leader": hexID(id)},
			})
		},
	})
}

func parseMemberID(s string) (uint64, error) {
	id, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0, usageErrorf("%q is not a member's id: latchkey member list shows them, in hexadecimal", s)
	}
	return id, nil
}

// addedAnswer tells how to start a member that was added: by the environment
// that etcdctl prints, with the addresses that it leaves out, or by a command.
func addedAnswer(name string, added client.Member, all []client.Member) answer {
	var initial []string
	for _, m := range all {
		known := m.Name
		switch {
		case m.ID == added.ID:
			known = name
		case known == "":
			known = hexID(m.ID).String()
		}
		for _, u := range m.PeerURLs {
			initial = append(initial, known+"="+u)
		}
	}
	cluster, peers := strings.Join(initial, ","), strings.Join(added.PeerURLs, ",")
	client := clientURL(added.PeerURLs[0])
	env := [][2]string{
		{"ETCD_NAME", name}, {"ETCD_INITIAL_CLUSTER", cluster},
		{"ETCD_INITIAL_ADVERTISE_PEER_URLS", peers}, {"ETCD_INITIAL_CLUSTER_STATE", "existing"},
		{"ETCD_LISTEN_PEER_URLS", peers}, {"ETCD_LISTEN_CLIENT_URLS", client}, {"ETCD_ADVERTISE_CLIENT_URLS", client},
	}
	command := []string{
		"latchkey server", "--name=" + name, "--initial-cluster-state=existing", "--initial-cluster=" + cluster,
		"--listen-peer-urls=" + peers, "--initial-advertise-peer-urls=" + peers,
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
	}
	r := membersAnswer(all)
	environment := map[string]string{}
	for _, e := range env {
		environment[e[0]] = e[1]
	}
	r.json = map[string]any{"id": hexID(added.ID), "learner": added.Learner, "environment": environment, "command": strings.Join(command, " ")}
	r.simple = func(w *bytes.Buffer) {
		as := ""
		if added.Learner {
			as = " as learner"
		}
		fmt.Fprintf(w, "Member %s added%s\n\n", hexID(added.ID), as)
		for _, e := range env {
			fmt.Fprintf(w, "%s=%q\n", e[0], e[1])
		}
		fmt.Fprintf(w, "\n%s\n", strings.Join(command, " "))
	}
	return r
}

// clientURL is where the clients of a member are likely to find it: on the host
// of its peer URL, at the usual port.
func clientURL(peer string) string {
	u, err := url.Parse(peer)
	if err != nil {
		return "http://" + defaultEndpoint
	}
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), "2379")
}
