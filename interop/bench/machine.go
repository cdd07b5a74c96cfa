package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine describes where the figures were taken.
type Machine struct {
	Date     string        `json:"date"`
	CPU      string        `json:"cpu"`
	Cores    int           `json:"cores"`
	MemoryMB int64         `json:"memory_mb"`
	Kernel   string        `json:"kernel"`
	Go       string        `json:"go"`
	Sync     time.Duration `json:"fdatasync_ns"` // median of an idle disk's fdatasync after a 4 KiB write
	Spin     time.Duration `json:"spin_ns"`      // a fixed amount of arithmetic
}

func describeMachine() Machine {
	m := Machine{
		Date:  time.Now().UTC().Format(time.RFC3339),
		Cores: runtime.NumCPU(),
		Go:    runtime.Version(),
	}
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		m.MemoryMB = int64(info.Totalram) * int64(info.Unit) >> 20
	}
	if data, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(data))
	}
	m.Spin, m.Sync = calibrate()
	return m
}

const (
	calibrationSpins = 20_000_000
	calibrationSyncs = 50
)

// calibrate measures a fixed piece of arithmetic and the disk's sync, so that
// two reports of one machine can be compared at all.
func calibrate() (spin, sync time.Duration) {
	start := time.Now()
	x := uint64(1)
	for range calibrationSpins {
		x = x*6364136223846793005 + 1442695040888963407
	}
	spin = time.Since(start)
	runtime.KeepAlive(x)

	dir, err := os.MkdirTemp("", "interop-calibrate-")
	if err != nil {
		return spin, 0
	}
	defer os.RemoveAll(dir)
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		return spin, 0
	}
	defer f.Close()
	page := make([]byte, 4096)
	var h histogram
	for i := range calibrationSyncs {
		if _, err := f.WriteAt(page, int64(i%4)*int64(len(page))); err != nil {
			return spin, 0
		}
		start := time.Now()
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return spin, 0
		}
		h.add(time.Since(start))
	}
	return spin, h.quantile(0.5)
}

// cpuTimes returns the machine's total and stolen time in clock ticks.
func cpuTimes() (total, steal int64) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	for i, field := range bytes.Fields(line)[1:] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, 0
		}
		// user nice system idle iowait irq softirq steal; the guest fields
		// that follow are part of user and nice already.
		if i < 8 {
			total += n
		}
		if i == 7 {
			steal = n
		}
	}
	return total, steal
}

func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	one, _, _ := strings.Cut(string(data), " ")
	return one
}

// ownCPU is the user and system time of this process: the client's side.
func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %d MB, Linux %s, %s; fdatasync %v; three members and the client share the cores",
		m.CPU, m.Cores, m.MemoryMB, m.Kernel, m.Go, m.Sync.Round(time.Microsecond))
}
