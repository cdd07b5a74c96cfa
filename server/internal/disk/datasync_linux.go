package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync flushes the file's bytes, and of its metadata only what reading them back needs: on a file whose blocks are
// all written, as the log's are, that is nothing, and the journal is left alone.
func datasync(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var syncErr error
	err = conn.Control(func(fd uintptr) {
		// EINTR says that nothing was reported yet: waiting again loses no error. Any other error is never retried.
		for syncErr = unix.Fdatasync(int(fd)); syncErr == unix.EINTR; {
			syncErr = unix.Fdatasync(int(fd))
		}
	})
	if err != nil { // it fails for one reason, in words of its own
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: os.ErrClosed}
	}
	if syncErr != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: syncErr}
	}
	return nil
}
