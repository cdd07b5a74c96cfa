package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// runApp runs a command line that needs no member.
func runApp(t *testing.T, env []string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{in: strings.NewReader(""), out: &stdout, errOut: &stderr, environ: env}
	code = a.run(t.Context(), args)
	return code, stdout.String(), stderr.String()
}

func TestWrongUse(t *testing.T) {
	tests := []struct{ args, want string }{
		{"gte k", `latchkey has no command "gte", did you mean "get"?`},
		{"frobnicate", `latchkey has no command "frobnicate": latchkey --help lists them`},
		{"lease gran", `latchkey lease has no command "gran", did you mean "grant"?`},
		{"get", "latchkey get takes KEY, not 0 arguments: latchkey get KEY [flags]"},
		{"put k", "latchkey put takes KEY and VALUE, not 1 arguments: latchkey put KEY VALUE|- [flags]"},
		{"lease list x", "latchkey lease list takes no argument, not 1 arguments: latchkey lease list [flags]"},
		{"get k --perfix", "unknown flag --perfix, did you mean --prefix?"},
		{"get k --limit=x", `invalid argument "x" for "--limit" flag: must be an integer: see latchkey get --help`},
		{"get k --output=xml", `--output "xml": choose simple, table or json`},
		{"get k --timeout=-1s", "--timeout -1s is negative"},
		{"put k v --lease=zz", `"zz" is not the id of a lease, such as 694d77aa9e38260f`},
		{"lease revoke 0", `"0" is not the id of a lease, such as 694d77aa9e38260f`},
		{"lease grant soon", `"soon" is not a time to live: give seconds, or a duration such as 2m`},
		{"lease grant -- -5", `"-5" is not a time to live: give seconds, or a duration such as 2m`},
		{"lock name", "latchkey lock takes a name, and a command behind --: latchkey lock NAME -- COMMAND [ARGS]"},
		{"lock name true", "latchkey lock takes a name, and a command behind --: latchkey lock NAME -- COMMAND [ARGS]"},
		{"lock -- true", "latchkey lock takes a name, and a command behind --: latchkey lock NAME -- COMMAND [ARGS]"},
		{"lock a b -- true", "latchkey lock takes a name, and a command behind --: latchkey lock NAME -- COMMAND [ARGS]"},
		{"put k v --ttl=1 --lease=12ab", "--ttl makes a lease, and --lease names one: give one of them"},
		{"put k v --ttl=soon", `"soon" is not a time to live: give seconds, or a duration such as 2m`},
		{"get k --serializable --consistent", "--serializable and --consistent contradict each other"},
		{"get k --sort-by=size", `--sort-by "size": choose key, version, create, modify or value`},
		{"get k --order=down", `--order "down": choose ascend or descend`},
		{"ls a b", "latchkey ls takes one directory at most, not 2 arguments: latchkey ls [DIRECTORY] [flags]"},
		{"ls --serializable --consistent", "--serializable and --consistent contradict each other"},
		{"rm k --recursive --with-value=x", "--with-value and --with-index are about one key"},
		{"rm k --recursive --dir", "--recursive and --dir contradict each other"},
		{"watch k --rev=1 --after-index=1", "--rev and --after-index contradict each other"},
		{"exec-watch k", "latchkey exec-watch takes a key, and a command behind --: latchkey exec-watch KEY -- COMMAND [ARGS]"},
		{"compact now", `"now" is not a revision, such as 4711`},
		{"user add", "latchkey user add takes NAME, not 0 arguments: latchkey user add NAME[:PASSWORD] [flags]"},
		{"user add bob", "no password on standard input (--no-password makes a user without one)"},
		{"user add bob:x --no-password", "--no-password and a password contradict each other"},
		{"role grant-permission r run k", `"run" is no access: choose read, write or readwrite`},
		{"role grant-permission r read a b --prefix", "END, --prefix and --from-key contradict each other"},
		{"role grant-permission r read", "latchkey role grant-permission takes 3 or 4 arguments, not 2: latchkey role grant-permission ROLE read|write|readwrite KEY [END] [flags]"},
		{"server --nmae=a", "unknown flag --nmae, did you mean --name?"},
		{"--nmae=a", "unknown flag --nmae, did you mean --name?"},
		{"gateway start --endpoints=a:1", "latchkey has no gateway: clients connect to the members themselves, or through any TCP load balancer"},
		{"-endpoints=a:1 get k", "--endpoints belongs behind a client command, as in: latchkey get --endpoints=... KEY"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, out, errOut := runApp(t, nil, strings.Fields(tt.args)...)
			require.Equal(t, "latchkey: "+tt.want+"\n", errOut)
			require.Empty(t, out)
			require.Equal(t, exitUsage, code)
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	tests := []struct{ args, want string }{
		{"", "latchkey lock jobs/nightly -- ./nightly.sh"},
		{"--help", "latchkey lock jobs/nightly -- ./nightly.sh"},
		{"-h", "latchkey lock jobs/nightly -- ./nightly.sh"},
		{"help get", "latchkey get greeting --rev=7"},
		{"get --help", "latchkey get greeting --rev=7"},
		{"lease", "latchkey lease keep-alive"},
		{"server --help", "--initial-cluster-token=TEXT"},
		{"server -h", "--initial-cluster-token=TEXT"},
		{"help server", "--initial-cluster-token=TEXT"},
		{"version", "latchkey " + version},
		{"--version", "etcd Version: " + etcdVersion + "\n"},
		{"-version", "Latchkey Version: " + version + "\n"},
		{"server --version", "etcd Version: " + etcdVersion + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, out, errOut := runApp(t, nil, strings.Fields(tt.args)...)
			require.Contains(t, out, tt.want)
			require.Empty(t, errOut)
			require.Equal(t, exitOK, code)
		})
	}
}

// Every command says what it does, shows how to use it, and explains its flags.
func TestEveryCommandHasAnExample(t *testing.T) {
	commands := 0
	eachCommand(newRoot(&app{}), func(c *cobra.Command) {
		commands++
		require.NotEmpty(t, c.Short, c.CommandPath())
		require.NotContains(t, c.Short, "\n", c.CommandPath())
		if c.Name() != "server" { // which prints its help itself
			require.Contains(t, c.Example, "  latchkey ", c.CommandPath())
		}
		for line := range strings.SplitSeq(c.Long+"\n"+c.Example, "\n") {
			require.LessOrEqual(t, len(line), 120, line)
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			if words := strings.Fields(line); len(words) > 1 && words[0] == "latchkey" && c.HasParent() {
				named := append([]string{"latchkey"}, words[1:]...)
				found, _, err := c.Root().Find(named[1:])
				require.NoError(t, err, line)
				require.True(t, isAbove(c, found) || isAbove(found, c) || c.Name() == "auth", line)
			}
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			require.NotEmpty(t, f.Usage, "%s --%s", c.CommandPath(), f.Name)
		})
		if c.Runnable() && !c.HasSubCommands() && c.Flags().Lookup("endpoints") != nil {
			require.NotNil(t, c.Flags().Lookup("output"), c.CommandPath())
		}
	})
	require.Greater(t, commands, 45)
}

func isAbove(upper, lower *cobra.Command) bool {
	for ; lower != nil; lower = lower.Parent() {
		if upper == lower {
			return true
		}
	}
	return false
}

// eachCommand visits c and all commands below it, but for cobra's own and those that are not shown.
func eachCommand(c *cobra.Command, visit func(*cobra.Command)) {
	if c.Name() == "completion" || c.Name() == "help" || c.Hidden {
		return
	}
	visit(c)
	for _, sub := range c.Commands() {
		eachCommand(sub, visit)
	}
}

// Every command stands under a heading of `latchkey help`, but those of cobra
// and `version`.
func TestEveryCommandHasAGroup(t *testing.T) {
	for _, c := range newRoot(&app{}).Commands() {
		if !c.Hidden && c.Name() != "version" && c.Name() != "completion" && c.Name() != "help" {
			require.NotEmpty(t, c.GroupID, c.Name())
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, out, errOut := runApp(t, nil, "completion", shell)
		require.Equal(t, exitOK, code)
		require.Empty(t, errOut)
		require.Contains(t, out, "latchkey")
	}
	_, out, _ := runApp(t, nil, "__complete", "get", "--output", "")
	require.Equal(t, "simple\ntable\njson\n:4\n", out)
	_, out, _ = runApp(t, nil, "__complete", "role", "grant-permission", "r", "")
	require.Equal(t, "read\nwrite\nreadwrite\n:4\n", out)
	_, out, _ = runApp(t, nil, "__complete", "le")
	require.Contains(t, out, "lease\tgrant, renew")
}

func TestDefaultEndpoints(t *testing.T) {
	tests := []struct {
		env  []string
		want []string
	}{
		{nil, []string{"127.0.0.1:2379"}},
		{[]string{"ETCDCTL_ENDPOINTS=a:1,b:2"}, []string{"a:1", "b:2"}},
		{[]string{"LATCHKEY_ENDPOINTS=c:3", "ETCDCTL_ENDPOINTS=a:1"}, []string{"c:3"}},
		{[]string{"LATCHKEY_ENDPOINTS=", "ETCDCTL_ENDPOINTS=a:1"}, []string{"a:1"}},
		{[]string{"LATCHKEY_ENDPOINTS=c:3", "LATCHKEY_ENDPOINTS=d:4"}, []string{"d:4"}},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, (&app{environ: tt.env}).defaultEndpoints())
	}
}

// An error names what to do, and the exit code says what kind it is.
func TestExplain(t *testing.T) {
	a := &app{endpoints: []string{"a:1", "b:2"}}
	tests := []struct {
		err  error
		code int
		want string
	}{
		{nil, exitOK, ""},
		{fmt.Errorf("get: %w", client.ErrUnavailable), exitError,
			"get: unavailable: is a member running at a:1,b:2? (latchkey server starts one, --endpoints chooses others)"},
		{fmt.Errorf("get: %w: handshake failed: tls", client.ErrUnavailable), exitError, "get: unavailable: handshake failed: tls: " +
			"is TLS spoken there, and what certificates does it want? (https:// in --endpoints, --cacert, --cert, --key)"},
		{fmt.Errorf("get: %w", client.ErrUnauthenticated), exitError, "get: not authenticated: --user NAME[:PASSWORD] says who asks"},
		{fmt.Errorf("put: %w", client.ErrUncertain), exitUncertain, "put: outcome is uncertain: look before you repeat it"},
		{client.ErrNoSpace, exitError, "store is full"},
		{usageErrorf("wrong"), exitUsage, "wrong"},
		{exitCode{code: 7}, 7, ""},
		{fmt.Errorf("two\nlines"), exitError, "two; lines"},
	}
	for _, tt := range tests {
		err := a.explain(tt.err)
		require.Equal(t, tt.code, codeOf(err))
		require.Equal(t, tt.want, messageOf(err))
	}
}

func TestParseTTL(t *testing.T) {
	for given, want := range map[string]time.Duration{
		"60": time.Minute, "2m": 2 * time.Minute, "1500ms": 1500 * time.Millisecond,
		"9223372036": 9223372036 * time.Second,
	} {
		got, err := parseTTL(given)
		require.NoError(t, err, given)
		require.Equal(t, want, got)
	}
	for _, given := range []string{"", "0", "-1", "0s", "9223372037", "99999999999999999999", "x"} {
		_, err := parseTTL(given)
		require.Equal(t, exitUsage, codeOf(err), given)
	}
}

func TestColorsAreForTerminals(t *testing.T) {
	require.False(t, colorOf(&bytes.Buffer{}))
	require.Equal(t, "x", paint(false, red, "x"))
	require.Equal(t, "\x1b[31mx\x1b[0m", paint(true, red, "x"))
}

func TestInterruptedCarriesTheShellsCode(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted{15})
	cause, ok := signalOf(ctx)
	require.True(t, ok)
	require.Equal(t, 143, cause.code())
}
