package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// guarded is a command that may run only while something is held.
type guarded struct {
	argv   []string
	env    []string // "NAME=value", all of them
	in     io.Reader
	out    io.Writer
	errOut io.Writer
	// grace is how long the command may take to end after SIGTERM.
	grace time.Duration
	// lost is what run returns when held ends; errLost if it is nil.
	lost error
}

// errLost is what run returns when the command was stopped because the lock that
// it needs was lost.
var errLost = errors.New("the lock was lost while the command ran")

// run executes the command and waits for its end. It returns the command's
// exit code in the way of shells: 128 and the number for one that a signal
// ended, 126 for one that cannot be executed, 127 for one that does not exist.
//
// When held ends the command is stopped, with SIGTERM and, if it is not gone
// after the grace, with SIGKILL; the error is then g.lost with the cause, once
// the command is gone. When ctx ends because of a signal the signal is passed
// on, and run goes on waiting: it is up to the command what to do about it.
//
// If this process dies, so does the command (on Linux): nobody would be left
// to stop it.
func (g *guarded) run(ctx, held context.Context) (int, error) {
	cmd := exec.Command(g.argv[0], g.argv[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = g.env, g.in, g.out, g.errOut
	cmd.WaitDelay = g.grace
	own := isolate(cmd)

	var result error // set before ended is closed
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		// The kernel ties the child to the thread that started it, not to the
		// process, so that thread must stay until the child is gone.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			result = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return startCode(err), fmt.Errorf("run %s: %w", g.argv[0], err)
	}
	child := &process{cmd.Process, own}
	select {
	case <-ended:
		return exitOf(result)
	case <-held.Done():
	case <-ctx.Done():
		if i, ok := signalOf(ctx); ok {
			child.forward(i.signal)
		}
		select {
		case <-ended:
			return exitOf(result)
		case <-held.Done():
		}
	}
	lost := fmt.Errorf("%w: %w", cmp.Or(g.lost, errLost), context.Cause(held))
	child.signal(syscall.SIGTERM)
	grace := time.NewTimer(g.grace)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C:
		child.signal(syscall.SIGKILL)
		<-ended
	}
	// What the command left behind in its group ends as well.
	if own {
		child.signal(syscall.SIGKILL)
	}
	return exitFailed, lost
}

// process is a child, alone in its own process group or one of ours.
type process struct {
	*os.Process
	ownGroup bool
}

// forward passes on a signal that this process got. A terminal sends its
// interrupts to the whole group, so a child in ours has had its own.
func (p *process) forward(s syscall.Signal) {
	if p.ownGroup || s != syscall.SIGINT {
		p.signal(s)
	}
}

// startCode is the exit code of a command that did not start.
func startCode(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return exitNotFound
	}
	return exitNotExecutable
}

// exitOf is the exit code of a command that ended by itself.
func exitOf(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return exitOK, nil
	case !errors.As(err, &exit):
		return exitFailed, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}
