//go:build !linux

package main

import "os"

// isTerminal says whether f is a character device, which nearly always means
// a terminal.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
