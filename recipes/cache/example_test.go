package cache_test

import (
	"context"
	"fmt"
	"os"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/cache"
	"github.com/latchkey-go/latchkey/server"
)

// A gateway knows its routes without asking for them, and is told when they change.
func Example() {
	ctx := context.Background()
	c, stop := cluster(ctx)
	defer stop()

	type route struct {
		Host string `json:"host"`
		Port int    `json:"port"`
	}
	stored := client.NewTyped[route](c, "routes/")
	must(stored.Put(ctx, "cart", route{"shop.example", 8001}))
	must(stored.Put(ctx, "blog", route{"blog.example", 8002}))

	routes := must(cache.New(c, "routes/", cache.WithIndex("host", func(r route) []string { return []string{r.Host} })))
	defer routes.Close()
	for ev, err := range routes.Events(ctx) {
		if err != nil {
			panic(err)
		}
		switch ev.Type {
		case cache.Resynced:
			fmt.Println(len(ev.Diff), "routes to begin with")
			rev := must(stored.Put(ctx, "pay", route{"shop.example", 8003}))
			if err := routes.WaitRev(ctx, rev); err != nil {
				panic(err)
			}
			for item := range routes.ByIndex("host", "shop.example") {
				fmt.Println("shop.example:", item.Key, item.Value.Port)
			}
			continue
		case cache.Added:
			fmt.Println("new:", ev.Key, ev.New.Value.Port)
			must(stored.Put(ctx, "pay", route{"shop.example", 9000}))
			continue
		case cache.Modified:
			fmt.Println("moved:", ev.Key, ev.Old.Value.Port, "to", ev.New.Value.Port)
		}
		break
	}
	// Output:
	// 2 routes to begin with
	// shop.example: cart 8001
	// shop.example: pay 8003
	// new: pay 8003
	// moved: pay 8003 to 9000
}

// cluster starts a member of its own for the example.
func cluster(ctx context.Context) (c *client.Client, stop func()) {
	dir := must(os.MkdirTemp("", "example-cache-"))
	s := must(server.Start(ctx, server.Config{
		DataDir:          dir,
		ListenClientURLs: []string{"http://127.0.0.1:0"},
		ListenPeerURLs:   []string{"http://127.0.0.1:0"},
	}))
	return s.Client(), func() {
		_ = s.Stop(ctx)
		_ = os.RemoveAll(dir)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
