package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

func newRoleCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "role",
		Short: "make, look at and change roles",
		Long:  "Roles, and what they allow: reading or writing a key, a range of keys, or all keys with a prefix.",
		Example: `  latchkey role add reader
  latchkey role grant-permission reader read config/ --prefix
  latchkey role get reader`,
		RunE: runGroup,
	}
	c.AddCommand(newRoleAdd(a), newRoleDelete(a), newRoleGet(a), newRoleList(a), newRoleGrant(a), newRoleRevoke(a))
	return c
}

func newRoleAdd(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "add NAME",
		Short:   "make a role that allows nothing yet",
		Example: "  latchkey role add reader",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.change(args[0], "role", "role %s created\n", func(cl *client.Client) error {
				return cl.AddRole(c.Context(), args[0])
			})
		},
	})
}

func newRoleDelete(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "delete NAME",
		Short:   "delete a role, and take it from all users",
		Example: "  latchkey role delete reader",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.change(args[0], "role", "role %s deleted\n", func(cl *client.Client) error {
				return cl.DeleteRole(c.Context(), args[0])
			})
		},
	})
}

func newRoleGet(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "get NAME",
		Short:   "print what a role allows",
		Example: "  latchkey role get reader --output=table",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				permissions, err := cl.Permissions(c.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(permissionsAnswer([]rolePermissions{{args[0], permissions}}))
			})
		},
	})
}

func newRoleList(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "list",
		Short:   "print the names of all roles",
		Example: "  latchkey role list",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(cl *client.Client) error {
				roles, err := cl.Roles(c.Context())
				if err != nil {
					return err
				}
				return a.print(namesAnswer("roles", roles))
			})
		},
	})
}

// keysFlags name the keys of a permission beside KEY and END.
type keysFlags struct{ prefix, fromKey bool }

func (k *keysFlags) bind(c *cobra.Command) {
	c.Flags().BoolVar(&k.prefix, "prefix", false, "all keys that begin with KEY; an empty KEY means all keys")
	c.Flags().BoolVar(&k.fromKey, "from-key", false, "KEY and all keys behind it")
}

// options returns what makes a range of the key. args are KEY, and END perhaps.
func (k *keysFlags) options(args []string) ([]client.RangeOption, error) {
	switch {
	case k.prefix && k.fromKey, len(args) == 2 && (k.prefix || k.fromKey):
		return nil, usageErrorf("END, --prefix and --from-key contradict each other")
	case k.prefix:
		return []client.RangeOption{client.Prefix()}, nil
	case k.fromKey:
		return []client.RangeOption{client.FromKey()}, nil
	case len(args) == 2:
		return []client.RangeOption{client.Range(args[1])}, nil
	default:
		return nil, nil
	}
}

// between checks the arguments of a command whose last one may be left out.
func between(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usageErrorf("%s takes %d or %d arguments, not %d: %s", c.CommandPath(), least, most, len(args), c.UseLine())
		}
		return nil
	}
}

func newRoleGrant(a *app) *cobra.Command {
	var keys keysFlags
	c := &cobra.Command{
		Use:   "grant-permission ROLE read|write|readwrite KEY [END]",
		Short: "let a role have access to keys",
		Long: `Let a role read or write a key, or the keys from KEY up to END. Another access that it has to exactly these keys is
replaced.`,
		Example: `  latchkey role grant-permission reader read config/ --prefix
  latchkey role grant-permission writer readwrite a m
  latchkey role grant-permission admin readwrite "" --prefix`,
		Args: between(3, 4),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) != 1 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"read", "write", "readwrite"}, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			access, err := parseAccess(args[1])
			if err != nil {
				return err
			}
			options, err := keys.options(args[2:])
			if err != nil {
				return err
			}
			return a.change(args[0], "role", "role %s updated\n", func(cl *client.Client) error {
				return cl.GrantPermission(c.Context(), args[0], access, args[2], options...)
			})
		},
	}
	keys.bind(c)
	return a.addGlobals(c)
}

func newRoleRevoke(a *app) *cobra.Command {
	var keys keysFlags
	c := &cobra.Command{
		Use:     "revoke-permission ROLE KEY [END]",
		Short:   "take a role's access to keys",
		Long:    "Take what a role may do with exactly these keys: the same KEY, END and flags as when it was granted.",
		Example: "  latchkey role revoke-permission reader config/ --prefix",
		Args:    between(2, 3),
		RunE: func(c *cobra.Command, args []string) error {
			options, err := keys.options(args[1:])
			if err != nil {
				return err
			}
			return a.change(args[0], "role", "role %s updated\n", func(cl *client.Client) error {
				return cl.RevokePermission(c.Context(), args[0], args[1], options...)
			})
		},
	}
	keys.bind(c)
	return a.addGlobals(c)
}

func parseAccess(s string) (client.Access, error) {
	for _, access := range []client.Access{client.Read, client.Write, client.ReadWrite} {
		if strings.EqualFold(s, access.String()) {
			return access, nil
		}
	}
	return 0, usageErrorf("%q is no access: choose read, write or readwrite", s)
}

// rolePermissions is a role with what it allows.
type rolePermissions struct {
	role        string
	permissions []client.Permission
}

func permissionsAnswer(roles []rolePermissions) answer {
	type permissionJSON struct {
		Access string `json:"access"`
		Key    text   `json:"key"`
		End    *text  `json:"end,omitempty"`
	}
	type roleJSON struct {
		Role        string           `json:"role"`
		Permissions []permissionJSON `json:"permissions"`
	}
	object := []roleJSON{}
	t := &table{header: []string{"ROLE", "ACCESS", "KEYS"}}
	for _, r := range roles {
		one := roleJSON{r.role, []permissionJSON{}}
		for _, p := range r.permissions {
			permission := permissionJSON{Access: p.Access.String(), Key: text(p.Key)}
			if p.End != "" {
				end := text(p.End)
				permission.End = &end
			}
			one.Permissions = append(one.Permissions, permission)
			t.add(r.role, p.Access.String(), keysText(p))
		}
		object = append(object, one)
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			for _, r := range roles {
				fmt.Fprintf(w, "Role %s\n", r.role)
				for _, p := range r.permissions {
					fmt.Fprintf(w, "  %-9s  %s\n", p.Access, keysText(p))
				}
			}
		},
		table: t,
		json:  map[string]any{"roles": object},
	}
}

// keysText names the keys of a permission for people.
func keysText(p client.Permission) string {
	const open = "\x00" // as an end: none; as a key: the first possible one
	switch {
	case p.End == "":
		return printable(p.Key)
	case p.End == open && (p.Key == open || p.Key == ""):
		return "all keys"
	case p.End == open:
		return fmt.Sprintf("from %s on", printable(p.Key))
	case p.Key != "" && p.Key[len(p.Key)-1] < 0xff && p.End == p.Key[:len(p.Key)-1]+string([]byte{p.Key[len(p.Key)-1] + 1}):
		return fmt.Sprintf("%s... (prefix)", printable(p.Key))
	default:
		return fmt.Sprintf("from %s to before %s", printable(p.Key), printable(p.End))
	}
}
