package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startServer runs `latchkey server` until it says that it is ready.
func startServer(t *testing.T, args ...string) (address string, lines *bufio.Scanner, code <-chan int) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	address = freeAddress(t)
	args = append([]string{
		"server", "--listen-client-urls=http://" + address, "--listen-peer-urls=http://" + freeAddress(t),
	}, args...)
	exited := make(chan int, 1)
	go func() {
		a := &app{in: strings.NewReader(""), out: w, errOut: w}
		exited <- a.run(context.Background(), args)
		_ = w.Close()
	}()
	lines = bufio.NewScanner(r)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "ready to serve client requests") {
			return address, lines, exited
		}
	}
	t.Fatalf("the server ended with %d before it was ready", <-exited)
	return "", nil, nil
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// It says that it is ready at every log level, serves, and ends with 0 on
// SIGTERM; its data is there when it comes back.
func TestServerCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for _, want := range []string{"", "k\nv\n"} {
		address, lines, code := startServer(t, "--data-dir="+dir, "--log-level=error", "--log-format=json")
		sh := &shell{t, address}
		require.Equal(t, want, sh.must("", "get", "k"))
		sh.must("", "put", "k", "v")
		require.Contains(t, sh.must("", "status"), ", "+etcdVersion+", ")
		require.Contains(t, sh.must("", "health"), address+" is healthy: ")
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
		for lines.Scan() { // to its end
		}
		require.Equal(t, exitOK, <-code)
	}
}

// The log goes where it is told to, and begins with the warnings and one line
// that says what has started.
func TestServerLog(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "log")
	_, lines, code := startServer(t, "--data-dir="+filepath.Join(dir, "data"), "--name=a", "--max-wals=5", "--log-outputs=stderr,"+file)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	for lines.Scan() {
	}
	require.Equal(t, exitOK, <-code)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	written := strings.Split(string(text), "\n")
	require.Contains(t, written[0], "level=WARN")
	require.Contains(t, written[0], "--max-wals has no effect")
	started := written[slices.IndexFunc(written, func(line string) bool { return strings.Contains(line, "member started") })]
	for _, word := range []string{"name=a", "data-dir=" + dir, "clients=http://127.0.0.1", "peers=http://127.0.0.1", "client-tls=off", "peer-tls=off"} {
		require.Contains(t, started, word)
	}
	require.Contains(t, string(text), "ready to serve client requests")
}

func TestServerThatCanNotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	busy := filepath.Join(t.TempDir(), "busy")
	_, lines, code := startServer(t, "--data-dir="+busy)

	tests := []struct {
		name, want string
		args       []string
	}{
		{"a used port", taken.Addr().String(), []string{"--listen-client-urls=http://" + taken.Addr().String(), "--data-dir=" + t.TempDir()}},
		{"a file for a folder", file, []string{"--data-dir=" + file}},
		{"a log that can not be opened", "log-outputs: open " + file + "/x", []string{"--log-outputs=" + file + "/x"}},
		{"a folder in use", busy, []string{"--data-dir=" + busy}},
		{"not in the cluster", "initial-cluster", []string{"--data-dir=" + filepath.Join(t.TempDir(), "d"), "--initial-cluster=other=http://127.0.0.1:1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			a := &app{in: strings.NewReader(""), out: &out, errOut: &errOut}
			free := []string{"server", "--log-level=error", "--listen-client-urls=http://" + freeAddress(t), "--listen-peer-urls=http://" + freeAddress(t)}
			require.Equal(t, exitError, a.run(t.Context(), append(free, tt.args...)))
			require.Empty(t, out.String())
			require.Contains(t, errOut.String(), tt.want)
			require.Equal(t, 1, strings.Count(errOut.String(), "\n"), errOut.String())
			require.NotContains(t, errOut.String(), "goroutine")
		})
	}
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	for lines.Scan() {
	}
	require.Equal(t, exitOK, <-code)
}

func TestHealthOfNobody(t *testing.T) {
	address := freeAddress(t)
	code, out, errOut := runApp(t, nil, "health", "--timeout=300ms", "--endpoints="+address)
	require.Equal(t, exitError, code)
	require.Contains(t, out, address+" is unhealthy: ")
	require.Equal(t, "latchkey: 1 of 1 endpoints are not healthy\n", errOut)
}

// A service manager that waits for the member is told when it serves, and when
// it ends.
func TestServerNotifiesSystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	require.NoError(t, l.SetReadDeadline(time.Now().Add(time.Minute)))
	a := &app{in: strings.NewReader(""), out: io.Discard, errOut: io.Discard, environ: []string{"NOTIFY_SOCKET=" + socket}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exited := make(chan int, 1)
	go func() {
		exited <- a.run(ctx, []string{"server", "--data-dir=" + t.TempDir(),
			"--listen-client-urls=http://" + freeAddress(t), "--listen-peer-urls=http://" + freeAddress(t)})
	}()
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		var got [64]byte
		n, err := l.Read(got[:])
		require.NoError(t, err)
		require.Equal(t, want, string(got[:n]))
		cancel()
	}
	require.Equal(t, exitOK, <-exited)
	require.NoError(t, (&app{}).notify(notifyReady))
	require.Error(t, (&app{environ: []string{"NOTIFY_SOCKET=/no/such"}}).notify(notifyReady))
}
