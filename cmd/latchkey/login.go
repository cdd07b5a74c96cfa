package main

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// login is whose calls the commands make on a cluster that needs users.
type login struct{ user, password string }

// addTo defines the flags, with etcdctl's names. What the environment has for
// them is not their default, which help would show.
func (l *login) addTo(f *pflag.FlagSet) {
	f.StringVar(&l.user, "user", "", "do it as this user, `NAME[:PASSWORD]` (or "+strings.Join(settingNames("user"), ", ")+")")
	f.StringVar(&l.password, "password", "", "his password (or "+strings.Join(settingNames("password"), ", ")+"); asked for on a terminal")
}

// completeLogin adds what the environment says, and asks for a password that is
// missing. Only client commands log in.
func (a *app) completeLogin(c *cobra.Command) error {
	l := &a.login
	if c.Flags().Lookup("user") == nil || c.Flags().Lookup("endpoints") == nil {
		return nil
	}
	if l.user == "" {
		l.user = a.setting("user")
	}
	if l.password == "" {
		l.password = a.setting("password")
	}
	if name, password, ok := strings.Cut(l.user, ":"); ok && l.password == "" {
		l.user, l.password = name, password
	}
	switch {
	case l.user == "" && c.Flags().Changed("password"):
		return usageErrorf("--password without --user")
	case l.user == "" || l.password != "":
		return nil
	}
	return a.askLogin(c.Context())
}

func (a *app) askLogin(ctx context.Context) error {
	f, ok := a.in.(*os.File)
	if !ok || !isTerminal(f) {
		return usageErrorf("no password of user %s: give --password, or LATCHKEY_PASSWORD in the environment", a.login.user)
	}
	var err error
	a.login.password, err = a.askPassword(ctx, f, "Password: ")
	return err
}
