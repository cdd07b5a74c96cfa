//go:build !linux

package main

import (
	"context"
	"errors"
	"os"
)

// isTerminal says whether f is a character device, which nearly always means
// a terminal.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// readSecret is not done here: what is typed would show.
func readSecret(context.Context, *os.File) (string, error) {
	return "", errors.New("can not hide what is typed on this system: give the password on standard input")
}
