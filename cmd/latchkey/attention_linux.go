package main

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// attentive keeps the process from looking idle to Go's scheduler until stop is
// closed.
//
// When all of a process's processors (Ps) are idle, the runtime's monitor thread
// goes to sleep. The next system call that may block wakes it, and it then looks
// around every 20 us for a while. A member that is not busy is idle after each
// message, thousands of times a second, so that thread, and the switches between
// it and the others, cost more than the work: docs/decisions/0009 has the figures.
// While one P runs, the process is not idle, and the monitor's pauses grow to
// 10 ms.
//
// The P that runs here sleeps in a system call that the runtime is not told of. It
// is one more than the process would have, so that the others are as many as
// before. The runtime interrupts it by a signal when it wants to stop all (for a
// moment of garbage collection), and every 10 ms or so in any case; the nap bounds
// how long that would take without signals.
func attentive(stop <-chan struct{}) {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	nap := syscall.NsecToTimespec(int64(attentiveNap))
	for {
		select {
		case <-stop:
			return
		default:
			// An error is an interruption.
			_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0)
		}
	}
}

// attentiveNap is a pause that costs nothing that shows.
const attentiveNap = 20 * time.Millisecond
