package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Run is one run of the suite against one server.
type Run struct {
	Suite, Bin, Module, Pattern, Log, Server string
	Timeout                                  time.Duration
}

// Outcomes of a test, as test2json names them.
const (
	pass = "pass"
	fail = "fail"
	skip = "skip"
)

// Results holds the outcome of each test, subtests under their full names.
type Results map[string]string

// event is what test2json prints a line.
type event struct{ Action, Test string }

// Do runs the suite. A test that fails is no error: it is in the results.
func (r Run) Do(ctx context.Context) (Results, error) {
	log, err := os.Create(r.Log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := []string{
		"tool", "test2json", "-t", r.Suite, "-test.v=test2json", "-test.timeout=" + r.Timeout.String(),
		"-bin-dir=" + r.Bin, "-cert-dir=" + filepath.Join(r.Module, "fixtures"),
	}
	if r.Pattern != "" {
		args = append(args, "-test.run="+r.Pattern)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(r.Module, "common") // some tests look for ../fixtures
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	results, err := follow(io.TeeReader(out, log), r.Server)
	if waited := cmd.Wait(); waited != nil {
		if exit := (*exec.ExitError)(nil); !errors.As(waited, &exit) { // the suite exits with 1 when a test fails
			err = errors.Join(err, waited)
		}
	}
	return results, err
}

// readLog takes the results from the log of an earlier run.
func readLog(path string) (Results, error) {
	log, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return follow(log, "")
}

// follow reads the events of a run and prints each top-level test of a server as it ends; of an earlier
// run, whose server is "", none.
func follow(in io.Reader, server string) (Results, error) {
	results := make(Results)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Test == "" {
			continue
		}
		switch e.Action {
		case pass, fail, skip:
			results[e.Test] = e.Action
			if server != "" && (!strings.Contains(e.Test, "/") || e.Action == fail) {
				fmt.Printf("%s: %s %s\n", server, e.Action, e.Test)
			}
		}
	}
	return results, lines.Err()
}

// Names lists the tests in order.
func (r Results) Names() []string { return slices.Sorted(maps.Keys(r)) }

// Passed counts the tests that passed.
func (r Results) Passed() int { return r.count(pass) }

func (r Results) count(outcome string) (n int) {
	for _, o := range r {
		if o == outcome {
			n++
		}
	}
	return n
}

// Summary is one line about the results.
func (r Results) Summary(server string) string {
	return fmt.Sprintf("%s: %d passed, %d failed, %d skipped", server, r.count(pass), r.count(fail), r.count(skip))
}

// table renders the results for docs/: a row for each top-level test with the
// number of its subtests that passed, failed and were skipped.
func table(results map[string]Results, o options) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# etcd's own suite, against latchkey\n\n")
	fmt.Fprintf(&b, "Package `tests/common` of etcd %s, with `etcdctl` and `etcdutl` of that version. A row is a test with its\n", suiteVersion)
	fmt.Fprintf(&b, "subtests, counted as passed, failed and skipped. Made by `make etcd-common` on %s, %d cores.\n\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU())
	if o.run != "" {
		fmt.Fprintf(&b, "Only the tests that match `%s` were run.\n\n", o.run)
	}
	servers := slices.Sorted(maps.Keys(results))
	for _, s := range servers {
		fmt.Fprintf(&b, "- %s\n", results[s].Summary(s))
	}
	b.WriteString("\n| test |")
	for _, s := range servers {
		fmt.Fprintf(&b, " %s |", s)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(servers)) + "\n")
	tests := make(map[string]bool)
	for _, r := range results {
		for name := range r {
			top, _, _ := strings.Cut(name, "/")
			tests[top] = true
		}
	}
	for _, top := range slices.Sorted(maps.Keys(tests)) {
		fmt.Fprintf(&b, "| %s |", top)
		for _, s := range servers {
			fmt.Fprintf(&b, " %s |", results[s].row(top))
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// row tells how a test and its subtests ended.
func (r Results) row(top string) string {
	own := make(Results)
	for name, outcome := range r {
		if name == top || strings.HasPrefix(name, top+"/") {
			own[name] = outcome
		}
	}
	if len(own) == 0 {
		return "-"
	}
	var parts []string
	for _, outcome := range []string{pass, fail, skip} {
		if n := own.count(outcome); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, outcome))
		}
	}
	return strings.Join(parts, ", ")
}
