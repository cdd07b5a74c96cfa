package harness

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Usage is what a member's process has consumed.
type Usage struct {
	CPU      time.Duration // user and system time, over all incarnations of the member
	RSS      int64         // resident bytes now; 0 when the process has ended
	PeakRSS  int64         // the most resident bytes the current process ever had
	ReadOps  int64         // read system calls of the current process
	WriteOps int64         // write system calls of the current process
}

// clockTick is the unit of /proc/<pid>/stat's times: USER_HZ, which is 100 on
// every Linux that Go supports.
const clockTick = 10 * time.Millisecond

// Positions in /proc/<pid>/stat counted after the command's closing bracket;
// the command itself may hold spaces and brackets.
const (
	statUserTime   = 11
	statSystemTime = 12
)

// processUsage reads the kernel's account of a running process.
func processUsage(pid int) (Usage, error) {
	var u Usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= statSystemTime {
		return u, fmt.Errorf("usage of process %d: short stat %q", pid, stat)
	}
	user, err1 := strconv.ParseInt(string(fields[statUserTime]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[statSystemTime]), 10, 64)
	if err1 != nil || err2 != nil {
		return u, fmt.Errorf("usage of process %d: unreadable stat %q", pid, stat)
	}
	u.CPU = time.Duration(user+system) * clockTick

	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	u.RSS = labelled(status, "VmRSS:") << 10
	u.PeakRSS = labelled(status, "VmHWM:") << 10
	if io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)); err == nil {
		u.ReadOps = labelled(io, "syscr:")
		u.WriteOps = labelled(io, "syscw:")
	}
	return u, nil
}

// labelled returns the number after a label in a /proc file; 0 when absent.
func labelled(data []byte, label string) int64 {
	_, rest, found := bytes.Cut(data, []byte(label))
	if !found {
		return 0
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
