package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// readyLine is what both servers print on stderr when they serve clients.
const readyLine = "ready to serve client requests"

// keptLines bounds what is kept of a member's output for error messages.
const keptLines = 200

// ErrNotRunning says that the member has no process at the moment.
var ErrNotRunning = errors.New("harness: the member is not running")

// Member is one server of a cluster: its name, addresses and data outlive its
// process. Its methods may be called from any goroutine; those that start or
// end the process must not be called at the same time.
type Member struct {
	Name      string // as in --name
	ClientURL string // http://127.0.0.1:port
	PeerURL   string
	DataDir   string

	listenURL string   // where it listens for other members; PeerURL is where they dial
	network   *network // nil without one; immutable after Start, like what follows
	binary    string
	args      []string
	env       []string

	mu   sync.Mutex
	run  *process      // mu protects; nil when not running
	past time.Duration // mu protects; CPU time of ended processes
}

// process is one incarnation of a member.
type process struct {
	cmd    *exec.Cmd
	ready  chan struct{} // closed at the ready line
	exited chan struct{} // closed after state is set
	err    error         // how it ended; readable once exited is closed

	mu    sync.Mutex
	lines []string // mu protects; the last keptLines of stderr
}

// Start runs the member's process and returns when it says that it serves
// clients, when it exits or when ctx ends.
func (m *Member) Start(ctx context.Context) error {
	p, err := m.spawn()
	if err != nil {
		return fmt.Errorf("start %s: %w", m.Name, err)
	}
	return m.awaitReady(ctx, p)
}

func (m *Member) awaitReady(ctx context.Context, p *process) error {
	select {
	case <-p.ready:
		return nil
	case <-p.exited:
		return fmt.Errorf("start %s: exited early: %w\n%s", m.Name, p.err, p.tail())
	case <-ctx.Done():
		return fmt.Errorf("start %s: %w\n%s", m.Name, context.Cause(ctx), p.tail())
	}
}

// spawn starts the process without waiting for readiness.
func (m *Member) spawn() (*process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run != nil {
		return nil, errors.New("already running")
	}
	p := &process{ready: make(chan struct{}), exited: make(chan struct{})}
	p.cmd = exec.Command(m.binary, m.args...)
	p.cmd.Env = m.env
	// The kernel kills the member when the thread that started it ends, so
	// the goroutine below keeps its thread for the life of the process.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	go m.supervise(p, stderr, started)
	if err := <-started; err != nil {
		return nil, err
	}
	m.run = p
	return p, nil
}

// supervise owns the process from its start to its end.
func (m *Member) supervise(p *process, stderr io.Reader, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.read(stderr)
	p.err = p.cmd.Wait()
	m.mu.Lock()
	m.past += p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	if m.run == p {
		m.run = nil
	}
	m.mu.Unlock()
	close(p.exited)
}

// read follows stderr to its end, which is the end of the process.
func (p *process) read(stderr io.Reader) {
	isReady := false
	r := bufio.NewReader(stderr)
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			p.mu.Lock()
			if len(p.lines) == keptLines {
				p.lines = append(p.lines[:0], p.lines[1:]...)
			}
			p.lines = append(p.lines, strings.TrimSuffix(line, "\n"))
			p.mu.Unlock()
			if !isReady && strings.Contains(line, readyLine) {
				isReady = true
				close(p.ready)
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

func (m *Member) current() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.run
}

// Running tells whether the member has a process.
func (m *Member) Running() bool { return m.current() != nil }

// Output returns the last lines that the running process wrote on stderr.
func (m *Member) Output() string {
	if p := m.current(); p != nil {
		return p.tail()
	}
	return ""
}

// PID returns the process id, or ErrNotRunning.
func (m *Member) PID() (int, error) {
	p := m.current()
	if p == nil {
		return 0, ErrNotRunning
	}
	return p.cmd.Process.Pid, nil
}

// Kill ends the process with SIGKILL and waits for its end. It is no error if
// there is none.
func (m *Member) Kill() error {
	p := m.current()
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", m.Name, err)
	}
	<-p.exited
	return nil
}

// Terminate asks the process to stop with SIGTERM and waits for its end; when
// ctx ends first the process runs on.
func (m *Member) Terminate(ctx context.Context) error {
	p := m.current()
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("terminate %s: %w", m.Name, err)
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("terminate %s: %w\n%s", m.Name, context.Cause(ctx), p.tail())
	}
}

// Exited is closed when the running process ends; it is closed already when
// there is none.
func (m *Member) Exited() <-chan struct{} {
	if p := m.current(); p != nil {
		return p.exited
	}
	done := make(chan struct{})
	close(done)
	return done
}

// Pause freezes the process with SIGSTOP.
func (m *Member) Pause() error { return m.signal(syscall.SIGSTOP) }

// Resume continues a frozen process with SIGCONT.
func (m *Member) Resume() error { return m.signal(syscall.SIGCONT) }

func (m *Member) signal(s syscall.Signal) error {
	p := m.current()
	if p == nil {
		return fmt.Errorf("signal %s with %v: %w", m.Name, s, ErrNotRunning)
	}
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal %s with %v: %w", m.Name, s, err)
	}
	return nil
}

// Usage returns what the member has consumed up to now.
func (m *Member) Usage() (Usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := Usage{}
	if m.run != nil {
		var err error
		if u, err = processUsage(m.run.cmd.Process.Pid); err != nil {
			return u, err
		}
	}
	u.CPU += m.past
	return u, nil
}
