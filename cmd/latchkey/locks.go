package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

func newLocksCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "locks",
		Short: "look at locks, ask their holders to release them, break them",
		Example: `  latchkey locks list jobs/
  latchkey locks show jobs/nightly
  latchkey locks request-release jobs/nightly --reason="upgrade at noon" --wait
  latchkey locks break jobs/nightly`,
		RunE: runGroup,
	}
	c.AddCommand(a.locksList(), a.locksShow(), a.locksWatch(), a.locksRequestRelease(), a.locksBreak())
	return c
}

func (a *app) locksList() *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:   "list [PREFIX]",
		Short: "print the locks that are held",
		Long: `Print the names below PREFIX that are held, or all. They are found by the form of their keys, NAME/LEASE, which
elections have as well.`,
		Example: "  latchkey locks list jobs/ --output=table",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			prefix := ""
			if len(args) > 0 {
				prefix = args[0]
			}
			return a.withClient(func(cl *client.Client) error {
				var infos []lock.Info
				for info, err := range lock.List(c.Context(), cl, prefix) {
					if err != nil {
						return err
					}
					infos = append(infos, info)
				}
				return a.print(locksAnswer(infos))
			})
		},
	})
}

func (a *app) locksShow() *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "show NAME",
		Short:   "print who holds a lock and who waits for it",
		Long:    "Print who holds a lock and who waits for it, in the order in which they will have it.",
		Example: "  latchkey locks show jobs/nightly --output=table",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				info, err := lock.Inspect(c.Context(), cl, args[0])
				if err != nil {
					return err
				}
				return a.print(lockAnswer(info))
			})
		},
	})
}

func (a *app) locksWatch() *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "watch NAME",
		Short:   "print who holds a lock, and again when that changes",
		Long:    "Print a line for the holder of a lock and how many wait for it, now and after each change.",
		Example: "  latchkey locks watch jobs/nightly --output=json",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				for info, err := range lock.Watch(c.Context(), cl, args[0]) {
					if err != nil {
						return err
					}
					answer := locksAnswer([]lock.Info{info})
					answer.table, answer.json = nil, lockJSONOf(info)
					if err := a.print(answer); err != nil {
						return err
					}
				}
				return nil
			})
		},
	})
}

func (a *app) locksRequestRelease() *cobra.Command {
	var r lock.Request
	var wait bool
	c := &cobra.Command{
		Use:   "request-release NAME",
		Short: "ask the holder of a lock to release it",
		Long: `Ask the holder of a lock to release it. Whether it does is up to the holder; latchkey lock tells its user, and with
--yield stops its command.`,
		Example: `  latchkey locks request-release jobs/nightly --reason="upgrade at noon" --wait`,
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error { return a.requestRelease(c.Context(), cl, args[0], r, wait) })
		},
	}
	c.Flags().StringVar(&r.By, "by", "", "who asks (host and process)")
	c.Flags().StringVar(&r.Reason, "reason", "", "why")
	c.Flags().BoolVar(&wait, "wait", false, "wait until the holder has gone")
	return a.addGlobals(c)
}

func (a *app) requestRelease(ctx context.Context, cl *client.Client, name string, r lock.Request, wait bool) error {
	info, err := lock.Inspect(ctx, cl, name)
	if err != nil {
		return err
	}
	if err := lock.RequestRelease(ctx, cl, name, r); err != nil {
		return err
	}
	if len(info.Holders) == 0 {
		return nil // somebody came just in time to be asked
	}
	holder := info.Holders[0]
	if err := a.print(contenderAnswer(name, holder, "lock %s: %s (token %d) was asked to release it\n")); err != nil || !wait {
		return err
	}
	for info, err := range lock.Watch(ctx, cl, name) {
		if err != nil {
			return err
		}
		if len(info.Holders) == 0 || info.Holders[0].Token != holder.Token {
			break
		}
	}
	return nil
}

func (a *app) locksBreak() *cobra.Command {
	var token uint64
	c := &cobra.Command{
		Use:   "break NAME",
		Short: "take a lock away from its holder",
		Long: `Take a lock away from its holder, or from whoever has the token. The next in the queue has it at once. The old holder
is told, but until it notices, it may go on with what it does. Ask first: latchkey locks request-release.`,
		Example: "  latchkey locks break jobs/nightly\n  latchkey locks break jobs/nightly --token=4711",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				victim, err := contenderWith(c.Context(), cl, args[0], fence.Token(token))
				if err != nil {
					return err
				}
				if err := lock.Break(c.Context(), cl, args[0], victim.Token); err != nil {
					return err
				}
				return a.print(contenderAnswer(args[0], victim, "lock %s: %s (token %d) has lost it\n"))
			})
		},
	}
	c.Flags().Uint64Var(&token, "token", 0, "whose place in the queue to end (the holder's)")
	return a.addGlobals(c)
}

// contenderWith returns the contender with the token, or the holder if that is
// zero.
func contenderWith(ctx context.Context, cl *client.Client, name string, token fence.Token) (lock.Contender, error) {
	info, err := lock.Inspect(ctx, cl, name)
	if err != nil {
		return lock.Contender{}, err
	}
	for _, c := range append(info.Holders, info.Waiters...) {
		if token == 0 || c.Token == token {
			return c, nil
		}
	}
	if token == 0 {
		return lock.Contender{}, errors.New("nobody holds the lock " + name)
	}
	return lock.Contender{}, fmt.Errorf("nobody in the queue of lock %s has the token %d", name, token)
}

// contenderJSON is a holder or waiter in JSON.
type contenderJSON struct {
	Token   fence.Token   `json:"token"`
	Owner   text          `json:"owner"`
	Info    text          `json:"info,omitempty"`
	Lease   hexID         `json:"lease"`
	Key     text          `json:"key"`
	Request *lock.Request `json:"request,omitempty"`
	Mode    string        `json:"mode,omitempty"`    // of a read-write lock
	Permits int64         `json:"permits,omitempty"` // of a semaphore
}

type lockJSON struct {
	Name     text            `json:"name"`
	Revision client.Revision `json:"revision"`
	Holders  []contenderJSON `json:"holders"`
	Waiters  []contenderJSON `json:"waiters"`
}

func contenderJSONOf(c lock.Contender) contenderJSON {
	return contenderJSON{
		Token: c.Token, Owner: text(c.Owner), Info: text(c.Info), Lease: hexID(c.Lease), Key: text(c.Key), Request: c.Request,
		Permits: c.Permits,
	}
}

func lockJSONOf(info lock.Info) lockJSON {
	out := lockJSON{Name: text(info.Name), Revision: info.Revision, Holders: []contenderJSON{}, Waiters: []contenderJSON{}}
	for _, c := range info.Holders {
		out.Holders = append(out.Holders, contenderJSONOf(c))
	}
	for _, c := range info.Waiters {
		out.Waiters = append(out.Waiters, contenderJSONOf(c))
	}
	return out
}

// ownerOf is what to call a contender; clients of etcd do not say who they are.
func ownerOf(c lock.Contender) string {
	if c.Owner == "" {
		return "lease " + hexID(c.Lease).String()
	}
	return c.Owner
}

// locksAnswer prints one line for a lock.
func locksAnswer(infos []lock.Info) answer {
	t := &table{header: []string{"NAME", "HOLDER", "TOKEN", "WAITERS", "INFO", "REQUEST"}}
	objects := []lockJSON{}
	for _, info := range infos {
		objects = append(objects, lockJSONOf(info))
		holder, token, note, request := "", "", "", ""
		if len(info.Holders) > 0 {
			h := info.Holders[0]
			holder, token, note = ownerOf(h), strconv.FormatUint(uint64(h.Token), 10), h.Info
			request = requestText(h.Request)
		}
		t.add(info.Name, holder, token, strconv.Itoa(len(info.Waiters)), note, request)
	}
	return answer{simple: func(w *bytes.Buffer) { writeLines(w, t.rows) }, table: t, json: map[string]any{"locks": objects}}
}

// lockAnswer prints one line for a contender.
func lockAnswer(info lock.Info) answer {
	t := &table{header: []string{"STATE", "OWNER", "TOKEN", "LEASE", "INFO", "REQUEST"}}
	row := func(state string, c lock.Contender) {
		t.add(state, c.Owner, strconv.FormatUint(uint64(c.Token), 10), hexID(c.Lease).String(), c.Info, requestText(c.Request))
	}
	for _, c := range info.Holders {
		row("holds", c)
	}
	for _, c := range info.Waiters {
		row("waits", c)
	}
	return answer{simple: func(w *bytes.Buffer) { writeLines(w, t.rows) }, table: t, json: lockJSONOf(info)}
}

// writeLines writes the cells of each row with commas between them.
func writeLines(w *bytes.Buffer, rows [][]string) {
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				w.WriteString(", ")
			}
			w.WriteString(printable(cell))
		}
		w.WriteByte('\n')
	}
}

// requestText is a request in a few words.
func requestText(r *lock.Request) string {
	switch {
	case r == nil:
		return ""
	case r.Reason == "":
		return r.By
	}
	return r.By + ": " + r.Reason
}

// contenderAnswer says what was done to a contender.
func contenderAnswer(name string, c lock.Contender, format string) answer {
	return answer{
		simple: func(w *bytes.Buffer) { fmt.Fprintf(w, format, printable(name), printable(ownerOf(c)), c.Token) },
		json:   map[string]any{"name": text(name), "contender": contenderJSONOf(c)},
	}
}
