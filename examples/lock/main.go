// Lock takes a lock on a member that runs on this machine, such as
// `latchkey server`. It is the program of the README.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

func main() {
	c, err := client.New(client.Config{Endpoints: []string{"127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	err = lock.New(c, "jobs/nightly").Do(context.Background(), func(ctx context.Context, h *lock.Held) error {
		fmt.Println("mine, with fencing token", h.Token())
		return nil // ctx ends, with a cause, if the lock is lost before this returns
	})
	if err != nil {
		log.Fatal(err)
	}
}
