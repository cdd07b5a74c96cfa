package interop_test

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// TestOurCommands types the commands of latchkey that administrate a cluster.
// They print the same on etcd.
func TestOurCommands(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) { testOurCommands(t, kind) })
	}
}

func testOurCommands(t *testing.T, kind string) {
	s := startSide(t, kind, 1)
	path, err := harness.Build(testContext(t), harness.ToolLatchkey)
	require.NoError(t, err)
	endpoint := strings.Join(s.cluster.Endpoints(), ",")
	for _, step := range []struct {
		args, stdin string
		want        string // what the output begins with
		code        int
	}{
		{args: "set /testdir/testkey Hello~world", want: "Hello world\n"},
		{args: "mk /testdir/testkey x", want: "latchkey: mk \"/testdir/testkey\": key exists already\n", code: 1},
		{args: "set /testdir/testkey Hello --swap-with-value=Hello~world", want: "Hello\n"},
		{args: "ls", want: "/\n"},
		{args: "ls /testdir --recursive", want: "/testdir/testkey\n"},
		{args: "rm /testdir --recursive", want: "1\n"},
		{args: "get a --sort-by=modify --order=descend", want: ""},
		{args: "health", want: endpoint + " is healthy: took = "},
		{args: "cluster-health", want: "member "},
		{args: "endpoint hashkv --cluster", want: s.cluster.Endpoints()[0]},
		{args: "alarm list", want: ""},
		{args: "alarm disarm -w=json", want: "{\"alarms\":[]}\n"},
		{args: "compact 3", want: "compacted revision 3\n"},
		{args: "compact 3", want: "latchkey: compact at ", code: 1},
		{args: "defrag", want: "Finished defragmenting member[" + endpoint + "]\n"},

		{args: "auth status", want: "Authentication Status: false\nAuthRevision: 1\n"},
		{args: "auth enable", want: "latchkey: enable authentication at ", code: 1},
		{args: "user add alice:secret", want: "user alice created\n"},
		{args: "user add bob", stdin: "secret\n", want: "user bob created\n"},
		{args: "user add carol --no-password", want: "user carol created\n"},
		{args: "user add alice:secret", want: "latchkey: add user at " + endpoint + ": user exists already: ", code: 1},
		{args: "user list", want: "alice\nbob\ncarol\n"},
		{args: "user delete carol", want: "user carol deleted\n"},
		{args: "user delete carol", want: "latchkey: delete user at " + endpoint + ": user does not exist: ", code: 1},
		{args: "user passwd bob", stdin: "other", want: "password of user bob changed\n"},
		{args: "role add reader", want: "role reader created\n"},
		{args: "role add reader", want: "latchkey: add role at " + endpoint + ": role exists already: ", code: 1},
		{args: "role grant-permission reader read config/ --prefix", want: "role reader updated\n"},
		{args: "role grant-permission reader write a m", want: "role reader updated\n"},
		{args: "role grant-permission reader readwrite z --from-key", want: "role reader updated\n"},
		{args: "role grant-permission none read a", want: "latchkey: grant permission at " + endpoint + ": role does not exist: ", code: 1},
		{args: "role get reader", want: "Role reader\n  write      from a to before m\n  read       config/... (prefix)\n  readwrite  from z on\n"},
		{args: "role revoke-permission reader a m", want: "role reader updated\n"},
		{args: "role revoke-permission reader a m", want: "latchkey: revoke permission at " + endpoint + ": role does not have the permission: ", code: 1},
		{args: "user grant-role alice reader", want: "user alice has role reader\n"},
		{args: "user get alice", want: "User: alice\nRoles: reader\n"},
		{args: "user get alice --detail", want: "Role reader\n  read       config/... (prefix)\n  readwrite  from z on\n"},
		{args: "user revoke-role alice reader", want: "user alice no longer has role reader\n"},
		{args: "user revoke-role alice reader", want: "latchkey: revoke role at " + endpoint + ": user does not have the role: ", code: 1},
		{args: "role list", want: "reader\n"},
		{args: "role delete reader", want: "role reader deleted\n"},
		{args: "user add root:root", want: "user root created\n"},
		{args: "auth enable", want: "latchkey: enable authentication at " + endpoint + ": there is no user root with the role root: ", code: 1},
		{args: "role add root", want: "role root created\n"},
		{args: "user grant-role root root", want: "user root has role root\n"},
		{args: "auth enable", want: "authentication enabled\n"},
		{args: "user list", want: "latchkey: list users at " + endpoint + ": not authenticated: ", code: 1},
		{args: "health", want: endpoint + " is healthy: took = "},
		{args: "get k", want: "latchkey: get at " + endpoint + ": not authenticated: ", code: 1},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
		words := strings.Fields(step.args)
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "~", " ")
		}
		cmd := exec.CommandContext(ctx, path, append(words, "--endpoints="+endpoint)...)
		var out bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(step.stdin), &out, &out
		code := 0
		var exit *exec.ExitError
		if err := cmd.Run(); errors.As(err, &exit) {
			code = exit.ExitCode()
		} else {
			require.NoError(t, err, step.args)
		}
		cancel()
		require.True(t, strings.HasPrefix(out.String(), step.want), "latchkey %s\nprinted %s\nnot     %s", step.args, out.String(), step.want)
		require.Equal(t, step.code, code, "latchkey %s\n%s", step.args, out.String())
	}
}
