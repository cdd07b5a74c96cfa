package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// The examples of the article that most people know etcd v2 from.
func TestCommandsOfVersion2(t *testing.T) {
	sh := newShell(t)
	fails := func(message string, args ...string) {
		t.Helper()
		code, out, errOut := sh.run("", args...)
		require.Equal(t, exitError, code)
		require.Empty(t, out)
		require.Equal(t, "latchkey: "+message+"\n", errOut)
	}
	require.Equal(t, "Hello world\n", sh.must("", "set", "/testdir/testkey", "Hello world"))
	fails(`mk "/testdir/testkey": key exists already`, "mk", "/testdir/testkey", "Hello world")
	require.Equal(t, "Hello world\n", sh.must("", "mk", "/testdir/other", "Hello world"))
	require.Equal(t, "Hello\n", sh.must("", "update", "/testdir/testkey", "Hello"))
	fails(`update "/testdir/none": key does not exist`, "update", "/testdir/none", "x")
	require.Empty(t, sh.must("", "get", "/testdir/none"), "a failed update leaves nothing")

	fails(`put "/testdir/testkey": compare failed: the value is "Hello", not "Bye"`,
		"set", "/testdir/testkey", "x", "--swap-with-value=Bye")
	fails(`put "/testdir/none": key does not exist`, "set", "/testdir/none", "x", "--swap-with-value=")
	require.Equal(t, "OK\n", sh.must("", "put", "/testdir/testkey", "Bye", "--swap-with-value=Hello"))
	index := decimal(int64(jsonOf(t, sh.must("", "put", "/testdir/testkey", "1", "-w=json"))["revision"].(float64)))
	require.Equal(t, "2\n", sh.must("", "set", "/testdir/testkey", "2", "--swap-with-index="+index))
	code, _, errOut := sh.run("", "set", "/testdir/testkey", "3", "--swap-with-index="+index)
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "compare failed: the index is ")

	fails(`rm "/testdir/testkey": compare failed: the value is "2", not "x"`, "rm", "/testdir/testkey", "--with-value=x")
	code, _, errOut = sh.run("", "rm", "/testdir/testkey", "--with-index="+index)
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, ", not "+index)
	require.Equal(t, "PrevNode.Value: 2\n", sh.must("", "rm", "/testdir/testkey", "--with-value=2"))
	fails(`rm "/testdir/testkey": key does not exist`, "rm", "/testdir/testkey")
	fails(`rm "/testdir": the directory has 1 keys: --recursive deletes them`, "rm", "/testdir", "--dir")
	sh.must("", "put", "/testdir", "both a key and a directory")
	sh.must("", "put", "/testdirectory", "another")
	require.Equal(t, "2\n", sh.must("", "rm", "/testdir", "--recursive"))
	require.Equal(t, "/testdirectory\n", sh.must("", "ls", "--recursive"))
	fails(`rm "/testdir": key does not exist`, "rm", "/testdir", "--recursive")
}

func TestTTLIsALeaseOfItsOwn(t *testing.T) {
	sh := newShell(t)
	sh.must("", "set", "k", "v", "--ttl=90")
	key := jsonOf(t, sh.must("", "get", "k", "-w=json"))["keys"].([]any)[0].(map[string]any)
	require.Contains(t, sh.must("", "lease", "timetolive", key["lease"].(string), "--keys"), "granted with TTL(90s)")
	code, _, _ := sh.run("", "mk", "k", "v", "--ttl=1m")
	require.Equal(t, exitError, code)
	require.Equal(t, "found 1 leases\n"+key["lease"].(string)+"\n", sh.must("", "lease", "list"), "that of the mk that failed is gone")
	sh.must("", "put", "k", "v")
	require.NotContains(t, sh.must("", "get", "k", "-w=json"), "lease")
}

func TestListDirectories(t *testing.T) {
	sh := newShell(t)
	for _, key := range []string{"a", "b/c/d", "b/e", "b0", "c/", "/x"} {
		sh.must("", "put", key, "v")
	}
	for args, want := range map[string]string{
		"":                      "/ a b/ b0 c/",
		"b":                     "b/c/ b/e",
		"b/":                    "b/c/ b/e",
		"b/c":                   "b/c/d",
		"/":                     "/x",
		"c":                     "c/",
		"d":                     "",
		"--recursive":           "/x a b/c/d b/e b0 c/",
		"b --recursive --rev=3": "b/c/d", // when b/e was not yet there
	} {
		words := strings.Fields("ls " + args)
		require.Equal(t, want, strings.Join(strings.Fields(sh.must("", words...)), " "), args)
	}
	require.Equal(t, "b/c/d\nv\nb/e\nv\n", sh.must("", "get", "b", "--recursive"))
	require.Equal(t, "/x\nc/\nb0\n", sh.must("", "get", "", "--prefix", "--keys-only", "--sort-by=create",
		"--order=descend", "--limit=3", "--consistent", "--sort"))
}

// A directory of more keys than a page has, with directories larger than that in it.
func TestListPages(t *testing.T) {
	sh := newShell(t)
	cl, err := client.New(client.Config{Endpoints: strings.Split(sh.endpoints, ",")})
	require.NoError(t, err)
	defer cl.Close()
	var want []string
	for batch := range 30 { // 100 puts each, which is what a transaction takes
		var puts []client.Op
		for i := range 100 {
			n := batch*100 + i
			key := fmt.Sprintf("d/%04d", n)
			switch {
			case n >= 500 && n < 2100:
				key = fmt.Sprintf("d/0500/%04d", n)
				if n == 500 {
					want = append(want, "d/0500/")
				}
			default:
				want = append(want, key)
			}
			puts = append(puts, client.OpPut(key, nil))
		}
		_, err := cl.Txn().Then(puts...).Commit(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, want, strings.Fields(sh.must("", "ls", "d")))
	require.Len(t, strings.Fields(sh.must("", "ls", "d", "--recursive")), 3000)
}

func TestWatchLikeVersion2(t *testing.T) {
	sh := newShell(t)
	revision := func(out string) string { return decimal(int64(jsonOf(t, out)["revision"].(float64))) }
	first := revision(sh.must("", "put", "w/a", "1", "-w=json"))
	sh.must("", "put", "wa", "not in the directory")
	sh.must("", "put", "w/b", "2")
	require.Equal(t, "PUT\nw/b\n2\n", sh.must("", "watch", "w", "--recursive", "--after-index="+first, "--forever=false"))

	lines, _ := sh.begin("exec-watch", "w", "--recursive", "--rev="+first, "--", "/bin/sh", "-c",
		`echo "$ETCD_WATCH_ACTION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE $ETCD_WATCH_MODIFIED_INDEX"; test "$ETCD_WATCH_ACTION" = set || exit 5`)
	deleted := revision(sh.must("", "del", "w/a", "-w=json"))
	var got []string
	for lines.Scan() {
		got = append(got, lines.Text())
	}
	require.Len(t, got, 3)
	require.Equal(t, "set PUT w/a 1 "+first, got[0])
	require.True(t, strings.HasPrefix(got[1], "set PUT w/b 2 "))
	require.Equal(t, "delete DELETE w/a  "+deleted, got[2], "and the command's failure ends it")
}

func TestExecWatchPassesOnTheExitCode(t *testing.T) {
	sh := newShell(t)
	sh.must("", "put", "k", "v")
	code, _, errOut := sh.run("", "exec-watch", "k", "--rev=1", "--", "/bin/sh", "-c", "exit 9")
	require.Equal(t, 9, code)
	require.Empty(t, errOut)
	code, _, _ = sh.run("", "exec-watch", "k", "--rev=1", "--", "/does/not/exist")
	require.Equal(t, exitNotFound, code)
}

// What an environment can not hold is left out of it.
func TestEventEnv(t *testing.T) {
	env := eventEnv([]string{"A=b", "ETCD_WATCH_VALUE=old"}, client.Event{KV: client.KV{
		Key: "k", Value: []byte("a\x00b"), ModRevision: 7,
	}})
	require.Equal(t, []string{
		"A=b", "ETCD_WATCH_ACTION=set", "ETCD_WATCH_EVENT_TYPE=PUT", "ETCD_WATCH_MODIFIED_INDEX=7",
		"ETCD_WATCH_REVISION=7", "ETCD_WATCH_KEY=k",
	}, env)
	env = eventEnv(nil, client.Event{KV: client.KV{Key: "k", Value: make([]byte, envValueBytesMax+1)}})
	require.NotContains(t, strings.Join(env, "\n"), "ETCD_WATCH_VALUE=")
}

func TestHealthCommands(t *testing.T) {
	sh := newShell(t)
	require.Regexp(t, `^`+sh.endpoints+` is healthy: took = [0-9.]+[mµ]?s\n$`, sh.must("", "health"))
	require.Contains(t, sh.must("", "endpoint", "health", "--cluster", "-w=json"), `"healthy":true`)
	require.Contains(t, sh.must("", "cluster-health"), "cluster is healthy\n")
	code, out, errOut := sh.run("", "health", "--endpoints="+sh.endpoints+",127.0.0.1:1", "--timeout=300ms")
	require.Equal(t, exitError, code)
	require.Contains(t, out, sh.endpoints+" is healthy")
	require.Contains(t, out, "127.0.0.1:1 is unhealthy: ")
	require.Equal(t, "latchkey: 1 of 2 endpoints are not healthy\n", errOut)
	require.Equal(t, "compacted revision 1\n", sh.must("", "compact", "1"))
}

// What verdictOf says, by how many voters of three are well.
func TestVerdict(t *testing.T) {
	for well, want := range []string{"unhealthy", "unhealthy", "degraded", "healthy"} {
		states := make([]memberHealth, 3)
		for i := well; i < 3; i++ {
			states[i].check.err = errFull
		}
		require.Equal(t, want, verdictOf(states))
	}
	learner := memberHealth{member: client.Member{Learner: true}}
	learner.check.err = errFull
	require.Equal(t, "degraded", verdictOf([]memberHealth{{}, learner}))
}
