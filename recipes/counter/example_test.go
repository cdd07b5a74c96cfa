package counter_test

import (
	"context"
	"fmt"
	"os"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/counter"
	"github.com/latchkey-go/latchkey/server"
)

func Example() {
	ctx := context.Background()
	c, stop := cluster(ctx)
	defer stop()

	seats := counter.NewInt64(c, "seats")
	fmt.Println(seats.Add(ctx, 40))
	fmt.Println(seats.Add(ctx, -1))
	swapped, err := seats.CompareAndSwap(ctx, 40, 50)
	fmt.Println(swapped, err)

	ids := counter.NewSequence(c, "ids", 100)
	for range 3 {
		fmt.Println(ids.Next(ctx))
	}
	// Output:
	// 40 <nil>
	// 39 <nil>
	// false <nil>
	// 1 <nil>
	// 2 <nil>
	// 3 <nil>
}

// cluster starts a member of its own for the example.
func cluster(ctx context.Context) (c *client.Client, stop func()) {
	dir, err := os.MkdirTemp("", "example-counter-")
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
