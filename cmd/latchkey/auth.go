package main

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

func newAuthCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "auth",
		Short: "have users asked who they are, or not",
		Long: `Whether the cluster asks its users who they are, and lets them do only what their roles allow. It needs a user root with
the role root first, who may do everything.`,
		Example: `  latchkey user add root
  latchkey user grant-role root root
  latchkey auth enable
  latchkey auth status`,
		RunE: runGroup,
	}
	c.AddCommand(a.addGlobals(&cobra.Command{
		Use:     "enable",
		Short:   "ask users who they are",
		Long:    "Ask users who they are. There has to be a user root with the role root.",
		Example: "  latchkey auth enable",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.change("enabled", "authentication", "authentication %s\n", func(cl *client.Client) error {
				return cl.EnableAuth(c.Context())
			})
		},
	}), a.addGlobals(&cobra.Command{
		Use:     "disable",
		Short:   "let everybody do everything",
		Example: "  latchkey auth disable",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.change("disabled", "authentication", "authentication %s\n", func(cl *client.Client) error {
				return cl.DisableAuth(c.Context())
			})
		},
	}), a.addGlobals(&cobra.Command{
		Use:     "status",
		Short:   "print whether users are asked who they are",
		Example: "  latchkey auth status",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(cl *client.Client) error {
				status, err := cl.AuthStatus(c.Context())
				if err != nil {
					return err
				}
				return a.print(authAnswer(status))
			})
		},
	}))
	return c
}

func authAnswer(s client.AuthStatus) answer {
	return answer{
		simple: func(w *bytes.Buffer) {
			fmt.Fprintf(w, "Authentication Status: %t\nAuthRevision: %d\n", s.Enabled, s.Revision)
		},
		json: struct {
			Enabled  bool   `json:"enabled"`
			Revision uint64 `json:"auth_revision"`
		}{s.Enabled, s.Revision},
	}
}
