package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// passwordBytesMax bounds a password that is read: what is longer is no password.
const passwordBytesMax = 4096

// readPassword asks for a new password, twice on a terminal and without showing it. Otherwise it is one line of input.
func (a *app) readPassword(ctx context.Context, user string) (string, error) {
	f, ok := a.in.(*os.File)
	if !ok || !isTerminal(f) {
		line, err := bufio.NewReader(io.LimitReader(a.in, passwordBytesMax)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the password: %w", err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			return "", usageErrorf("no password on standard input (--no-password makes a user without one)")
		}
		return line, nil
	}
	first, err := a.askPassword(ctx, f, fmt.Sprintf("Password of %s: ", user))
	if err != nil {
		return "", err
	}
	second, err := a.askPassword(ctx, f, fmt.Sprintf("Type password of %s again for confirmation: ", user))
	if err != nil {
		return "", err
	}
	if first != second {
		return "", usageErrorf("the two passwords differ")
	}
	return first, nil
}

func (a *app) askPassword(ctx context.Context, f *os.File, prompt string) (string, error) {
	fmt.Fprint(a.errOut, prompt)
	secret, err := readSecret(ctx, f)
	fmt.Fprintln(a.errOut)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return secret, nil
}
