package harness

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kind tells which server a cluster runs.
type Kind string

// The servers that the harness knows.
const (
	Etcd     Kind = "etcd"
	Latchkey Kind = "latchkey"
)

// Tool is one program that Build makes.
type Tool string

// The programs of both sides.
const (
	ToolEtcd     Tool = "etcd"
	ToolEtcdctl  Tool = "etcdctl"
	ToolEtcdutl  Tool = "etcdutl"
	ToolLatchkey Tool = "latchkey"
)

const modulePath = "github.com/latchkey-go/latchkey/interop"

// ErrNoLatchkey says that the parent module has no cmd/latchkey to build.
var ErrNoLatchkey = errors.New("harness: the parent module has no cmd/latchkey")

// toolPackages names what to build for each tool. An empty package stands for
// the parent module's command, which is built with that module's own
// dependencies, as its users build it.
var toolPackages = map[Tool]string{
	ToolEtcd:     "go.etcd.io/etcd/server/v3",
	ToolEtcdctl:  "go.etcd.io/etcd/etcdctl/v3",
	ToolEtcdutl:  "go.etcd.io/etcd/etcdutl/v3",
	ToolLatchkey: "",
}

// ModuleDir returns the directory of this module: the working directory or the
// nearest parent that holds its go.mod.
func ModuleDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	for {
		for _, candidate := range []string{dir, filepath.Join(dir, "interop")} {
			data, err := os.ReadFile(filepath.Join(candidate, "go.mod"))
			if err == nil && strings.HasPrefix(string(data), "module "+modulePath+"\n") {
				return candidate, nil
			}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find the module: no go.mod of %s here or above", modulePath)
		}
		dir = parent
	}
}

// Build makes the tool under bin/ of this module and returns its path. The go
// command compares content, so an up-to-date binary costs a fraction of a
// second and is left alone. Several processes may build at once: a file lock
// puts them in line.
func Build(ctx context.Context, tool Tool) (string, error) {
	pkg, known := toolPackages[tool]
	if !known {
		return "", fmt.Errorf("build %s: unknown tool", tool)
	}
	dir, err := ModuleDir()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", tool, err)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", fmt.Errorf("build %s: %w", tool, err)
	}
	unlock, err := lockFile(filepath.Join(bin, ".lock"))
	if err != nil {
		return "", fmt.Errorf("build %s: %w", tool, err)
	}
	defer unlock()

	path := filepath.Join(bin, string(tool))
	if pkg == "" {
		dir = filepath.Dir(dir)
		pkg = "./cmd/latchkey"
		if _, err := os.Stat(filepath.Join(dir, "cmd", "latchkey")); err != nil {
			return "", fmt.Errorf("build %s: %w", tool, ErrNoLatchkey)
		}
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, pkg)
	cmd.Dir = dir
	// A workspace or flags of the caller must not change what is compared. Releases of
	// both are built without cgo.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-trimpath", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", tool, err, out)
	}
	return path, nil
}

// buildTimeout bounds BuildAll: all of etcd and Latchkey, compiled from nothing on
// a busy machine.
const buildTimeout = 15 * time.Minute

// BuildAll makes all tools. A suite calls it before its first test, whose time must
// not depend on what the compiler has cached.
func BuildAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	for _, tool := range slices.Sorted(maps.Keys(toolPackages)) {
		if _, err := Build(ctx, tool); err != nil && !errors.Is(err, ErrNoLatchkey) {
			return err
		}
	}
	return nil
}

// lockFile takes an exclusive lock that the kernel drops with the process.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return func() { f.Close() }, nil
}
