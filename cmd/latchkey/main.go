package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	runtime.MemProfileRate = 0 // tuneRuntime sets it where profiles are wanted
	a := &app{in: os.Stdin, out: os.Stdout, errOut: os.Stderr, environ: os.Environ()}
	os.Exit(a.run(context.Background(), os.Args[1:]))
}

// run executes one command line and returns the code to exit with. It ends
// early when parent does, or on a signal.
func (a *app) run(parent context.Context, args []string) int {
	ctx, stop := interruptible(parent)
	defer stop()
	root := newRoot(a)
	root.SetArgs(impliedServer(args))
	err := root.ExecuteContext(ctx)
	code := codeOf(err)
	if cause, ok := signalOf(ctx); ok && code == exitError {
		return cause.code() // what failed, failed because of the signal
	}
	if message := messageOf(err); message != "" {
		fmt.Fprintf(a.errOut, "%s %s\n", paint(colorOf(a.errOut), red, "latchkey:"), message)
	}
	return code
}

// impliedServer makes `latchkey --name=a` mean `latchkey server --name=a`, as
// for etcd. Help is that of the whole program.
func impliedServer(args []string) []string {
	if len(args) == 0 || !strings.HasPrefix(args[0], "-") {
		return args
	}
	switch strings.TrimLeft(args[0], "-") {
	case "h", "help":
		return append([]string{"help"}, args[1:]...)
	}
	return append([]string{"server"}, args...)
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return i.signal.String() }

// code is what shells report for a process that the signal killed.
func (i interrupted) code() int { return 128 + int(i.signal) }

// signalOf returns the signal that ended ctx, if one did.
func signalOf(ctx context.Context) (i interrupted, ok bool) {
	ok = errors.As(context.Cause(ctx), &i)
	return i, ok
}

// interruptible returns a context that the first SIGINT or SIGTERM ends. The
// second one kills the process, as if nothing was waiting for it.
func interruptible(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1) // one is all that is waited for
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-signals:
			signal.Stop(signals)
			number, _ := s.(syscall.Signal)
			cancel(interrupted{number})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-done
		signal.Stop(signals)
	}
}
