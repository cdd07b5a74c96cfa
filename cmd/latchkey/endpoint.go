package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

func newEndpointCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "endpoint",
		Short:   "ask each endpoint how it is",
		Long:    "Ask each of the endpoints how it is. With --cluster they are taken from the list of members.",
		Example: "  latchkey endpoint health --cluster\n  latchkey endpoint status --output=table\n  latchkey endpoint hashkv --cluster",
		RunE:    runGroup,
	}
	status := newStatusCommand(a)
	status.Example = "  latchkey endpoint status --cluster --output=table"
	health := newHealthCommand(a, true)
	health.Long += "\nUnlike for latchkey health, an endpoint that has an alarm is not healthy."
	health.Example = "  latchkey endpoint health --cluster"
	c.AddCommand(status, health, newHashKVCommand(a))
	return c
}

// newHealthCommand is for `health`, by which a supervisor decides whether to restart a member, and for `endpoint
// health`, which minds alarms as well: they are no better after a restart.
func newHealthCommand(a *app, alarms bool) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "health",
		Short: "tell whether each endpoint serves",
		Long: `Read a key from each endpoint, linearizably: that takes a member that serves, a leader and a majority. The exit code is
0 if all of them answer, and 1 otherwise. A cluster that wants to know the user first is well, too.`,
		Example: "  latchkey health\n  latchkey health --cluster --timeout=2s --output=json",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if all {
				if err := a.useMembers(c.Context()); err != nil {
					return err
				}
			}
			checks := a.checkHealth(c.Context(), a.endpoints, alarms)
			if err := a.print(healthAnswer(checks)); err != nil {
				return err
			}
			if sick := unhealthy(checks); sick > 0 {
				return fmt.Errorf("%d of %d endpoints are not healthy", sick, len(checks))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "cluster", false, "ask all members, not only the endpoints given")
	return a.addGlobals(c)
}

// healthCheck is what came of asking one endpoint.
type healthCheck struct {
	endpoint string
	took     time.Duration
	err      error
}

// healthKey is what is read to see whether a member serves; etcdctl reads the same.
const healthKey = "health"

// checkHealth asks all endpoints at the same time, each by a client of its own, for none to help out another.
func (a *app) checkHealth(ctx context.Context, endpoints []string, alarms bool) []healthCheck {
	checks := make([]healthCheck, len(endpoints))
	var asking sync.WaitGroup
	for i, endpoint := range endpoints {
		asking.Go(func() {
			begin := time.Now()
			checks[i] = healthCheck{endpoint: endpoint, err: a.checkEndpoint(ctx, endpoint, alarms)}
			checks[i].took = time.Since(begin)
		})
	}
	asking.Wait()
	return checks
}

func (a *app) checkEndpoint(ctx context.Context, endpoint string, alarms bool) error {
	alone := *a
	alone.endpoints = []string{endpoint}
	return alone.withClient(func(cl *client.Client) error {
		_, err := cl.Get(ctx, healthKey)
		if err != nil || !alarms {
			return wellRefused(err)
		}
		status, err := cl.Status(ctx, endpoint)
		if err == nil && len(status.Errors) > 0 {
			return errors.New(strings.Join(status.Errors, "; "))
		}
		return wellRefused(err)
	})
}

// wellRefused returns nil for what only a member that serves says.
func wellRefused(err error) error {
	if errors.Is(err, client.ErrPermissionDenied) || errors.Is(err, client.ErrUnauthenticated) {
		return nil
	}
	return err
}

func unhealthy(checks []healthCheck) (n int) {
	for _, c := range checks {
		if c.err != nil {
			n++
		}
	}
	return n
}

func healthAnswer(checks []healthCheck) answer {
	type healthJSON struct {
		Endpoint string  `json:"endpoint"`
		Healthy  bool    `json:"healthy"`
		Took     float64 `json:"took_seconds"`
		Error    string  `json:"error,omitempty"`
	}
	object := []healthJSON{}
	t := &table{header: []string{"ENDPOINT", "HEALTHY", "TOOK", "ERROR"}}
	for _, c := range checks {
		took := c.took.Round(10 * time.Microsecond)
		object = append(object, healthJSON{c.endpoint, c.err == nil, took.Seconds(), messageOf(c.err)})
		t.add(c.endpoint, strconv.FormatBool(c.err == nil), took.String(), messageOf(c.err))
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			for _, c := range checks {
				if c.err == nil {
					fmt.Fprintf(w, "%s is healthy: took = %v\n", c.endpoint, c.took.Round(10*time.Microsecond))
				} else {
					fmt.Fprintf(w, "%s is unhealthy: %s\n", c.endpoint, messageOf(c.err))
				}
			}
		},
		table: t,
		json:  map[string]any{"endpoints": object},
	}
}

func newClusterHealthCommand(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:   "cluster-health",
		Short: "tell whether each member serves, and so whether the cluster does",
		Long: `Ask each member at its own addresses whether it serves. The cluster is healthy if all do, degraded if a majority does,
and unhealthy otherwise, or if there is nobody who could say who the members are. The exit code is 0 only for a healthy
one.`,
		Example: "  latchkey cluster-health",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(cl *client.Client) error {
				members, err := cl.Members(c.Context())
				if err != nil {
					return err
				}
				return a.clusterHealth(c.Context(), members)
			})
		},
	})
}

// memberHealth is a member, with what the first of its addresses that answered said.
type memberHealth struct {
	member client.Member
	check  healthCheck
}

func (a *app) clusterHealth(ctx context.Context, members []client.Member) error {
	states := make([]memberHealth, len(members))
	var asking sync.WaitGroup
	for i, m := range members {
		asking.Go(func() { states[i] = memberHealth{m, a.checkMember(ctx, m)} })
	}
	asking.Wait()
	if err := a.print(clusterHealthAnswer(states)); err != nil {
		return err
	}
	if verdict := verdictOf(states); verdict != "healthy" {
		return fmt.Errorf("cluster is %s", verdict)
	}
	return nil
}

func (a *app) checkMember(ctx context.Context, m client.Member) healthCheck {
	if len(m.ClientURLs) == 0 {
		return healthCheck{err: errors.New("it has not started yet")}
	}
	checks := a.checkHealth(ctx, m.ClientURLs, true)
	for _, c := range checks {
		if c.err == nil {
			return c
		}
	}
	return checks[0]
}

// verdictOf judges the cluster by its members. Learners do not count for a majority.
func verdictOf(states []memberHealth) string {
	voters, well, sick := 0, 0, 0
	for _, s := range states {
		if s.check.err != nil {
			sick++
		}
		if !s.member.Learner {
			voters++
			if s.check.err == nil {
				well++
			}
		}
	}
	switch {
	case sick == 0:
		return "healthy"
	case 2*well > voters:
		return "degraded"
	default:
		return "unhealthy"
	}
}

func clusterHealthAnswer(states []memberHealth) answer {
	type memberJSON struct {
		ID       hexID  `json:"id"`
		Name     string `json:"name"`
		Healthy  bool   `json:"healthy"`
		Endpoint string `json:"endpoint"`
		Error    string `json:"error,omitempty"`
	}
	object := []memberJSON{}
	t := &table{header: []string{"ID", "NAME", "HEALTHY", "ENDPOINT", "ERROR"}}
	for _, s := range states {
		id, well := hexID(s.member.ID), s.check.err == nil
		object = append(object, memberJSON{id, s.member.Name, well, s.check.endpoint, messageOf(s.check.err)})
		t.add(id.String(), s.member.Name, strconv.FormatBool(well), s.check.endpoint, messageOf(s.check.err))
	}
	verdict := verdictOf(states)
	return answer{
		simple: func(w *bytes.Buffer) {
			for _, s := range states {
				if s.check.err == nil {
					fmt.Fprintf(w, "member %s is healthy: got healthy result from %s\n", hexID(s.member.ID), s.check.endpoint)
				} else {
					fmt.Fprintf(w, "member %s is unhealthy: %s\n", hexID(s.member.ID), messageOf(s.check.err))
				}
			}
			fmt.Fprintf(w, "cluster is %s\n", verdict)
		},
		table: t,
		json:  map[string]any{"cluster": verdict, "members": object},
	}
}

func newHashKVCommand(a *app) *cobra.Command {
	var all bool
	var revision int64
	c := &cobra.Command{
		Use:   "hashkv",
		Short: "print a hash of the history of each endpoint",
		Long: `Print a hash of all keys with their history up to a revision, for each of the endpoints. Members whose compact revision
is the same have the same hash at the same revision. Latchkey and etcd do not.`,
		Example: "  latchkey endpoint hashkv --cluster\n  latchkey endpoint hashkv --cluster --rev=4711",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if all {
				if err := a.useMembers(c.Context()); err != nil {
					return err
				}
			}
			return a.withClient(func(cl *client.Client) error { return a.hashKV(c.Context(), cl, revision) })
		},
	}
	c.Flags().Int64Var(&revision, "rev", 0, "up to this revision; 0 is whatever each endpoint has now")
	c.Flags().BoolVar(&all, "cluster", false, "ask all members, not only the endpoints given")
	return a.addGlobals(c)
}

func (a *app) hashKV(ctx context.Context, cl *client.Client, revision int64) error {
	var hashes []client.KVHash
	for _, endpoint := range a.endpoints {
		hash, err := cl.HashKV(ctx, endpoint, client.Revision(revision))
		if err != nil {
			fmt.Fprintf(a.errOut, "latchkey: %s: %s\n", endpoint, messageOf(err))
			continue
		}
		hashes = append(hashes, hash)
	}
	if len(hashes) > 0 {
		if err := a.print(hashAnswer(hashes)); err != nil {
			return err
		}
	}
	if silent := len(a.endpoints) - len(hashes); silent > 0 {
		return fmt.Errorf("%d of %d endpoints did not answer", silent, len(a.endpoints))
	}
	return nil
}

func hashAnswer(hashes []client.KVHash) answer {
	type hashJSON struct {
		Endpoint string          `json:"endpoint"`
		Hash     uint32          `json:"hash"`
		Revision client.Revision `json:"hash_revision"`
		Compact  client.Revision `json:"compact_revision"`
	}
	object := []hashJSON{}
	t := &table{header: []string{"ENDPOINT", "HASH", "HASH REVISION", "COMPACT REVISION"}}
	for _, h := range hashes {
		object = append(object, hashJSON{h.Endpoint, h.Hash, h.Revision, h.Compact})
		t.add(h.Endpoint, decimal(uint64(h.Hash)), decimal(h.Revision), decimal(h.Compact))
	}
	return answer{simple: t.commas, table: t, json: map[string]any{"endpoints": object}}
}
