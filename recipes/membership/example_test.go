package membership_test

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/membership"
	"github.com/latchkey-go/latchkey/server"
)

// A worker joins a group and serves all shards, as it is the only one.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	c, shutdown := cluster(ctx)
	defer shutdown()
	defer stop()

	m, err := membership.Join(ctx, c, "indexers", "host-1", struct{ Rack int }{7})
	if err != nil {
		fmt.Println(err)
		return
	}
	shards := []string{"shard-0", "shard-1", "shard-2"}
	served := make(chan string, len(shards))
	ended := make(chan error, 1)
	go func() {
		ended <- membership.NewPartitioner(m, shards).Run(ctx, func(ctx context.Context, s *membership.Share) error {
			served <- fmt.Sprintf("%s: valid %v, fenced %v", s.Item(), s.Valid(), s.Token() > 0)
			<-ctx.Done() // work until then
			return nil
		})
	}()
	var lines []string
	for range shards {
		lines = append(lines, <-served)
	}
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
	stop()
	fmt.Println("ended:", <-ended)
	fmt.Println("left:", m.Leave(context.WithoutCancel(ctx)))
	// Output:
	// shard-0: valid true, fenced true
	// shard-1: valid true, fenced true
	// shard-2: valid true, fenced true
	// ended: context canceled
	// left: <nil>
}

// cluster starts a member of its own for the example.
func cluster(ctx context.Context) (c *client.Client, stop func()) {
	dir, err := os.MkdirTemp("", "example-membership-")
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
		_ = s.Stop(context.WithoutCancel(ctx))
		_ = os.RemoveAll(dir)
	}
}
