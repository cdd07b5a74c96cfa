package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

func newUserCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "user",
		Short: "make, look at and change users",
		Long: `Users, and the roles that they have. What a role allows is said by latchkey role, and whether users are asked who they
are at all, by latchkey auth.

A password is asked for on a terminal, and read as one line from standard input otherwise.`,
		Example: `  latchkey user add alice
  latchkey user grant-role alice reader
  latchkey user get alice --detail`,
		RunE: runGroup,
	}
	c.AddCommand(newUserAdd(a), newUserDelete(a), newUserGet(a), newUserList(a), newUserPasswd(a),
		newUserRole(a, "grant-role", "give a user a role", "has", (*client.Client).GrantRole),
		newUserRole(a, "revoke-role", "take a role from a user", "no longer has", (*client.Client).RevokeRole))
	return c
}

func newUserAdd(a *app) *cobra.Command {
	var none bool
	var given string
	c := &cobra.Command{
		Use:   "add NAME[:PASSWORD]",
		Short: "make a user",
		Long: `Make a user without roles. A password on the command line can be seen by others on this machine while the command runs,
and stays in the shell's history: better leave it to be asked for.`,
		Example: `  latchkey user add alice
  latchkey user add alice < password.txt
  latchkey user add backup --no-password         # who logs in by certificate`,
		Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			name, password, known := strings.Cut(args[0], ":")
			if c.Flags().Changed("new-user-password") {
				password, known = given, true
			}
			if none && known {
				return usageErrorf("--no-password and a password contradict each other")
			}
			if !none && !known {
				var err error
				if password, err = a.readPassword(c.Context(), name); err != nil {
					return err
				}
			}
			return a.withClient(func(cl *client.Client) error {
				var err error
				if none {
					err = cl.AddUserWithoutPassword(c.Context(), name)
				} else {
					err = cl.AddUser(c.Context(), name, password)
				}
				if err != nil {
					return err
				}
				return a.print(doneAnswer("user", name, "user %s created\n"))
			})
		},
	}
	c.Flags().BoolVar(&none, "no-password", false, "one who can not log in with a password")
	c.Flags().StringVar(&given, "new-user-password", "", "the password, as in etcdctl")
	return a.addGlobals(c)
}

func newUserDelete(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "delete NAME",
		Short:   "delete a user",
		Example: "  latchkey user delete alice",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.change(args[0], "user", "user %s deleted\n", func(cl *client.Client) error {
				return cl.DeleteUser(c.Context(), args[0])
			})
		},
	})
}

func newUserGet(a *app) *cobra.Command {
	var detail bool
	c := &cobra.Command{
		Use:     "get NAME",
		Short:   "print the roles of a user",
		Example: "  latchkey user get alice\n  latchkey user get alice --detail",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				roles, err := cl.UserRoles(c.Context(), args[0])
				if err != nil {
					return err
				}
				if !detail {
					return a.print(userAnswer(args[0], roles))
				}
				var all []rolePermissions
				for _, role := range roles {
					permissions, err := cl.Permissions(c.Context(), role)
					if err != nil {
						return err
					}
					all = append(all, rolePermissions{role, permissions})
				}
				return a.print(permissionsAnswer(all))
			})
		},
	}
	c.Flags().BoolVar(&detail, "detail", false, "print what each role allows")
	return a.addGlobals(c)
}

func newUserList(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "list",
		Short:   "print the names of all users",
		Example: "  latchkey user list",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(cl *client.Client) error {
				users, err := cl.Users(c.Context())
				if err != nil {
					return err
				}
				return a.print(namesAnswer("users", users))
			})
		},
	})
}

func newUserPasswd(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "passwd NAME",
		Short:   "give a user another password",
		Long:    "Give a user another password. It is asked for on a terminal, and read as one line from standard input otherwise.",
		Example: "  latchkey user passwd alice\n  latchkey user passwd alice < password.txt",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			password, err := a.readPassword(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.change(args[0], "user", "password of user %s changed\n", func(cl *client.Client) error {
				return cl.ChangePassword(c.Context(), args[0], password)
			})
		},
	})
}

// newUserRole makes one of the two commands that connect users and roles.
func newUserRole(a *app, name, short, verb string, do func(*client.Client, context.Context, string, string) error) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     name + " USER ROLE",
		Short:   short,
		Example: "  latchkey user " + name + " alice reader",
		Args:    exactly("USER", "ROLE"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				if err := do(cl, c.Context(), args[0], args[1]); err != nil {
					return err
				}
				return a.print(answer{
					simple: func(w *bytes.Buffer) { fmt.Fprintf(w, "user %s %s role %s\n", args[0], verb, args[1]) },
					json:   map[string]string{"user": args[0], "role": args[1]},
				})
			})
		},
	})
}

// change runs a change of one user or role, and says that it is done.
func (a *app) change(name, kind, format string, do func(*client.Client) error) error {
	return a.withClient(func(cl *client.Client) error {
		if err := do(cl); err != nil {
			return err
		}
		return a.print(doneAnswer(kind, name, format))
	})
}

func doneAnswer(kind, name, format string) answer {
	return answer{
		simple: func(w *bytes.Buffer) { fmt.Fprintf(w, format, name) },
		json:   map[string]string{kind: name},
	}
}

// namesAnswer prints names, one to a line.
func namesAnswer(kind string, names []string) answer {
	t := &table{header: []string{strings.ToUpper(strings.TrimSuffix(kind, "s"))}}
	for _, name := range names {
		t.add(name)
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			for _, name := range names {
				fmt.Fprintln(w, name)
			}
		},
		table: t,
		json:  map[string][]string{kind: append([]string{}, names...)},
	}
}

func userAnswer(name string, roles []string) answer {
	return answer{
		simple: func(w *bytes.Buffer) {
			fmt.Fprintf(w, "User: %s\nRoles:", name)
			for _, role := range roles {
				fmt.Fprintf(w, " %s", role)
			}
			fmt.Fprintln(w)
		},
		table: &table{header: []string{"USER", "ROLES"}, rows: [][]string{{name, strings.Join(roles, ", ")}}},
		json: struct {
			User  string   `json:"user"`
			Roles []string `json:"roles"`
		}{name, append([]string{}, roles...)},
	}
}
