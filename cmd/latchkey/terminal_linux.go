package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// isTerminal says whether f is a terminal. A character device may be
// /dev/null as well; only a terminal has terminal settings.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// secretPollMillis is how often a wait for the keyboard looks whether it is interrupted.
const secretPollMillis = 100

// readSecret reads a line from a terminal that does not show it. The terminal is as it was afterwards, also when ctx
// ends first.
func readSecret(ctx context.Context, f *os.File) (string, error) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	silent := *before
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return "", err
	}
	// What fails to set the terminal back has nothing better to do about it.
	defer func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }()
	var line strings.Builder
	for buffer := make([]byte, passwordBytesMax); ; {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, secretPollMillis)
		switch {
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case err != nil && !errors.Is(err, unix.EINTR):
			return "", err
		case ready == 0 || err != nil:
			continue
		}
		n, err := f.Read(buffer)
		line.Write(buffer[:n])
		switch text, _, ended := strings.Cut(line.String(), "\n"); {
		case ended:
			return text, nil
		case err != nil:
			return "", err
		case n == 0 || line.Len() > passwordBytesMax:
			return "", io.ErrUnexpectedEOF
		}
	}
}
