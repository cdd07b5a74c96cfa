package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/recipes/lock"
)

func TestLocksOutput(t *testing.T) {
	request := &lock.Request{By: "operator", Reason: "upgrade"}
	a := lock.Info{
		Name: "jobs/a", Revision: 12,
		Holders: []lock.Contender{{Key: "jobs/a/12ab", Lease: 0x12ab, Token: 7, Owner: "host/17", Info: "nightly", Request: request}},
		Waiters: []lock.Contender{{Key: "jobs/a/12ac", Lease: 0x12ac, Token: 9, Owner: "two\nlines"}},
	}
	b := lock.Info{Name: "jobs/b", Revision: 12, Holders: []lock.Contender{{Key: "jobs/b/12ad", Lease: 0x12ad, Token: 8}}}
	for name, r := range map[string]answer{
		"locks-list":    locksAnswer([]lock.Info{a, b, {Name: "free"}}),
		"locks-nothing": locksAnswer(nil),
		"locks-show":    lockAnswer(a),
		"locks-break":   contenderAnswer("jobs/b", b.Holders[0], "lock %s: %s (token %d) has lost it\n"),
	} {
		goldenAnswer(t, name, func(string) answer { return r })
	}
}

// An operator sees a lock, asks its holder and takes it away.
func TestLocksCommand(t *testing.T) {
	sh := newShell(t)
	require.Empty(t, sh.must("", "locks", "list"))
	lines, stop := sh.begin("lock", "jobs/a", "--owner=w1", "--info=nightly", "--", "/bin/sh", "-c",
		"trap 'echo bye; exit 0' TERM; echo running; while :; do read x <&3; done 3<>"+fifo(t))
	require.True(t, lines.Scan())
	require.Regexp(t, `^jobs/a, w1, [0-9]+, 0, nightly, \n$`, sh.must("", "locks", "list", "jobs/"))
	require.Regexp(t, `^holds, w1, [0-9]+, [0-9a-f]{16}, nightly, \n$`, sh.must("", "locks", "show", "jobs/a"))

	out := sh.must("", "locks", "request-release", "jobs/a", "--by=me", "--reason=now")
	require.Regexp(t, `^lock jobs/a: w1 \(token [0-9]+\) was asked to release it\n$`, out)
	require.True(t, lines.Scan())
	require.Equal(t, "latchkey: release of lock jobs/a was requested by me: now", lines.Text())
	require.Contains(t, sh.must("", "locks", "show", "jobs/a", "--output=json"), `"request":{"by":"me","reason":"now"}`)

	code, _, errOut := sh.run("", "locks", "break", "jobs/a", "--token=1")
	require.Equal(t, exitError, code)
	require.Equal(t, "latchkey: nobody in the queue of lock jobs/a has the token 1\n", errOut)
	out = sh.must("", "locks", "break", "jobs/a")
	require.Regexp(t, `^lock jobs/a: w1 \(token [0-9]+\) has lost it\n$`, out)
	require.True(t, lines.Scan())
	require.Equal(t, "bye", lines.Text())
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "lock was broken by ")
	require.False(t, lines.Scan())
	require.Equal(t, exitFailed, stop())
	for _, verb := range []string{"break", "request-release"} {
		code, _, errOut = sh.run("", "locks", verb, "jobs/a")
		require.Equal(t, exitError, code, errOut)
	}
}

// A command that yields is stopped when somebody asks, and whoever asks can wait
// for that.
func TestLockCommandYields(t *testing.T) {
	sh := newShell(t)
	lines, stop := sh.begin("lock", "jobs/a", "--yield", "--delay=1m", "--", "/bin/sh", "-c",
		"trap 'echo bye; exit 0' TERM; echo running; while :; do read x <&3; done 3<>"+fifo(t))
	require.True(t, lines.Scan())
	sh.must("", "locks", "request-release", "jobs/a", "--by=me", "--wait")
	require.Empty(t, sh.must("", "locks", "list"))
	require.True(t, lines.Scan())
	require.Equal(t, "latchkey: release of lock jobs/a was requested by me", lines.Text())
	require.True(t, lines.Scan())
	require.Equal(t, "bye", lines.Text())
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "its release was requested by me")
	require.False(t, lines.Scan())
	require.Equal(t, exitFailed, stop())
	sh.must("", "lock", "jobs/a", "--delay=1m", "--try", "--", "true")

	watched, end := sh.begin("locks", "watch", "jobs/a")
	require.True(t, watched.Scan())
	require.Equal(t, "jobs/a, , , 0, , ", watched.Text())
	sh.must("", "lock", "jobs/a", "--owner=w2", "--", "true")
	require.True(t, watched.Scan())
	require.Contains(t, watched.Text(), "jobs/a, ")
	end()
}
