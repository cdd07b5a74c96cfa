package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/election"
)

// defaultStepDownWait is how long step-down waits for the leader to go.
const defaultStepDownWait = 30 * time.Second

const observeLong = `Print who leads, now and after each change, until the command is interrupted.

In the simple form a leader is two lines, its key and its value, as etcdctl elect --listen prints them, and a vacancy is
two empty ones. In the table it is one line, and in JSON one object to a line.`

func newElectObserve(a *app) *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use:     "observe NAME",
		Short:   "print who leads, as it changes",
		Long:    observeLong,
		Example: "  latchkey elect observe svc/leader\n  latchkey elect observe svc/leader --once --output=json",
		Args:    exactly("NAME"),
		RunE:    func(c *cobra.Command, args []string) error { return a.observeElection(c.Context(), args[0], once) },
	}
	c.Flags().BoolVar(&once, "once", false, "print who leads now, and end; an error if nobody does")
	return a.addGlobals(c)
}

func (a *app) observeElection(ctx context.Context, name string, once bool) error {
	return a.withClient(func(c *client.Client) error {
		e := election.New[[]byte](c, name)
		if once {
			leader, err := e.Leader(ctx)
			if err != nil {
				return err
			}
			return a.print(leaderAnswer(leader, a.output))
		}
		for leader, err := range e.Observe(ctx) {
			if err != nil {
				return err
			}
			if err := a.print(leaderAnswer(leader, a.output)); err != nil {
				return err
			}
		}
		return nil
	})
}

func newElectList(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "list NAME",
		Short:   "print the candidates, in the order of the line",
		Example: "  latchkey elect list svc/leader --output=table",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				line, err := election.New[[]byte](cl, args[0]).Candidates(c.Context())
				if err != nil {
					return err
				}
				return a.print(candidatesAnswer(line))
			})
		},
	})
}

func newElectStepDown(a *app) *cobra.Command {
	var to, reason string
	var wait time.Duration
	c := &cobra.Command{
		Use:   "step-down NAME",
		Short: "ask the leader to step down, and wait until it has",
		Long: `Ask the leader to step down, and wait until it does not lead any more. Who runs a command with elect ends it first.
The next in line leads then, or the candidate of --to, by its ID as list prints it. Leaders that are etcd's clients can
not be asked.`,
		Example: "  latchkey elect step-down svc/leader --reason=upgrade\n  latchkey elect step-down svc/leader --to=node-2",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeoutCause(c.Context(), wait, errWaited)
				defer cancel()
				e := election.New[[]byte](cl, args[0])
				var err error
				if to == "" {
					err = e.RequestStepDown(ctx, reason)
				} else {
					err = e.RequestHandOver(ctx, to, reason)
				}
				if errors.Is(err, errWaited) {
					return fmt.Errorf("the leader did not step down within %s: the request is withdrawn", wait)
				}
				if err != nil {
					return err
				}
				return a.print(answer{
					simple: func(w *bytes.Buffer) { fmt.Fprintln(w, "OK") },
					json:   map[string]bool{"stepped_down": true},
				})
			})
		},
	}
	f := c.Flags()
	f.StringVar(&to, "to", "", "the candidate that is to lead next (the next in line)")
	f.StringVar(&reason, "reason", "", "what the leader is told")
	f.DurationVar(&wait, "wait", defaultStepDownWait, "how long to wait for the leader to finish")
	return a.addGlobals(c)
}

// candidateJSON is a candidate in JSON.
type candidateJSON struct {
	ID       text   `json:"id"`
	Key      text   `json:"key"`
	Value    text   `json:"value"`
	Term     uint64 `json:"term"`
	Lease    hexID  `json:"lease"`
	Priority int    `json:"priority,omitempty"`
	Preempts bool   `json:"preempts,omitempty"`
	Leads    bool   `json:"leads,omitempty"`
	Ours     bool   `json:"ours"`
}

func candidateToJSON(c election.Candidate) *candidateJSON {
	return &candidateJSON{
		ID: text(c.ID), Key: text(c.Key), Value: text(c.Proposal), Term: uint64(c.Term), Lease: hexID(c.Lease),
		Priority: c.Priority, Preempts: c.Preempts, Leads: c.Leads, Ours: c.Ours,
	}
}

func leaderAnswer(l election.Leader[[]byte], output string) answer {
	object := struct {
		Vacant   bool            `json:"vacant"`
		Revision client.Revision `json:"revision"`
		Leader   *candidateJSON  `json:"leader,omitempty"`
	}{Vacant: l.Vacant, Revision: l.Revision}
	if !l.Vacant {
		object.Leader = candidateToJSON(l.Candidate)
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			switch {
			case output != "table":
				fmt.Fprintf(w, "%s\n%s\n", l.Key, l.Value)
			case l.Vacant: // a stream has no widths to align to
				fmt.Fprintf(w, "%8d  -\n", l.Revision)
			default:
				line := fmt.Sprintf("%8d  term %d  %s  %s", l.Revision, l.Term, printable(l.ID), printable(string(l.Value)))
				fmt.Fprintln(w, strings.TrimRight(line, " "))
			}
		},
		json: object,
	}
}

func candidatesAnswer(line []election.Candidate) answer {
	object := struct {
		Candidates []*candidateJSON `json:"candidates"`
	}{Candidates: make([]*candidateJSON, 0, len(line))}
	t := &table{header: []string{"ID", "STATE", "TERM", "PRIORITY", "LEASE", "VALUE"}}
	for _, c := range line {
		object.Candidates = append(object.Candidates, candidateToJSON(c))
		t.add(c.ID, standing(c), strconv.FormatUint(uint64(c.Term), 10), strconv.Itoa(c.Priority),
			hexID(c.Lease).String(), string(c.Proposal))
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			for _, c := range line {
				fmt.Fprintf(w, "%s, %s, %d, %d, %s\n", c.ID, standing(c), c.Term, c.Priority, c.Proposal)
			}
		},
		table: t,
		json:  object,
	}
}

func standing(c election.Candidate) string {
	if c.Leads {
		return "leads"
	}
	return "waits"
}
