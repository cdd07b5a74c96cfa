package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

func newStatusCommand(a *app) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "status",
		Short: "print how each endpoint is",
		Long: `Ask each of the endpoints how it is, and print what they say. Those that do not answer get a line on standard error,
and make the exit code 1. With --cluster the endpoints are taken from the list of members.`,
		Example: `  latchkey status
  latchkey status --cluster
  latchkey status --endpoints=10.0.0.1:2379,10.0.0.2:2379 --output=json`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if all {
				if err := a.useMembers(c.Context()); err != nil {
					return err
				}
			}
			return a.withClient(func(cl *client.Client) error { return a.status(c.Context(), cl) })
		},
	}
	c.Flags().BoolVar(&all, "cluster", false, "ask all members, not only the endpoints given")
	return a.addGlobals(c)
}

// useMembers makes the endpoints those of all members.
func (a *app) useMembers(ctx context.Context) error {
	return a.withClient(func(cl *client.Client) error {
		members, err := cl.Members(ctx)
		if err != nil {
			return err
		}
		a.endpoints = nil
		for _, m := range members {
			a.endpoints = append(a.endpoints, m.ClientURLs...)
		}
		return nil
	})
}

func (a *app) status(ctx context.Context, cl *client.Client) error {
	endpoints := a.endpoints
	statuses := make([]client.Status, len(endpoints))
	errs := make([]error, len(endpoints))
	var asking sync.WaitGroup
	for i, endpoint := range endpoints {
		asking.Go(func() { statuses[i], errs[i] = cl.Status(ctx, endpoint) })
	}
	asking.Wait()
	var answered []client.Status
	for i, err := range errs {
		if err != nil {
			fmt.Fprintf(a.errOut, "latchkey: %s: %s\n", endpoints[i], messageOf(err))
			continue
		}
		answered = append(answered, statuses[i])
	}
	if len(answered) > 0 {
		if err := a.print(statusAnswer(answered)); err != nil {
			return err
		}
	}
	if silent := len(endpoints) - len(answered); silent > 0 {
		return fmt.Errorf("%d of %d endpoints did not answer", silent, len(endpoints))
	}
	return nil
}

func membersAnswer(members []client.Member) answer {
	type memberJSON struct {
		ID         hexID    `json:"id"`
		Name       string   `json:"name"`
		PeerURLs   []string `json:"peer_urls"`
		ClientURLs []string `json:"client_urls"`
		Learner    bool     `json:"learner"`
	}
	object := []memberJSON{}
	t := &table{header: []string{"ID", "STATUS", "NAME", "PEER URLS", "CLIENT URLS", "LEARNER"}}
	for _, m := range members {
		object = append(object, memberJSON{
			hexID(m.ID), m.Name, append([]string{}, m.PeerURLs...), append([]string{}, m.ClientURLs...), m.Learner,
		})
		status := "started"
		if m.Name == "" {
			status = "unstarted"
		}
		t.add(hexID(m.ID).String(), status, m.Name, strings.Join(m.PeerURLs, ","),
			strings.Join(m.ClientURLs, ","), strconv.FormatBool(m.Learner))
	}
	return answer{simple: t.commas, table: t, json: map[string]any{"members": object}}
}

func statusAnswer(statuses []client.Status) answer {
	type statusJSON struct {
		Endpoint  string          `json:"endpoint"`
		ClusterID hexID           `json:"cluster_id"`
		MemberID  hexID           `json:"member_id"`
		Leader    hexID           `json:"leader"`
		Version   string          `json:"version"`
		Learner   bool            `json:"learner"`
		Revision  client.Revision `json:"revision"`
		Term      uint64          `json:"raft_term"`
		Index     uint64          `json:"raft_index"`
		Applied   uint64          `json:"raft_applied_index"`
		Size      int64           `json:"size_bytes"`
		SizeInUse int64           `json:"size_in_use_bytes"`
		Errors    []string        `json:"errors"`
	}
	object := []statusJSON{}
	t := &table{header: []string{"ENDPOINT", "ID", "VERSION", "SIZE", "ROLE", "REVISION", "RAFT TERM", "RAFT INDEX", "APPLIED", "ERRORS"}}
	for _, s := range statuses {
		object = append(object, statusJSON{
			s.Endpoint, hexID(s.ClusterID), hexID(s.MemberID), hexID(s.Leader), s.Version, s.Learner, s.Revision,
			s.Term, s.Index, s.Applied, s.Size, s.SizeInUse, append([]string{}, s.Errors...),
		})
		t.add(s.Endpoint, hexID(s.MemberID).String(), s.Version, bytesOf(s.Size), roleOf(s), decimal(s.Revision),
			decimal(s.Term), decimal(s.Index), decimal(s.Applied), strings.Join(s.Errors, "; "))
	}
	return answer{simple: t.commas, table: t, json: map[string]any{"members": object}}
}

// commas writes the rows without a header, as scripts for etcdctl read them.
func (t *table) commas(w *bytes.Buffer) {
	for _, row := range t.rows {
		fmt.Fprintln(w, strings.Join(row, ", "))
	}
}

func roleOf(s client.Status) string {
	switch {
	case s.Learner:
		return "learner"
	case s.Leader == 0:
		return "no leader"
	case s.Leader == s.MemberID:
		return "leader"
	default:
		return "follower"
	}
}

// bytesOf prints a size for people: three digits and a unit.
func bytesOf(n int64) string {
	const units = "KMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1000, 0
	for value >= 999.5 && unit < len(units)-1 {
		value, unit = value/1000, unit+1
	}
	return fmt.Sprintf("%.3g %cB", value, units[unit])
}
