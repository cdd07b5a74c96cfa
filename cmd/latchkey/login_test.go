package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Once users are asked who they are, the commands say it with --user or by the
// environment, and each user may do what his roles allow.
func TestLogin(t *testing.T) {
	sh := newShell(t)
	sh.must("", "user", "add", "root:top")
	sh.must("", "role", "add", "root")
	sh.must("", "user", "grant-role", "root", "root")
	sh.must("secret\n", "user", "add", "alice")
	sh.must("", "role", "add", "reader")
	sh.must("", "role", "grant-permission", "reader", "read", "config/", "--prefix")
	sh.must("", "user", "grant-role", "alice", "reader")
	require.Equal(t, "authentication enabled\n", sh.must("", "auth", "enable"))

	code, _, errOut := sh.run("", "get", "config/a")
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "not authenticated")
	require.Contains(t, sh.must("", "health"), " is healthy: ", "it serves those whom it knows")
	code, _, errOut = sh.run("", "get", "config/a", "--user=alice:wrong")
	require.Equal(t, exitError, code)
	require.NotContains(t, errOut, "wrong")

	sh.must("", "put", "config/a", "1", "--user=root:top")
	require.Equal(t, "1\n", sh.must("", "get", "config/a", "--print-value-only", "--user=alice", "--password=secret"))
	code, _, errOut = sh.run("", "put", "config/a", "2", "--user=alice:secret")
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "permission denied")
	require.Contains(t, sh.must("", "auth", "status", "--user=root:top"), "Authentication Status: true")

	var out, stderr strings.Builder
	a := sh.app(strings.NewReader(""), &out, &stderr)
	a.environ = append(a.environ, "ETCDCTL_USER=root:top")
	require.Equal(t, exitOK, a.run(t.Context(), []string{"auth", "disable"}), stderr.String())
}

func TestLoginFlags(t *testing.T) {
	code, _, errOut := runApp(t, nil, "get", "k", "--user=alice")
	require.Equal(t, exitUsage, code)
	require.Equal(t, "latchkey: no password of user alice: give --password, or LATCHKEY_PASSWORD in the environment\n", errOut)
	code, _, errOut = runApp(t, nil, "get", "k", "--password=x")
	require.Equal(t, exitUsage, code)
	require.Equal(t, "latchkey: --password without --user\n", errOut)
	_, out, _ := runApp(t, []string{"LATCHKEY_PASSWORD=planted", "LATCHKEY_USER=u:planted"}, "get", "--help")
	require.NotContains(t, out, "planted")
}
