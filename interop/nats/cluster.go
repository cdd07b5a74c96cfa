package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	members        = 3
	startTimeout   = time.Minute
	attemptTimeout = 2 * time.Second
	ticksPerS      = 100 // USER_HZ
)

// cluster is three servers.
type cluster struct {
	dir     string
	urls    []string
	version string
	procs   []*exec.Cmd
}

func startCluster(ctx context.Context, syncInterval string) (*cluster, error) {
	dir, err := os.MkdirTemp("", "nats-")
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	if err := c.start(ctx, syncInterval); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func (c *cluster) start(ctx context.Context, syncInterval string) error {
	binary := filepath.Join(c.dir, "nats-server")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		return fmt.Errorf("build nats-server: %w\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return err
	}
	c.version = strings.TrimSpace(strings.TrimPrefix(string(out), "nats-server:"))
	ports, err := freePorts(2 * members)
	if err != nil {
		return err
	}
	var routes []string
	for i := range members {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[members+i]))
	}
	for i := range members {
		config := fmt.Sprintf(`server_name: m%d
listen: "127.0.0.1:%d"
jetstream { store_dir: %q, sync_interval: %s }
cluster { name: bench, listen: "127.0.0.1:%d", routes: [%s] }
`, i, ports[i], filepath.Join(c.dir, fmt.Sprint("m", i)), syncInterval, ports[members+i], strings.Join(routes, ", "))
		path := filepath.Join(c.dir, fmt.Sprintf("m%d.conf", i))
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			return err
		}
		p := exec.Command(binary, "-c", path)
		p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := p.Start(); err != nil {
			return err
		}
		c.procs = append(c.procs, p)
		c.urls = append(c.urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
	}
	return c.await(ctx)
}

// await waits until a stream with three replicas can be made.
func (c *cluster) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	nc, err := nats.Connect(strings.Join(c.urls, ","), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	for {
		// A question that comes before there is a leader is never answered.
		attempt, done := context.WithTimeout(ctx, attemptTimeout)
		_, err := js.CreateStream(attempt, jetstream.StreamConfig{Name: "ready", Replicas: members})
		done()
		if err == nil {
			return js.DeleteStream(ctx, "ready")
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the cluster is not ready: %w", err)
		}
	}
}

func freePorts(n int) ([]int, error) {
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}

// cpu returns the processor time that the servers have had.
func (c *cluster) cpu() (total time.Duration, err error) {
	for _, p := range c.procs {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
		for _, f := range fields[11:13] { // utime, stime
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(n) * time.Second / ticksPerS
		}
	}
	return total, nil
}

func (c *cluster) stop() {
	for _, p := range c.procs {
		_ = p.Process.Kill() // an error when it has ended
		_ = p.Wait()
	}
	_ = os.RemoveAll(c.dir)
}
