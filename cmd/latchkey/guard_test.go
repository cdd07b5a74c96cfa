package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var errTaken = errors.New("somebody else has it")

// script is a shell command whose first line of output says that it runs.
func script(t *testing.T, text string) (g *guarded, lines *bufio.Scanner) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return &guarded{
		argv: []string{"/bin/sh", "-c", text}, env: []string{"PATH=/bin:/usr/bin", "TOKEN=7"},
		out: w, errOut: io.Discard, grace: time.Minute,
	}, bufio.NewScanner(r)
}

func TestGuardedReturnsTheExitCode(t *testing.T) {
	tests := []struct {
		text string
		want int
	}{
		{"exit 0", 0},
		{"exit 3", 3},
		{"kill -9 $$", 137},
		{"kill -15 $$", 143},
		{`test "$TOKEN" = 7`, 0},
	}
	for _, tt := range tests {
		g, _ := script(t, tt.text)
		code, err := g.run(t.Context(), t.Context())
		require.NoError(t, err)
		require.Equal(t, tt.want, code, tt.text)
	}
}

func TestGuardedPassesTheStreamsOn(t *testing.T) {
	var out, errOut bytes.Buffer
	g := &guarded{argv: []string{"/bin/sh", "-c", "cat; echo wrong >&2"}, in: strings.NewReader("given"), out: &out, errOut: &errOut}
	code, err := g.run(t.Context(), t.Context())
	require.NoError(t, err)
	require.Equal(t, exitOK, code)
	require.Equal(t, "given", out.String())
	require.Equal(t, "wrong\n", errOut.String())
}

func TestGuardedThatCannotStart(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	require.NoError(t, os.WriteFile(plain, []byte("no program"), 0o600))
	for name, want := range map[string]int{"/does/not/exist": exitNotFound, "no-such-command-here": exitNotFound, plain: exitNotExecutable} {
		g := &guarded{argv: []string{name}}
		code, err := g.run(t.Context(), t.Context())
		require.Error(t, err)
		require.Equal(t, want, code, name)
	}
}

// A command that ends on SIGTERM is not killed, and the error says why it ended.
func TestGuardedIsStoppedWhenTheLockIsLost(t *testing.T) {
	g, lines := script(t, `trap 'echo bye; exit 0' TERM; echo running; while :; do read x <&3; done 3<>`+fifo(t))
	held, lose := context.WithCancelCause(t.Context())
	result := start(t.Context(), held, g)
	require.True(t, lines.Scan())
	lose(errTaken)
	got := <-result
	require.Equal(t, exitFailed, got.code)
	require.ErrorIs(t, got.err, errLost)
	require.ErrorIs(t, got.err, errTaken)
	require.True(t, lines.Scan())
	require.Equal(t, "bye", lines.Text())
}

// One that ignores SIGTERM is killed after the grace, with all that it started.
func TestGuardedIsKilledAfterTheGrace(t *testing.T) {
	g, lines := script(t, `trap '' TERM; (echo $$; while :; do read x <&3; done 3<>`+fifo(t)+`); exit 0`)
	g.grace = 50 * time.Millisecond
	held, lose := context.WithCancelCause(t.Context())
	result := start(t.Context(), held, g)
	require.True(t, lines.Scan())
	lose(errTaken)
	got := <-result
	require.ErrorIs(t, got.err, errLost)
	// Every process that could write to the pipe is gone: it has an end.
	require.NoError(t, g.out.(*os.File).Close())
	require.False(t, lines.Scan())
	require.NoError(t, lines.Err())
}

// A signal goes to the command, and the lock stays held until that has ended.
func TestGuardedGetsOurSignals(t *testing.T) {
	g, lines := script(t, `trap 'echo bye; exit 9' INT; echo running; while :; do read x <&3; done 3<>`+fifo(t))
	ctx, interrupt := context.WithCancelCause(t.Context())
	result := start(ctx, t.Context(), g)
	require.True(t, lines.Scan())
	interrupt(interrupted{syscall.SIGINT})
	got := <-result
	require.NoError(t, got.err)
	require.Equal(t, 9, got.code)
}

type ending struct {
	code int
	err  error
}

func start(ctx, held context.Context, g *guarded) <-chan ending {
	result := make(chan ending, 1)
	go func() {
		code, err := g.run(ctx, held)
		result <- ending{code, err}
	}()
	return result
}

// fifo is something to wait on for ever without a process that does.
func fifo(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(name, 0o600))
	return name
}
