//go:build linux && !race

package socket

import (
	"syscall"
	"unsafe"
)

// Read is syscall.Read for a descriptor that does not block. It returns 0 bytes
// with every error.
func Read(fd int, p []byte) (int, error) { return try(syscall.SYS_READ, fd, p) }

// Write is syscall.Write for a descriptor that does not block. It returns 0 bytes
// with every error.
func Write(fd int, p []byte) (int, error) { return try(syscall.SYS_WRITE, fd, p) }

func try(call uintptr, fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
