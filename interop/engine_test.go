package interop_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// members are the services of deploy/compose.yaml.
var members = []string{"a", "b", "c"}

const (
	healthyTimeout = time.Minute
	enginePoll     = 200 * time.Millisecond
	cleanUpTimeout = time.Minute
	imageBytesMax  = 25_000_000
)

// engine runs the members of deploy/compose.yaml in containers, with names,
// ports and an image of its own.
type engine struct {
	t         *testing.T
	compose   []string // the command, with its flags
	project   string
	image     string
	endpoints map[string]string // by member, on loopback
	state     string            // initial-cluster-state of members that are created
}

// newEngine builds the image. Where there is no engine, the test is skipped,
// and says so on standard error as well.
func newEngine(ctx context.Context, t *testing.T) *engine {
	t.Helper()
	compose, err := findCompose(ctx)
	if err != nil {
		why := fmt.Sprintf("NOT RUN: %s: there is no container engine here (%v), so deploy/Dockerfile and deploy/compose.yaml are untested", t.Name(), err)
		fmt.Fprintln(os.Stderr, why)
		t.Skip(why)
	}
	dir, err := harness.ModuleDir()
	require.NoError(t, err)
	deploy := filepath.Join(filepath.Dir(dir), "deploy")
	name := fmt.Sprintf("latchkeytest%08x", rand.Uint32())
	e := &engine{
		t: t, project: name, image: name, endpoints: make(map[string]string), state: "new",
		compose: append(compose, "-p", name, "-f", filepath.Join(deploy, "compose.yaml")),
	}
	for _, m := range members {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		e.endpoints[m] = l.Addr().String()
		require.NoError(t, l.Close())
	}
	e.build(ctx, filepath.Dir(dir), filepath.Join(deploy, "Dockerfile"))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		if t.Failed() {
			for _, m := range members {
				t.Logf("log of %s:\n%s", m, e.run(ctx, append(e.compose, "logs", "--no-color", "--tail=60", m)...))
			}
		}
		e.run(ctx, append(e.compose, "down", "--volumes", "--remove-orphans", "--timeout", "1")...)
		e.run(ctx, "docker", "image", "rm", "--force", e.image)
	})
	return e
}

// findCompose returns the command of Compose, of either kind, if the engine
// answers.
func findCompose(ctx context.Context) ([]string, error) {
	if out, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("docker version: %w: %s", err, strings.TrimSpace(string(out)))
	}
	if exec.CommandContext(ctx, "docker", "compose", "version").Run() == nil {
		return []string{"docker", "compose"}, nil
	}
	if err := exec.CommandContext(ctx, "docker-compose", "version").Run(); err != nil {
		return nil, fmt.Errorf("docker-compose version: %w", err)
	}
	return []string{"docker-compose"}, nil
}

// build makes the image as `make image` does: nothing is fetched.
func (e *engine) build(ctx context.Context, root, dockerfile string) {
	e.t.Helper()
	dir := e.t.TempDir()
	require.NoError(e.t, os.Mkdir(filepath.Join(dir, "data"), 0o755))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "latchkey"), "./cmd/latchkey")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(e.t, err, "%s", out)
	e.must(ctx, "docker", "build", "--quiet", "--file", dockerfile, "--tag", e.image, dir)
}

// run runs a command with the variables of compose.yaml.
func (e *engine) run(ctx context.Context, args ...string) string {
	out, err := e.output(ctx, args...)
	if err != nil {
		e.t.Logf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// must is like run, and ends the test if the command fails.
func (e *engine) must(ctx context.Context, args ...string) string {
	e.t.Helper()
	out, err := e.output(ctx, args...)
	require.NoError(e.t, err, "%s: %s", strings.Join(args, " "), out)
	return out
}

func (e *engine) output(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LATCHKEY_IMAGE="+e.image, "LATCHKEY_CLUSTER_STATE="+e.state)
	for m, endpoint := range e.endpoints {
		_, port, _ := net.SplitHostPort(endpoint)
		cmd.Env = append(cmd.Env, "LATCHKEY_PORT_"+strings.ToUpper(m)+"="+port)
	}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// container returns the id of a member's container.
func (e *engine) container(ctx context.Context, member string) string {
	e.t.Helper()
	return e.must(ctx, "docker", "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project="+e.project,
		"--filter", "label=com.docker.compose.service="+member)
}

// network returns the name of the members' network.
func (e *engine) network() string { return e.project + "_cluster" }

// waitHealthy waits until the engine's own health checks pass for all of them.
func (e *engine) waitHealthy(ctx context.Context, which ...string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, healthyTimeout)
	defer cancel()
	for _, m := range which {
		id := e.container(ctx, m)
		e.eventually(ctx, "member "+m+" is healthy", func() bool {
			status := e.run(ctx, "docker", "inspect", "--format", "{{.State.Health.Status}}", id)
			return status == "healthy"
		})
	}
}

// eventually polls, as nothing of an engine signals to a test.
func (e *engine) eventually(ctx context.Context, what string, done func() bool) {
	e.t.Helper()
	ticker := time.NewTicker(enginePoll)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			require.FailNow(e.t, "waited too long until "+what)
		case <-ticker.C:
		}
	}
}
