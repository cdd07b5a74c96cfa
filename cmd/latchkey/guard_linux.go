package main

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolate puts the command in a process group of its own, so that a signal
// reaches all that it starts, and makes the kernel kill it when the thread that
// started it ends. It returns false where the command has to stay in our group:
// when we own the terminal, which reads from and interrupts one group only.
func isolate(cmd *exec.Cmd) (own bool) {
	own = !ownsTerminal()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: own, Pdeathsig: syscall.SIGKILL}
	return own
}

func ownsTerminal() bool {
	group, err := unix.IoctlGetInt(int(os.Stdin.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// signal sends s to the command, with its group if that is its own. One that
// is gone already is none the worse for it.
func (p *process) signal(s syscall.Signal) {
	pid := p.Pid
	if p.ownGroup {
		pid = -pid
	}
	_ = unix.Kill(pid, s)
}
