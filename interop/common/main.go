package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var o options
	flag.StringVar(&o.servers, "servers", "etcd,latchkey", "which servers to run")
	flag.StringVar(&o.run, "run", "", "run only the tests that match, as go test's -run")
	flag.StringVar(&o.out, "out", "docs/etcd-common.md", "the table to write, from the root of the repository; empty for none")
	flag.StringVar(&o.reuse, "reuse", "", "servers of which the results of an earlier run are taken from its log in -logs")
	flag.DurationVar(&o.timeout, "timeout", time.Hour, "longest run of one server")
	flag.StringVar(&o.logs, "logs", "", "directory for each server's whole output; empty for a temporary one")
	flag.Parse()
	if err := o.main(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "common:", err)
		os.Exit(1)
	}
}

type options struct {
	servers, run, out, logs, reuse string
	timeout                        time.Duration
}

// suitePackage is etcd's suite; its fixtures are the certificates of its TLS
// variants.
const (
	suitePackage = "go.etcd.io/etcd/tests/v3/common"
	suiteModule  = "go.etcd.io/etcd/tests/v3"
	suiteVersion = "3.7.3"
)

func (o options) main(ctx context.Context) error {
	root, err := output(ctx, ".", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "etcd-common")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if o.logs == "" {
		o.logs = filepath.Join(os.TempDir(), "etcd-common-logs")
	}
	if err := os.MkdirAll(o.logs, 0o755); err != nil {
		return err
	}
	suite := filepath.Join(work, "common.test")
	here := filepath.Join(root, "interop", "common")
	fmt.Println("building the suite")
	if _, err := output(ctx, here, "go", "test", "-c", "-tags", "e2e", "-o", suite, suitePackage); err != nil {
		return err
	}
	module, err := output(ctx, here, "go", "list", "-m", "-f", "{{.Dir}}", suiteModule)
	if err != nil {
		return err
	}
	results := make(map[string]Results)
	for server := range strings.SplitSeq(o.servers, ",") {
		log := filepath.Join(o.logs, server+".log")
		if slices.Contains(strings.Split(o.reuse, ","), server) {
			if results[server], err = readLog(log); err != nil {
				return err
			}
			fmt.Println(results[server].Summary(server))
			continue
		}
		bin := filepath.Join(work, server)
		fmt.Println("building", server)
		if err := build(ctx, root, server, bin); err != nil {
			return err
		}
		run := Run{
			Suite: suite, Bin: bin, Module: module, Pattern: o.run,
			Timeout: o.timeout, Log: log, Server: server,
		}
		if results[server], err = run.Do(ctx); err != nil {
			return err
		}
		fmt.Println(results[server].Summary(server))
	}
	if o.out != "" {
		if err := os.WriteFile(filepath.Join(root, o.out), table(results, o), 0o644); err != nil {
			return err
		}
	}
	return verdict(results)
}

// verdict fails if latchkey fails where etcd does not, or if nothing ran.
func verdict(results map[string]Results) error {
	etcd, ours := results["etcd"], results["latchkey"]
	for server, r := range results {
		if r.Passed() == 0 {
			return fmt.Errorf("no test passed with %s: see its log", server)
		}
	}
	var faults []error
	for _, name := range ours.Names() {
		if ours[name] == fail && (etcd == nil || etcd[name] == pass) {
			faults = append(faults, fmt.Errorf("%s fails with latchkey", name))
		}
	}
	for _, name := range etcd.Names() {
		if _, ran := ours[name]; ours != nil && !ran {
			faults = append(faults, fmt.Errorf("%s did not run with latchkey", name))
		}
	}
	return errors.Join(faults...)
}

// build makes bin with the server under the name etcd, and etcd's tools.
func build(ctx context.Context, root, server, bin string) error {
	dir, pkg := filepath.Join(root, "interop"), "go.etcd.io/etcd/server/v3"
	if server == "latchkey" {
		dir, pkg = root, "./cmd/latchkey"
	}
	for _, b := range []struct{ dir, name, pkg string }{
		{dir, "etcd", pkg},
		{filepath.Join(root, "interop"), "etcdctl", "go.etcd.io/etcd/etcdctl/v3"},
		{filepath.Join(root, "interop"), "etcdutl", "go.etcd.io/etcd/etcdutl/v3"},
	} {
		if _, err := output(ctx, b.dir, "go", "build", "-o", filepath.Join(bin, b.name), b.pkg); err != nil {
			return err
		}
	}
	return nil
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
