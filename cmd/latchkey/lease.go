package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

// renewalsPerTTL is how often keep-alive renews a lease within its time to
// live: one lost renewal, or an election, does not cost the lease.
const renewalsPerTTL = 3

func newLeaseCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "lease",
		Short: "grant, renew, look at and revoke leases",
		Long:  "Leases: keys that are put with --lease are deleted when the lease ends. Ids are hexadecimal, as printed.",
		Example: `  latchkey lease grant 60
  latchkey lease keep-alive 694d77aa9e38260f
  latchkey lease timetolive 694d77aa9e38260f --keys
  latchkey lease revoke 694d77aa9e38260f
  latchkey lease list`,
		RunE: runGroup,
	}
	c.AddCommand(newLeaseGrant(a), newLeaseRevoke(a), newLeaseTimeToLive(a), newLeaseKeepAlive(a), newLeaseList(a))
	return c
}

func newLeaseGrant(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "grant TTL",
		Short:   "make a lease",
		Long:    "Make a lease. TTL is a number of seconds, or a duration such as 2m; parts of a second count as a whole one.",
		Example: "  latchkey lease grant 60\n  latchkey lease grant 2m",
		Args:    exactly("TTL"),
		RunE: func(c *cobra.Command, args []string) error {
			ttl, err := parseTTL(args[0])
			if err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error {
				lease, err := cl.Grant(c.Context(), ttl)
				if err != nil {
					return err
				}
				return a.print(leaseAnswer(lease, "lease %s granted with TTL(%ds)\n"))
			})
		},
	})
}

func newLeaseRevoke(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "revoke ID",
		Short:   "end a lease and delete its keys",
		Example: "  latchkey lease revoke 694d77aa9e38260f",
		Args:    exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseLease(args[0])
			if err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error {
				if err := cl.Revoke(c.Context(), id); err != nil {
					return err
				}
				return a.print(answer{
					simple: func(w *bytes.Buffer) { fmt.Fprintf(w, "lease %s revoked\n", hexID(id)) },
					json:   map[string]hexID{"id": hexID(id)},
				})
			})
		},
	})
}

func newLeaseTimeToLive(a *app) *cobra.Command {
	var keys bool
	c := &cobra.Command{
		Use:     "timetolive ID",
		Aliases: []string{"ttl"},
		Short:   "print what a lease has left",
		Example: "  latchkey lease timetolive 694d77aa9e38260f --keys",
		Args:    exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseLease(args[0])
			if err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error {
				lease, err := cl.TimeToLive(c.Context(), id)
				if err != nil {
					return err
				}
				return a.print(timeToLiveAnswer(lease, keys))
			})
		},
	}
	c.Flags().BoolVar(&keys, "keys", false, "print the keys that are attached to it, too")
	return a.addGlobals(c)
}

func newLeaseKeepAlive(a *app) *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use:     "keep-alive ID",
		Short:   "renew a lease until the command is interrupted",
		Long:    "Renew a lease, several times within each TTL, until the command is interrupted or the lease is gone.",
		Example: "  latchkey lease keep-alive 694d77aa9e38260f\n  latchkey lease keep-alive 694d77aa9e38260f --once",
		Args:    exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseLease(args[0])
			if err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error { return a.keepAlive(c.Context(), cl, id, once) })
		},
	}
	c.Flags().BoolVar(&once, "once", false, "renew it once")
	return a.addGlobals(c)
}

// keepAlive renews until ctx is done or the lease is gone. A renewal that got
// no answer is tried again: the lease itself decides when it is too late.
func (a *app) keepAlive(ctx context.Context, cl *client.Client, id client.LeaseID, once bool) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-pause.C:
		}
		lease, err := cl.KeepAliveOnce(ctx, id)
		switch {
		case err == nil:
			if err := a.print(leaseAnswer(lease, "lease %s keepalived with TTL(%d)\n")); err != nil {
				return err
			}
			pause.Reset(lease.TTL / renewalsPerTTL)
		case !once && errors.Is(err, client.ErrUnavailable):
			fmt.Fprintf(a.errOut, "latchkey: %s; trying again\n", messageOf(err))
			pause.Reset(time.Second)
		default:
			return err
		}
		if once {
			return nil
		}
	}
}

func newLeaseList(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "list",
		Short:   "print the ids of all leases",
		Example: "  latchkey lease list",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(cl *client.Client) error {
				ids, err := cl.Leases(c.Context())
				if err != nil {
					return err
				}
				return a.print(leaseListAnswer(ids))
			})
		},
	})
}

// parseLease reads a lease id as all commands print it: in hexadecimal.
func parseLease(s string) (client.LeaseID, error) {
	n, err := strconv.ParseInt(s, 16, 64)
	if err != nil || n == 0 {
		return 0, usageErrorf("%q is not the id of a lease, such as 694d77aa9e38260f", s)
	}
	return client.LeaseID(n), nil
}

// ttlMax is the longest time.Duration in whole seconds: 292 years.
const ttlMax = time.Duration(1<<63-1) / time.Second

// parseTTL reads whole seconds, or a duration with its unit.
func parseTTL(s string) (time.Duration, error) {
	seconds, err := strconv.ParseInt(s, 10, 64)
	if err == nil && seconds > 0 && seconds <= int64(ttlMax) {
		return time.Duration(seconds) * time.Second, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, usageErrorf("%q is not a time to live: give seconds, or a duration such as 2m", s)
	}
	return d, nil
}

// leaseAnswer prints a lease with its full TTL; simple takes id and seconds.
func leaseAnswer(lease client.LeaseInfo, simple string) answer {
	return answer{
		simple: func(w *bytes.Buffer) { fmt.Fprintf(w, simple, hexID(lease.ID), wholeSeconds(lease.TTL)) },
		json: struct {
			ID  hexID `json:"id"`
			TTL int64 `json:"ttl_seconds"`
		}{hexID(lease.ID), wholeSeconds(lease.TTL)},
	}
}

func timeToLiveAnswer(lease client.LeaseInfo, withKeys bool) answer {
	object := struct {
		ID        hexID   `json:"id"`
		Granted   int64   `json:"granted_seconds"`
		Remaining int64   `json:"remaining_seconds"`
		Keys      *[]text `json:"keys,omitempty"`
	}{ID: hexID(lease.ID), Granted: wholeSeconds(lease.Granted), Remaining: wholeSeconds(lease.TTL)}
	if withKeys {
		keys := make([]text, 0, len(lease.Keys))
		for _, k := range lease.Keys {
			keys = append(keys, text(k))
		}
		object.Keys = &keys
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			fmt.Fprintf(w, "lease %s granted with TTL(%ds), remaining(%ds)", object.ID, object.Granted, object.Remaining)
			if withKeys {
				fmt.Fprintf(w, ", attached keys(%v)", lease.Keys)
			}
			w.WriteByte('\n')
		},
		json: object,
	}
}

func leaseListAnswer(ids []client.LeaseID) answer {
	leases := make([]hexID, 0, len(ids))
	for _, id := range ids {
		leases = append(leases, hexID(id))
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			fmt.Fprintf(w, "found %d leases\n", len(leases))
			for _, id := range leases {
				fmt.Fprintln(w, id)
			}
		},
		json: map[string][]hexID{"leases": leases},
	}
}

func wholeSeconds(d time.Duration) int64 { return int64(d / time.Second) }
