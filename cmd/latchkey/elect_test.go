package main

import (
	"bufio"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/recipes/election"
)

func TestElectCommand(t *testing.T) {
	sh := newShell(t)
	out := sh.must("input", "elect", "svc", "me", "--", "/bin/sh", "-c",
		`echo "$LATCHKEY_ELECTION_TERM $LATCHKEY_ELECTION_KEY"; cat`)
	require.Regexp(t, `^[1-9][0-9]* svc/[0-9a-f]+\ninput$`, out)
	require.Empty(t, sh.must("", "get", "svc", "--prefix"), "it has resigned")

	code, _, errOut := sh.run("", "elect", "svc", "me", "--", "/bin/sh", "-c", "exit 7")
	require.Equal(t, 7, code)
	require.Empty(t, errOut)
	code, _, errOut = sh.run("", "elect", "svc", "me", "--", "/does/not/exist")
	require.Equal(t, exitNotFound, code)
	require.Contains(t, errOut, "/does/not/exist")
	for _, args := range [][]string{{"svc"}, {"svc", "me"}, {"svc", "me", "true"}, {"svc", "--", "true"}, {"svc", "me", "--"}} {
		code, _, errOut = sh.run("", append([]string{"elect"}, args...)...)
		require.Equal(t, exitUsage, code, args)
		require.Contains(t, errOut, "latchkey elect NAME VALUE -- COMMAND")
	}
	require.Empty(t, sh.must("", "get", "svc", "--prefix"))
}

// untilStopped is a command that says that it runs, and ends on SIGTERM.
func untilStopped(t *testing.T) []string {
	return []string{"--", "/bin/sh", "-c", "trap 'echo bye; exit 0' TERM; echo running; while :; do read x <&3; done 3<>" + fifo(t)}
}

func TestElectionsAreObserved(t *testing.T) {
	sh := newShell(t)
	code, _, errOut := sh.run("", "elect", "observe", "svc", "--once")
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "election has no leader")
	require.Empty(t, sh.must("", "elect", "list", "svc"))
	seen, stop := sh.begin("elect", "-l", "svc")
	next := func() string {
		require.True(t, seen.Scan())
		key := seen.Text()
		require.True(t, seen.Scan())
		return key + " " + seen.Text()
	}
	require.Equal(t, " ", next(), "nobody leads")

	pipe := fifo(t)
	first, _ := sh.begin("elect", "svc", "a", "--identity=one", "--", "/bin/sh", "-c", "echo running; read x <"+pipe)
	require.True(t, first.Scan())
	require.Regexp(t, `^svc/[0-9a-f]+ a$`, next())
	require.Regexp(t, `^one, leads, [0-9]+, 0, a\n$`, sh.must("", "elect", "list", "svc"))
	object := jsonOf(t, sh.must("", "elect", "observe", "svc", "--once", "--output=json"))
	require.Equal(t, false, object["vacant"])
	require.Equal(t, "a", object["leader"].(map[string]any)["value"])

	code, _, errOut = sh.run("", "elect", "svc", "b", "--wait=50ms", "--", "true")
	require.Equal(t, exitNotAcquired, code)
	require.Contains(t, errOut, "the time to wait is over")
	require.Equal(t, 1, strings.Count(sh.must("", "elect", "list", "svc"), "\n"), "it has left the line")

	require.NoError(t, os.WriteFile(pipe, []byte("go on\n"), 0))
	require.False(t, first.Scan(), "it has ended")
	require.Equal(t, " ", next(), "nobody leads")
	stop()
}

// The leader is asked to step down in favour of another: its command ends, and
// then the other's begins.
func TestElectStepDown(t *testing.T) {
	sh := newShell(t)
	first, stop := sh.begin(append([]string{"elect", "svc", "a"}, untilStopped(t)...)...)
	require.True(t, first.Scan())
	r, w, err := os.Pipe()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	second, ended := bufio.NewScanner(r), make(chan int, 1)
	go func() {
		args := append([]string{"elect", "svc", "b", "--identity=two", "--again"}, untilStopped(t)...)
		ended <- sh.app(strings.NewReader(""), w, w).run(ctx, args)
		_ = w.Close()
	}()
	watch, _ := sh.begin("watch", "svc/", "--prefix", "--rev=1")
	for range 2 * 3 { // both stand
		require.True(t, watch.Scan())
	}
	code, _, errOut := sh.run("", "elect", "step-down", "svc", "--to=nobody")
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "no such candidate")
	require.Equal(t, "OK\n", sh.must("", "elect", "step-down", "svc", "--to=two", "--reason=upgrade"))
	require.True(t, first.Scan())
	require.Equal(t, "bye", first.Text())
	require.True(t, first.Scan())
	require.Equal(t, "latchkey: the leadership ended while the command ran: leader was asked to step down: upgrade", first.Text())
	require.False(t, first.Scan())
	require.Equal(t, exitFailed, stop())

	require.True(t, second.Scan())
	require.Equal(t, "running", second.Text())
	// It stands again when the key is deleted, and runs the command anew.
	require.Equal(t, "1\n", sh.must("", "del", "svc/", "--prefix"))
	for _, line := range []string{"bye", "standing again", "running"} {
		require.True(t, second.Scan())
		require.Contains(t, second.Text(), line)
	}
	sh.must("", "elect", "step-down", "svc")
	for _, line := range []string{"bye", "standing again", "running"} {
		require.True(t, second.Scan())
		require.Contains(t, second.Text(), line)
	}
	// The end of the context is no signal, which would be passed on to the
	// command; but the command is not run anew after it.
	cancel()
	sh.must("", "elect", "step-down", "svc")
	require.True(t, second.Scan())
	require.Equal(t, "bye", second.Text())
	require.True(t, second.Scan())
	require.Equal(t, "latchkey: the leadership ended while the command ran: leader was asked to step down", second.Text())
	require.False(t, second.Scan())
	require.Equal(t, exitFailed, <-ended)
}

func TestElectionAnswers(t *testing.T) {
	line := []election.Candidate{
		{ID: "node-1", Key: "svc/1", Lease: 1, Term: 12, Proposal: []byte("10.0.0.1:80"), Leads: true, Ours: true},
		{ID: "2", Key: "svc/2", Lease: 2, Term: 17, Proposal: []byte("\xff")},
		{ID: "node-3", Key: "svc/3", Lease: 3, Term: 19, Priority: 5, Preempts: true, Ours: true},
	}
	goldenAnswer(t, "elect-list", func(string) answer { return candidatesAnswer(line) })
	goldenAnswer(t, "elect-observe", func(output string) answer {
		return leaderAnswer(election.Leader[[]byte]{Candidate: line[0], Value: line[0].Proposal, Revision: 20}, output)
	})
	goldenAnswer(t, "elect-observe-vacant", func(output string) answer {
		return leaderAnswer(election.Leader[[]byte]{Vacant: true, Revision: 21}, output)
	})
}
