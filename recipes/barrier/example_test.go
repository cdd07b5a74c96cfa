package barrier_test

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/barrier"
	"github.com/latchkey-go/latchkey/server"
)

// Three workers share out some work, and go on when all of it is done.
func Example() {
	ctx := context.Background()
	c, stop := cluster(ctx)
	defer stop()

	var mu sync.Mutex
	done := 0
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			in, err := barrier.NewDouble(c, "jobs/import", 3).Enter(ctx)
			if err != nil {
				fmt.Println(err)
				return
			}
			mu.Lock()
			done += 10 * in.Arrival().Parties // the work
			mu.Unlock()
			if err := in.Leave(ctx); err != nil {
				fmt.Println(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Println("all have finished:", done)
		})
	}
	wg.Wait()
	// Output:
	// all have finished: 90
	// all have finished: 90
	// all have finished: 90
}

// A latch counts what is done by its name, however often that is reported.
func ExampleLatch() {
	ctx := context.Background()
	c, stop := cluster(ctx)
	defer stop()

	shards := barrier.NewLatch(c, "load/shards")
	if _, err := shards.Init(ctx, 2); err != nil {
		fmt.Println(err)
		return
	}
	for _, id := range []string{"shard-0", "shard-0", "shard-1"} {
		left, err := shards.CountDown(ctx, id)
		fmt.Println(id, left, err)
	}
	fmt.Println("open:", shards.Wait(ctx))
	// Output:
	// shard-0 1 <nil>
	// shard-0 1 <nil>
	// shard-1 0 <nil>
	// open: <nil>
}

// cluster starts a member of its own for the example.
func cluster(ctx context.Context) (c *client.Client, stop func()) {
	dir, err := os.MkdirTemp("", "example-barrier-")
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
