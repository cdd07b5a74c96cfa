package main

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/recipes/discovery"
)

func TestServiceRegister(t *testing.T) {
	sh := newShell(t)
	out := sh.must("input", "service", "register", "mail", "h:1", "--id=a", "--zone=east", "--weight=3", `--meta={"shard":7}`,
		"--app-version=1.2", "--", "/bin/sh", "-c", `echo "$LATCHKEY_SERVICE_ID"; cat`)
	require.Equal(t, "a\ninput", out)
	require.Empty(t, sh.must("", "get", "mail/", "--prefix"), "it is taken out")

	code, _, errOut := sh.run("", "service", "register", "mail", "h:1", "--", "/bin/sh", "-c", "exit 7")
	require.Equal(t, 7, code)
	require.Empty(t, errOut)
	code, _, errOut = sh.run("", "service", "register", "mail", "h:1", "--", "/does/not/exist")
	require.Equal(t, exitNotFound, code)
	require.Contains(t, errOut, "/does/not/exist")
	code, _, errOut = sh.run("", "service", "register", "mail//", "h:1", "--", "true")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errOut, "name can not be used")
	require.Empty(t, sh.must("", "get", "mail", "--prefix"))
}

func TestServiceUsage(t *testing.T) {
	for _, args := range []string{
		"register mail", "register mail h:1 x", "register mail -- true", "register mail h:1 --", "register mail h:1 --meta={ -- true",
	} {
		code, _, errOut := runApp(t, nil, append([]string{"service"}, strings.Fields(args)...)...)
		require.Equal(t, exitUsage, code, args)
		require.NotEmpty(t, errOut)
	}
}

// What is registered is listed and watched, and one that is drained from elsewhere
// ends.
func TestServiceDrain(t *testing.T) {
	sh := newShell(t)
	events, _ := sh.begin("service", "watch", "mail", "--output=json")
	next := func(want string) {
		t.Helper()
		require.True(t, events.Scan())
		e := jsonOf(t, events.Text())
		require.Equal(t, want, e["event"].(string)+" "+e["state"].(string))
		require.Equal(t, "a", e["id"])
		require.Equal(t, "east", e["zone"])
	}
	lines, stop := sh.begin("service", "register", "mail", "h:1", "--id=a", "--zone=east", "--drain=0s", "--", "/bin/sh", "-c",
		"trap 'echo bye; exit 3' TERM; echo running; while :; do read x <&3; done 3<>"+fifo(t))
	require.True(t, lines.Scan())
	require.Equal(t, "running", lines.Text())
	next("joined up")
	require.Equal(t, "a, h:1, up\n", sh.must("", "service", "list", "mail"))
	code, _, errOut := sh.run("", "service", "register", "mail", "h:2", "--id=a")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errOut, `id "a" belongs to another instance, at "h:1"`)

	require.Equal(t, "Instance a drains\n", sh.must("", "service", "drain", "mail", "a"))
	next("changed draining")
	require.True(t, lines.Scan())
	require.Equal(t, "bye", lines.Text())
	require.False(t, lines.Scan())
	require.Equal(t, 3, stop())
	next("left draining")
	code, _, errOut = sh.run("", "service", "drain", "mail", "a")
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "drain mail/a: no instance")
}

// Somebody else takes the id: the command is stopped.
func TestServiceRegisterStopsWhatItRunsWhenTheIDIsLost(t *testing.T) {
	sh := newShell(t)
	lines, stop := sh.begin("service", "register", "mail", "h:1", "--id=a", "--", "/bin/sh", "-c",
		"trap 'echo bye; exit 0' TERM; echo running; while :; do read x <&3; done 3<>"+fifo(t))
	require.True(t, lines.Scan())
	sh.must("", "put", "mail/a", `{"Op":0,"Addr":"h:2"}`)
	require.True(t, lines.Scan())
	require.Equal(t, "bye", lines.Text())
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), `id "a" belongs to another instance, at "h:2"`)
	require.False(t, lines.Scan())
	require.Equal(t, exitFailed, stop())
	require.Equal(t, "a, h:2, up\n", sh.must("", "service", "list", "mail"), "the other one is left alone")
}

// Without a command: until interrupted. With a check: only while it is listening.
func TestServiceRegisterAlone(t *testing.T) {
	sh := newShell(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	addr := l.Addr().String()
	lines, stop := sh.begin("service", "register", "mail", addr, "--check", "--id=a", "--drain=0s")
	require.True(t, lines.Scan())
	require.Equal(t, "a", lines.Text())
	require.Equal(t, "a, "+addr+", up\n", sh.must("", "service", "list", "mail"))
	sh.must("", "service", "drain", "mail", "a")
	require.False(t, lines.Scan())
	require.Equal(t, exitOK, stop())
	require.Empty(t, sh.must("", "service", "list", "mail"))
}

func TestServiceOutput(t *testing.T) {
	instances := []discovery.Instance[json.RawMessage]{
		{Service: "mail", ID: "a", Addr: "10.0.0.1:8080", Zone: "east", Version: "1.2", Weight: 3, Meta: json.RawMessage(`{"shard":7}`)},
		{Service: "mail", ID: "b", Addr: "10.0.0.2:8080", Weight: 1, State: discovery.Draining, Meta: json.RawMessage("null")},
	}
	goldenAnswer(t, "service-list", func(string) answer { return instancesAnswer(instances) })
	goldenAnswer(t, "service-list-nothing", func(string) answer { return instancesAnswer(nil) })
	goldenAnswer(t, "service-change", func(string) answer { return changeAnswer("lost", instances[0], 12) })
}
