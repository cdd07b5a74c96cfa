package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRWLockCommand(t *testing.T) {
	sh := newShell(t)
	pipe := fifo(t)
	lines, _ := sh.begin("rwlock", "jobs/a", "--shared", "--", "/bin/sh", "-c", "echo running; read x <"+pipe+"; echo $x")
	require.True(t, lines.Scan())
	require.Equal(t, "running", lines.Text())
	out := sh.must("", "rwlock", "jobs/a", "--shared", "--try", "--", "/bin/sh", "-c", `echo "$LATCHKEY_LOCK_TOKEN $LATCHKEY_LOCK_KEY"`)
	require.Regexp(t, `^[1-9][0-9]* jobs/a/read/[0-9a-f]+\.[0-9]+\n$`, out)
	require.Regexp(t, `^holds, read, [^,]+, , jobs/a/read/[^ ]+\n$`, sh.must("", "rwlock", "list", "jobs/a"))

	code, _, errOut := sh.run("", "rwlock", "jobs/a", "--try", "--", "true")
	require.Equal(t, exitNotAcquired, code)
	require.Contains(t, errOut, `lock "jobs/a" is held by `)
	code, _, errOut = sh.run("", "rwlock", "jobs/a", "--wait=50ms", "--", "true")
	require.Equal(t, exitNotAcquired, code)
	require.Equal(t, "latchkey: acquire lock \"jobs/a\": lock is held after 50ms: the time to wait is over\n", errOut)
	code, _, errOut = sh.run("", "lock", "jobs/a", "--", "true")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errOut, "read-write lock")

	require.NoError(t, os.WriteFile(pipe, []byte("go on\n"), 0))
	require.True(t, lines.Scan())
	require.Equal(t, "go on", lines.Text())
	require.False(t, lines.Scan(), "it has ended")
	out = sh.must("", "rwlock", "jobs/a", "--", "/bin/sh", "-c", "echo $LATCHKEY_LOCK_KEY")
	require.Regexp(t, `^jobs/a/write/[0-9a-f]+\.[0-9]+\n$`, out)
	require.Empty(t, sh.must("", "get", "jobs/a", "--prefix"), "the lock is released")

	code, _, errOut = sh.run("", "rwlock", "jobs/a")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, "a command behind --")
}

func TestSemaphoreCommand(t *testing.T) {
	sh := newShell(t)
	pipe := fifo(t)
	lines, _ := sh.begin("semaphore", "builds", "--limit=3", "--weight=2", "--", "/bin/sh", "-c",
		`echo "$LATCHKEY_SEMAPHORE_PERMITS $LATCHKEY_SEMAPHORE_KEY"; read x <`+pipe)
	require.True(t, lines.Scan())
	require.Regexp(t, `^2 builds/[0-9a-f]+\.[0-9]+$`, lines.Text())
	sh.must("", "semaphore", "builds", "--limit=3", "--", "true")
	sh.must("", "semaphore", "builds", "--barging", "--", "true")
	require.Regexp(t, `^2 of 3\nholds, 2, [^,]+, , builds/[^ ]+\n$`, sh.must("", "semaphore", "list", "builds"))

	for _, args := range [][]string{{"--try"}, {"--wait=50ms"}, {"--wait=50ms", "--barging"}} {
		code, _, errOut := sh.run("", append(append([]string{"semaphore", "builds", "--limit=3", "--weight=2"}, args...), "--", "true")...)
		require.Equal(t, exitNotAcquired, code, errOut)
	}
	code, _, errOut := sh.run("", "semaphore", "builds", "--limit=4", "--", "true")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errOut, `semaphore "builds" was created with the limit 3, not 4`)
	code, _, errOut = sh.run("", "semaphore", "builds", "--weight=4", "--", "true")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errOut, "number of permits is not possible: the limit is 3")

	require.Equal(t, "limit 4\n", sh.must("", "semaphore", "limit", "builds", "4"))
	sh.must("", "semaphore", "builds", "--limit=3", "--weight=2", "--try", "--", "true")
	code, _, errOut = sh.run("", "semaphore", "limit", "builds", "many")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, `"many" is not a number of permits`)

	require.NoError(t, os.WriteFile(pipe, []byte("go on\n"), 0))
	require.False(t, lines.Scan())
	object := jsonOf(t, sh.must("", "semaphore", "list", "builds", "--output=json"))
	require.Equal(t, 4.0, object["limit"])
	require.Equal(t, 0.0, object["used"])
	require.Empty(t, object["holders"])
}

// Somebody deletes the key: the command is stopped, and told why.
func TestSemaphoreCommandStopsWhatItRunsWhenPermitsAreLost(t *testing.T) {
	sh := newShell(t)
	lines, stop := sh.begin("semaphore", "builds", "--limit=3", "--", "/bin/sh", "-c",
		"trap 'echo bye; exit 0' TERM; echo running; while :; do read x <&3; done 3<>"+fifo(t))
	require.True(t, lines.Scan())
	require.Equal(t, "1\n", sh.must("", "del", "builds/", "--prefix"))
	require.True(t, lines.Scan())
	require.Equal(t, "bye", lines.Text())
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "the permits were lost while the command ran")
	require.False(t, lines.Scan())
	require.Equal(t, exitFailed, stop())
}
