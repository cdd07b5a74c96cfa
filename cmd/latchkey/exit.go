package main

import (
	"errors"
	"fmt"
	"strings"
)

// The exit codes that every command shares. `latchkey lock` and `latchkey elect` have more.
const (
	exitOK    = 0
	exitError = 1 // the command could not do what it was asked
	exitUsage = 2 // it was asked in a wrong way

	exitUncertain = 3 // nobody knows whether the change was made
)

// The exit codes of `latchkey lock` and `elect`, beside those of their command; they are
// the same that timeout(1) and env(1) have.
const (
	exitNotAcquired   = 124 // somebody else holds the lock, or leads
	exitFailed        = 125 // the lock could not be taken, or was lost; so with leadership
	exitNotExecutable = 126
	exitNotFound      = 127
)

// usageError is an error of whoever called the program.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// exitCode is an error that carries the code to exit with. A nil err is
// reported by the code alone.
type exitCode struct {
	code int
	err  error
}

func (e exitCode) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}
func (e exitCode) Unwrap() error { return e.err }

// codeOf says what to exit with after err.
func codeOf(err error) int {
	var usage usageError
	var code exitCode
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &usage):
		return exitUsage
	default:
		return exitError
	}
}

// messageOf is the line to print about err; empty when there is none.
func messageOf(err error) string {
	var code exitCode
	if err == nil || errors.As(err, &code) && code.err == nil {
		return ""
	}
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}
