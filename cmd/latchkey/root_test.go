package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
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

// Every command says what it does, and shows how to use it.
func TestEveryCommandHasAnExample(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" {
			return // cobra's own
		}
		require.NotEmpty(t, c.Short, c.CommandPath())
		if c.Name() != "server" { // which prints its help itself
			require.Contains(t, c.Example, "  latchkey ", c.CommandPath())
		}
		for line := range strings.SplitSeq(c.Long+"\n"+c.Example, "\n") {
			require.LessOrEqual(t, len(line), 120, line)
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(newRoot(&app{}))
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
