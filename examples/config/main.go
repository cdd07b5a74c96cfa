// Config keeps a configuration file equal to what the store has under a prefix,
// for a program that can only read files. The file is replaced, never written in
// place, so whoever reads it sees one version, whole; the program here reads it
// all the time and checks that, while settings change, the store goes away and
// comes back, and history is compacted.
//
//	go run ./examples/config
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"
)

// timeout bounds the whole demonstration.
const timeout = 15 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "config:", err)
		os.Exit(1)
	}
}

// run plays all scenes, in a directory of its own, and returns what went wrong.
func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "latchkey-config-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &stage{out: out, dir: dir}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return err
	}
	for _, scene := range []func(context.Context) error{
		s.begins, s.changes, s.isDamaged, s.isCutOff, s.verdict,
	} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}
