//go:build !linux

package main

import (
	"os/exec"
	"syscall"
)

// isolate leaves the command in our process group.
func isolate(*exec.Cmd) (own bool) { return false }

// signal sends s to the command. One that is gone already is none the worse.
func (p *process) signal(s syscall.Signal) { _ = p.Process.Signal(s) }
