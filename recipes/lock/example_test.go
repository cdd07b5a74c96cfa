package lock_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
	"github.com/latchkey-go/latchkey/server"
)

// Two programs write one report. Whoever has the lock writes, and the file's
// keeper refuses whoever has it no longer.
func Example() {
	ctx := context.Background()
	c, stop := cluster(ctx)
	defer stop()

	var gate fence.Gate // stands for the file's keeper
	write := func(h *lock.Held, text string) {
		err := gate.Do("report.txt", h.Token(), func() error { return nil })
		fmt.Printf("%s: refused %v\n", text, errors.Is(err, fence.ErrStale))
	}

	report := lock.New(c, "jobs/report")
	var slow *lock.Held
	err := report.Do(ctx, func(_ context.Context, h *lock.Held) error {
		slow = h
		write(h, "first")
		_, err := report.TryAcquire(ctx)
		fmt.Println("busy:", errors.Is(err, lock.ErrHeld))
		return nil
	})
	fmt.Println("released:", err)

	fast, err := report.Acquire(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	write(fast, "second")
	write(slow, "first again")
	fmt.Println("released:", fast.Release(ctx))
	// Output:
	// first: refused false
	// busy: true
	// released: <nil>
	// second: refused false
	// first again: refused true
	// released: <nil>
}

// cluster starts a member of its own for the example.
func cluster(ctx context.Context) (c *client.Client, stop func()) {
	dir, err := os.MkdirTemp("", "example-lock-")
	if err != nil {
		panic(err)
	}
	s, err := server.Start(ctx, server.Config{
		DataDir:          dir,
		ListenClientURLs: []string{"http://127.0.0.1:0"},
		ListenPeerURLs:   []string{"http://127.0.0.1:0"},
	})
	if err != nil {
		panic(err)
	}
	return s.Client(), func() {
		_ = s.Stop(ctx)
		_ = os.RemoveAll(dir)
	}
}
