package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// queueJSON is what `queue list` and `queue dead` print.
type queueJSON struct {
	Jobs []jobJSON `json:"jobs"`
}

func (sh *shell) jobs(args ...string) []jobJSON {
	sh.t.Helper()
	var out queueJSON
	require.NoError(sh.t, json.Unmarshal([]byte(sh.must("", append(args, "--output=json")...)), &out))
	return out.Jobs
}

// Jobs are done by a command, whose exit code decides what becomes of them.
func TestQueueCommand(t *testing.T) {
	sh := newShell(t)
	ids := strings.Fields(sh.must("", "queue", "push", "mail", "done", "dead"))
	require.Len(t, ids, 2)
	sh.must("later\nfails\n", "queue", "push", "mail", "--lines")
	require.Len(t, sh.jobs("queue", "list", "mail"), 4)
	require.Contains(t, sh.must("", "queue", "stats", "mail"), "ready 4\n")

	script := `job=$(cat); case $job in dead) exit 65;; later) exit 75;; fails) exit 1;; esac; echo "$job $LATCHKEY_JOB_ATTEMPT $LATCHKEY_JOB_ID"`
	out := sh.must("", "queue", "work", "mail", "--max=4", "--attempts=1", "--", "/bin/sh", "-c", script)
	require.Equal(t, "done 1 "+ids[0]+"\n", out)

	left := sh.jobs("queue", "list", "mail")
	require.Len(t, left, 1)
	require.Equal(t, text("later"), left[0].Job)
	require.Equal(t, "delayed", string(left[0].State))
	require.Zero(t, left[0].Attempts)
	dead := sh.jobs("queue", "dead", "mail")
	require.Len(t, dead, 2)
	require.Contains(t, dead[0].LastError, "exit code")

	require.Equal(t, "1\n", sh.must("", "queue", "redrive", "mail", ids[1]))
	require.Equal(t, "1\n", sh.must("", "queue", "dead", "mail", "--purge"))
	require.Equal(t, "1\n", sh.must("", "queue", "cancel", "mail", ids[1]))
	code, _, errOut := sh.run("", "queue", "cancel", "mail", ids[1])
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "job is not in the queue")
	require.Equal(t, "1\n", sh.must("", "queue", "purge", "mail"))
	require.Empty(t, sh.jobs("queue", "list", "mail"))
}

func TestQueueCommandPauses(t *testing.T) {
	sh := newShell(t)
	require.Equal(t, "OK\n", sh.must("", "queue", "pause", "mail"))
	require.Contains(t, sh.must("", "queue", "stats", "mail", "--output=table"), "true")
	require.Equal(t, "OK\n", sh.must("", "queue", "resume", "mail"))
	sh.must("", "queue", "push", "mail", "a", "--group=g", "--delay=1ms", "--unique=u")
	code, _, errOut := sh.run("", "queue", "push", "mail", "a", "--unique=u")
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "unique key is taken")
	require.Equal(t, "a", sh.must("", "queue", "work", "mail", "--max=1", "--", "cat"))

	code, _, errOut = sh.run("", "queue", "work", "mail")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, "behind --")
	code, _, errOut = sh.run("", "queue", "psuh", "mail")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, `did you mean "push"?`)
}
