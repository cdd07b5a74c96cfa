//go:build !linux || race

package socket

import "syscall"

// Read is syscall.Read for a descriptor that does not block, which tells the
// race detector that what was written before a Write happened before. It returns
// 0 bytes with every error.
func Read(fd int, p []byte) (int, error) {
	n, err := syscall.Read(fd, p)
	return max(n, 0), err
}

// Write is syscall.Write for a descriptor that does not block. It returns 0 bytes
// with every error.
func Write(fd int, p []byte) (int, error) {
	n, err := syscall.Write(fd, p)
	return max(n, 0), err
}
