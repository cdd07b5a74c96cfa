package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// profileFlag makes a member answer for its profiles.
const profileFlag = "--enable-pprof"

// profileAll takes one CPU profile of each of latchkey's members, for d, into dir. It returns once they are written.
func profileAll(ctx context.Context, c *harness.Cluster, dir string, pair int, d time.Duration) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	own, err := os.Create(filepath.Join(dir, fmt.Sprintf("client-%d.pb.gz", pair)))
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(own); err != nil {
		return errors.Join(err, own.Close())
	}
	results := make(chan error, len(c.Members))
	for _, m := range c.Members {
		go func() {
			path := filepath.Join(dir, fmt.Sprintf("%s-%d.pb.gz", m.Name, pair))
			results <- profileOne(ctx, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", m.ClientURL, int(d.Seconds())), path)
		}()
	}
	var errs []error
	for range c.Members {
		errs = append(errs, <-results)
	}
	pprof.StopCPUProfile()
	return errors.Join(append(errs, own.Close())...)
}

// memoryAll writes what each of latchkey's members holds into dir: the profile of its heap, the account of Go's runtime, and
// the kernel's of the process.
func memoryAll(ctx context.Context, c *harness.Cluster, dir, when string) error {
	errs := []error{os.MkdirAll(dir, 0o755)}
	for _, m := range c.Members {
		base := filepath.Join(dir, m.Name+"-"+when)
		pid, err := m.PID()
		if err != nil {
			return err
		}
		// The kernel's comes first: a profile's own memory is not in it.
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
		if err == nil {
			err = os.WriteFile(base+".smaps", maps, 0o644)
		}
		errs = append(errs, err,
			profileOne(ctx, m.ClientURL+"/debug/pprof/heap?debug=1", base+".heap.txt"),
			profileOne(ctx, m.ClientURL+"/debug/pprof/heap", base+".heap.pb.gz"))
	}
	return errors.Join(errs...)
}

func profileOne(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s answers %s", url, resp.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
