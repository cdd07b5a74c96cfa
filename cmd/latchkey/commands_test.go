package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"bufio"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/servertest"
)

// These tests run whole command lines against a member.

// shell runs command lines with the endpoints of one cluster.
type shell struct {
	t         *testing.T
	endpoints string
}

func newShell(t *testing.T) *shell {
	return &shell{t, strings.Join(servertest.One(t).Endpoints(), ",")}
}

// run executes one command line with the given input.
func (s *shell) run(in string, args ...string) (code int, out, errOut string) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	a := s.app(strings.NewReader(in), &stdout, &stderr)
	code = a.run(s.t.Context(), args)
	return code, stdout.String(), stderr.String()
}

func (s *shell) app(in io.Reader, out, errOut io.Writer) *app {
	return &app{
		in: in, out: out, errOut: errOut,
		environ: append(os.Environ(), "LATCHKEY_ENDPOINTS="+s.endpoints),
	}
}

// must runs a command line that has to succeed, without a word on stderr.
func (s *shell) must(in string, args ...string) string {
	s.t.Helper()
	code, out, errOut := s.run(in, args...)
	require.Empty(s.t, errOut, args)
	require.Equal(s.t, exitOK, code, args)
	return out
}

// begin starts a command that goes on; stop ends it.
func (s *shell) begin(args ...string) (lines *bufio.Scanner, stop func() int) {
	s.t.Helper()
	r, w, err := os.Pipe()
	require.NoError(s.t, err)
	ctx, cancel := context.WithCancel(s.t.Context())
	code := make(chan int, 1)
	go func() {
		code <- s.app(strings.NewReader(""), w, w).run(ctx, args)
		_ = w.Close() // the reader sees the end
	}()
	s.t.Cleanup(func() { _ = r.Close() })
	return bufio.NewScanner(r), func() int {
		cancel()
		return <-code
	}
}

func TestKeyCommands(t *testing.T) {
	sh := newShell(t)
	require.Equal(t, "OK\n", sh.must("", "put", "greeting", "hello"))
	require.Equal(t, "OK\n", sh.must("from\nstdin", "put", "config/a", "-"))
	require.Equal(t, "OK\n", sh.must("", "put", "config/b", "--", "-3"))
	require.Equal(t, "greeting\nhello\n", sh.must("", "get", "greeting"))
	require.Equal(t, "from\nstdin\n", sh.must("", "get", "config/a", "--print-value-only"))
	require.Equal(t, "config/a\nconfig/b\n", sh.must("", "get", "config/", "--prefix", "--keys-only"))
	require.Equal(t, "config/a\n", sh.must("", "get", "config/", "--prefix", "--keys-only", "--limit=1"))
	require.Equal(t, "config/b\n-3\n", sh.must("", "get", "config/b", "--serializable"))
	require.Empty(t, sh.must("", "get", "missing"))

	revision := jsonOf(t, sh.must("", "put", "greeting", "bye", "--output=json"))["revision"]
	require.Equal(t, "greeting\nhello\n", sh.must("", "get", "greeting", "--rev="+decimal(int64(revision.(float64))-1)))
	require.Equal(t, "2\n", sh.must("", "del", "config/", "--prefix"))
	require.Equal(t, "0\n", sh.must("", "del", "config/a"))

	code, _, errOut := sh.run("", "get", "greeting", "--rev=99999")
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "revision is in the future")
}

func TestTxnCommand(t *testing.T) {
	sh := newShell(t)
	const text = "version(\"stock\") = 0\n\nput stock \"12 left\"\nget stock\n\nget stock --print-value-only\ndel stock\n"
	require.Equal(t, "SUCCESS\n\nOK\n\nstock\n12 left\n", sh.must(text, "txn"))
	require.Equal(t, "FAILURE\n\n12 left\n\n1\n", sh.must(text, "txn"))
	code, _, errOut := sh.run("\nmove a b\n", "txn")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, "line 2")
}

func TestWatchCommand(t *testing.T) {
	sh := newShell(t)
	sh.must("", "put", "w/a", "1")
	lines, stop := sh.begin("watch", "w/", "--prefix", "--rev=1")
	sh.must("", "put", "w/b", "2")
	sh.must("", "del", "w/a")
	var got []string
	for len(got) < 9 && lines.Scan() {
		got = append(got, lines.Text())
	}
	require.Equal(t, []string{"PUT", "w/a", "1", "PUT", "w/b", "2", "DELETE", "w/a", ""}, got)
	stop()
}

func TestLeaseCommands(t *testing.T) {
	sh := newShell(t)
	granted := jsonOf(t, sh.must("", "lease", "grant", "60", "--output=json"))
	id := granted["id"].(string)
	require.InEpsilon(t, 60, granted["ttl_seconds"], 0)
	sh.must("", "put", "leased", "x", "--lease="+id)
	require.Equal(t, "found 1 leases\n"+id+"\n", sh.must("", "lease", "list"))
	require.Regexp(t, `^lease `+id+` granted with TTL\(60s\), remaining\((60|59|58)s\), attached keys\(\[leased\]\)\n$`,
		sh.must("", "lease", "timetolive", id, "--keys"))
	require.Equal(t, "lease "+id+" keepalived with TTL(60)\n", sh.must("", "lease", "keep-alive", id, "--once"))
	require.Equal(t, "lease "+id+" revoked\n", sh.must("", "lease", "revoke", id))
	require.Empty(t, sh.must("", "get", "leased"))

	code, _, errOut := sh.run("", "lease", "keep-alive", id)
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "lease does not exist")
}

func TestClusterCommands(t *testing.T) {
	sh := newShell(t)
	require.Contains(t, sh.must("", "status"), ", leader, ")
	require.Contains(t, sh.must("", "status", "--cluster", "--output=table"), "ENDPOINT")
	require.Contains(t, sh.must("", "member", "list"), ", started, m0, ")

	code, out, errOut := sh.run("", "status", "--endpoints="+sh.endpoints+",127.0.0.1:1", "--timeout=300ms")
	require.Equal(t, exitError, code)
	require.Contains(t, out, ", leader, ")
	require.Contains(t, errOut, "127.0.0.1:1: ")
	require.Contains(t, errOut, "1 of 2 endpoints did not answer")
}

func TestNobodyThere(t *testing.T) {
	code, out, errOut := runApp(t, nil, "get", "k", "--endpoints=127.0.0.1:1", "--timeout=300ms")
	require.Equal(t, exitError, code)
	require.Empty(t, out)
	require.Contains(t, errOut, "is a member running at 127.0.0.1:1?")
	require.Equal(t, 1, strings.Count(errOut, "\n"))
}

func TestLockCommand(t *testing.T) {
	sh := newShell(t)
	out := sh.must("input", "lock", "jobs/a", "--", "/bin/sh", "-c", `echo "$LATCHKEY_LOCK_TOKEN $LATCHKEY_LOCK_KEY"; cat`)
	require.Regexp(t, `^[1-9][0-9]* jobs/a/[0-9a-f]+\ninput$`, out)
	require.Empty(t, sh.must("", "get", "jobs/a", "--prefix"), "the lock is released")

	code, _, errOut := sh.run("", "lock", "jobs/a", "--", "/bin/sh", "-c", "exit 7")
	require.Equal(t, 7, code)
	require.Empty(t, errOut)

	code, _, errOut = sh.run("", "lock", "jobs/a", "--", "/does/not/exist")
	require.Equal(t, exitNotFound, code)
	require.Contains(t, errOut, "/does/not/exist")
	require.Empty(t, sh.must("", "get", "jobs/a", "--prefix"))
}

func TestLockCommandContends(t *testing.T) {
	sh := newShell(t)
	pipe := fifo(t)
	lines, _ := sh.begin("lock", "jobs/a", "--", "/bin/sh", "-c", "echo running; read x <"+pipe+"; echo $x")
	require.True(t, lines.Scan())
	require.Equal(t, "running", lines.Text())

	code, _, errOut := sh.run("", "lock", "jobs/a", "--try", "--", "true")
	require.Equal(t, exitNotAcquired, code)
	require.Contains(t, errOut, `lock "jobs/a" is held by `)
	code, _, errOut = sh.run("", "lock", "jobs/a", "--wait=50ms", "--", "true")
	require.Equal(t, exitNotAcquired, code)
	require.Equal(t, "latchkey: acquire lock \"jobs/a\": lock is held after 50ms: the time to wait is over\n", errOut)

	require.NoError(t, os.WriteFile(pipe, []byte("go on\n"), 0))
	require.True(t, lines.Scan())
	require.Equal(t, "go on", lines.Text())
	require.False(t, lines.Scan(), "it has ended")
	sh.must("", "lock", "jobs/a", "--", "true")
}

// Somebody deletes the key: the command is stopped, and the exit code says so.
func TestLockCommandStopsWhatItRunsWhenTheLockIsLost(t *testing.T) {
	sh := newShell(t)
	lines, stop := sh.begin("lock", "jobs/a", "--", "/bin/sh", "-c",
		"trap 'echo bye; exit 0' TERM; echo running; while :; do read x <&3; done 3<>"+fifo(t))
	require.True(t, lines.Scan())
	require.Equal(t, "1\n", sh.must("", "del", "jobs/a", "--prefix"))
	require.True(t, lines.Scan())
	require.Equal(t, "bye", lines.Text())
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "the lock was lost while the command ran")
	require.False(t, lines.Scan())
	require.Equal(t, exitFailed, stop())
}

func jsonOf(t *testing.T, text string) map[string]any {
	t.Helper()
	var object map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &object), text)
	return object
}
