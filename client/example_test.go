package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

func Example() {
	c, err := client.New(client.Config{Endpoints: []string{"127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	if _, err := c.Put(ctx, "greeting", []byte("hello")); err != nil {
		log.Fatal(err)
	}
	kv, err := c.GetOne(ctx, "greeting")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, written at revision %d\n", kv.Value, kv.ModRevision)
}

// A write has three outcomes, not two.
func ExampleClient_Put() {
	var c *client.Client // from New
	_, err := c.Put(context.Background(), "a", []byte("1"))
	switch {
	case err == nil:
		// It was written.
	case errors.Is(err, client.ErrUncertain):
		// It may have been written, or may be later: find out, or make it so that it does not matter.
	default:
		// It was not written.
	}
}

// Read a directory and follow it from there. When the watch has fallen behind a compaction, start again.
func ExampleClient_Watch() {
	var c *client.Client // from New
	ctx := context.Background()
	for {
		now, err := c.Get(ctx, "config/", client.Prefix())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(now.KVs), "settings")
		for ev, err := range c.Watch(ctx, "config/", client.Prefix(), client.FromRevision(now.Revision+1)) {
			if errors.Is(err, client.ErrCompacted) {
				break // read again
			}
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(ev.Type, ev.KV.Key)
		}
	}
}

// Create a key only if it does not exist, and see who has it otherwise.
func ExampleClient_Txn() {
	var c *client.Client // from New
	res, err := c.Txn().
		If(client.Missing("leader")).
		Then(client.OpPut("leader", []byte("me"))).
		Else(client.OpGet("leader")).
		Commit(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	if !res.Succeeded {
		fmt.Printf("it is %s\n", res.Results[0].Get.KVs[0].Value)
	}
}

// Take one piece from stock and write an order, both or neither.
func ExampleClient_Update() {
	var c *client.Client // from New
	stock := client.NewTyped[int](c, "stock/")
	orders := client.NewTyped[string](c, "orders/")
	errSoldOut := errors.New("sold out")
	err := c.Update(context.Background(), func(tx *client.Tx) error {
		n, err := stock.GetTx(tx, "teapot")
		if err != nil {
			return err
		}
		if n == 0 {
			return errSoldOut
		}
		if err := stock.PutTx(tx, "teapot", n-1); err != nil {
			return err
		}
		return orders.PutTx(tx, "4711", "one teapot")
	}, client.ExactlyOnce())
	if err != nil {
		log.Fatal(err)
	}
}

// A key that ends with the process that wrote it.
func ExampleSession() {
	var c *client.Client // from New
	ctx := context.Background()
	s, err := c.Session(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.Put(ctx, "workers/7", []byte("10.0.0.7:9000"), client.WithLease(s.ID())); err != nil {
		log.Fatal(err)
	}
	select {
	case <-s.Context().Done():
		fmt.Println("no longer registered:", context.Cause(s.Context()))
	case <-time.After(time.Minute):
	}
}

// Write only while a key that proves ownership is still the one that we made.
func ExampleClient_Guarded() {
	var c *client.Client // from New
	var token client.Revision
	errLost := errors.New("the lock is lost")
	guard := client.CreateRevision("lock").Equal(token)
	_, err := c.Guarded(errLost, guard).Then(client.OpPut("state", []byte("done"))).Commit(context.Background())
	if errors.Is(err, errLost) {
		fmt.Println("somebody else may be at work; nothing was written")
	}
}

// A value that several processes change, each on what the others have left.
func ExampleTyped() {
	type config struct {
		Workers int
		Paused  bool
	}
	var c *client.Client // from New
	ctx := context.Background()
	settings := client.NewTyped[config](c, "settings/")
	item, err := settings.Update(ctx, "crawler", func(old config, exists bool) (config, error) {
		old.Workers++
		return old, nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(item.Value.Workers, "workers since revision", item.Revision)
	for ev, err := range settings.Watch(ctx, "", client.Prefix(), client.FromRevision(item.Revision+1)) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(ev.Item.Key, ev.Item.Value.Paused)
	}
}
