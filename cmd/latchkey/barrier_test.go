package main

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGateCommands(t *testing.T) {
	sh := newShell(t)
	require.Equal(t, "gate ready is open\n", sh.must("", "barrier", "wait", "ready"))
	require.Equal(t, "gate ready is closed\n", sh.must("", "barrier", "hold", "ready"))
	require.Equal(t, map[string]any{"name": "ready", "closed": true}, jsonOf(t, sh.must("", "barrier", "hold", "ready", "--output=json")))
	code, out, errOut := sh.run("", "barrier", "wait", "ready", "--wait=50ms")
	require.Equal(t, exitNotAcquired, code)
	require.Empty(t, out)
	require.Contains(t, errOut, "the time to wait is over")

	lines, stop := sh.begin("barrier", "wait", "ready")
	require.Equal(t, "gate ready is open\n", sh.must("", "barrier", "open", "ready"))
	require.True(t, lines.Scan())
	require.Equal(t, "gate ready is open", lines.Text())
	require.Equal(t, exitOK, stop())

	code, _, errOut = sh.run("", "barrier", "hold", "ready/")
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "name can not be used for a barrier")
}

// Two commands begin when both have come, and both ends wait for each other.
func TestBarrierEnter(t *testing.T) {
	sh := newShell(t)
	pipe := fifo(t)
	script := `echo "$LATCHKEY_BARRIER_INDEX $LATCHKEY_BARRIER_PARTIES $LATCHKEY_BARRIER_GENERATION $LATCHKEY_BARRIER_TOKEN"; `
	first, stop := sh.begin("barrier", "enter", "job", "--count=2", "--", "/bin/sh", "-c", script+"read x <"+pipe+"; echo $x")
	second, stopSecond := sh.begin("barrier", "enter", "job", "--count=2", "--", "/bin/sh", "-c", script+"exit 7")
	require.True(t, first.Scan())
	require.True(t, second.Scan())
	require.Regexp(t, `^[01] 2 [0-9]+ [1-9][0-9]*$`, first.Text())
	require.NotEqual(t, first.Text(), second.Text())
	require.Equal(t, first.Text()[1:], second.Text()[1:])
	require.NoError(t, os.WriteFile(pipe, []byte("go on\n"), 0))
	require.True(t, first.Scan())
	require.False(t, first.Scan())
	require.False(t, second.Scan())
	require.Equal(t, exitOK, stop())
	require.Equal(t, 7, stopSecond())
	require.Empty(t, sh.must("", "get", "job/", "--prefix"))
}

// One of two is cut off: the command of the other one is stopped.
func TestBarrierEnterBreaks(t *testing.T) {
	sh := newShell(t)
	script := "trap 'echo bye; exit 0' TERM; echo running; while :; do read x <&3; done 3<>" + fifo(t)
	lines, stop := sh.begin("barrier", "enter", "job", "--count=2", "--", "/bin/sh", "-c", script)
	other, stopOther := sh.begin("barrier", "enter", "job", "--count=2", "--", "/bin/sh", "-c", script)
	require.True(t, lines.Scan())
	require.True(t, other.Scan())
	keys := strings.Fields(sh.must("", "get", "job/g/m/", "--prefix", "--keys-only"))
	require.Len(t, keys, 2)
	require.Equal(t, "1\n", sh.must("", "del", keys[0]))
	for _, one := range []*bufio.Scanner{lines, other} {
		require.True(t, one.Scan())
		require.Equal(t, "bye", one.Text())
		require.True(t, one.Scan())
		require.Contains(t, one.Text(), "the barrier broke while the command ran")
	}
	require.Equal(t, exitFailed, stop())
	require.Equal(t, exitFailed, stopOther())
}

func TestBarrierEnterUsage(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"barrier enter job -- true", "--count 0: say how many processes there are"},
		{"barrier enter job --count=2", "a command behind --"},
		{"barrier enter job --count=2 --on-loss=cry -- true", `--on-loss "cry": choose break, wait or shrink`},
		{"counter add", "takes a name and at most one number, not 0 arguments"},
		{"counter add a x", `"x" is not a number of 64 bits`},
		{"counter set a", "takes NAME and NUMBER"},
		{"counter next a --count=0", "--count 0: at least 1"},
	} {
		code, out, errOut := runApp(t, nil, strings.Fields(tt.args)...)
		require.Equal(t, exitUsage, code, tt.args)
		require.Empty(t, out)
		require.Contains(t, errOut, tt.want, tt.args)
	}
}

func TestCounterCommands(t *testing.T) {
	sh := newShell(t)
	require.Equal(t, "0\n", sh.must("", "counter", "get", "orders"))
	require.Equal(t, "1\n", sh.must("", "counter", "add", "orders"))
	require.Equal(t, "11\n", sh.must("", "counter", "add", "orders", "10"))
	require.Equal(t, "8\n", sh.must("", "counter", "add", "orders", "--", "-3"))
	require.Equal(t, map[string]any{"name": "orders", "value": 8.0}, jsonOf(t, sh.must("", "counter", "get", "orders", "-w", "json")))
	require.Equal(t, "5\n", sh.must("", "counter", "set", "orders", "5"))
	require.Equal(t, "6\n", sh.must("", "counter", "set", "orders", "6", "--from=5"))
	code, out, errOut := sh.run("", "counter", "set", "orders", "7", "--from=5")
	require.Equal(t, exitError, code)
	require.Empty(t, out)
	require.Contains(t, errOut, "it is 6, not 5")
	require.Equal(t, "1\n", sh.must("", "counter", "next", "ids"))
	require.Equal(t, "2\n3\n4\n", sh.must("", "counter", "next", "ids", "--count=3"))
	require.Equal(t, map[string]any{"name": "ids", "first": 5.0, "last": 6.0},
		jsonOf(t, sh.must("", "counter", "next", "ids", "--count=2", "--output=json")))
	sh.must("", "put", "orders", "many")
	code, _, errOut = sh.run("", "counter", "add", "orders")
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "value is not a number")
}
