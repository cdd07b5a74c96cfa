package discovery_test

import (
	"context"
	"fmt"
	"os"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/discovery"
	"github.com/latchkey-go/latchkey/server"
)

// Two instances of a service register, a client balances over them, and one of
// them says goodbye.
func Example() {
	ctx := context.Background()
	c, stop := cluster(ctx)
	defer stop()

	type tags struct{ Shard int }
	var registered []*discovery.Registration[tags]
	for i, addr := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
		r, err := discovery.Register(ctx, c, discovery.Instance[tags]{
			Service: "mail", ID: fmt.Sprintf("m%d", i), Addr: addr, Meta: tags{Shard: i},
		}, discovery.WithDrainTimeout(0))
		if err != nil {
			fmt.Println(err)
			return
		}
		registered = append(registered, r)
	}

	mail := discovery.NewProvider(c, "mail", discovery.RoundRobin[tags]())
	defer mail.Close()
	for range 4 {
		in, done, err := mail.Pick(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("ask", in.Addr, "which has shard", in.Meta.Shard)
		done(nil) // with the error of the request
	}

	if err := registered[0].Drain(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println("closed:", registered[0].Close(ctx))
	for s, err := range discovery.Watch[tags](ctx, c, "mail") {
		if err != nil {
			fmt.Println(err)
		}
		fmt.Println("left are", len(s.Instances), "with", s.Instances[0].ID)
		break
	}
	fmt.Println("closed:", registered[1].Close(ctx))
	// Output:
	// ask 10.0.0.1:80 which has shard 0
	// ask 10.0.0.2:80 which has shard 1
	// ask 10.0.0.1:80 which has shard 0
	// ask 10.0.0.2:80 which has shard 1
	// closed: <nil>
	// left are 1 with m1
	// closed: <nil>
}

// cluster starts a member of its own for the example.
func cluster(ctx context.Context) (c *client.Client, stop func()) {
	dir, err := os.MkdirTemp("", "example-discovery-")
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
