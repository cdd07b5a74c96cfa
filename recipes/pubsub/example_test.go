package pubsub_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/pubsub"
	"github.com/latchkey-go/latchkey/server"
)

// Messages, the application's own state, and what follows from them commit
// together.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, stop := member()
	defer stop()

	type order struct{ Item string }
	orders, err := pubsub.Open[order](ctx, c, "shop/orders", pubsub.MaxAge(24*time.Hour))
	if err != nil {
		log.Fatal(err)
	}
	// The order and its message, both or none.
	err = c.Update(ctx, func(tx *client.Tx) error {
		tx.Put("orders/7", []byte("a book"))
		return orders.PublishTx(tx, order{Item: "a book"}, pubsub.Key("customer-3"))
	})
	if err != nil {
		log.Fatal(err)
	}
	// A worker, whose effect commits with the fact that the message is handled.
	working, done := context.WithCancel(ctx)
	_ = orders.Group("shipping").Run(working, func(ctx context.Context, m *pubsub.Msg[order]) error {
		defer done()
		return m.Tx(ctx, func(tx *client.Tx) error {
			tx.Put("parcels/7", []byte(m.Value.Item))
			return nil
		})
	})
	// Anybody else, later.
	for m, err := range orders.Subscribe(ctx, pubsub.Earliest()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Key, "ordered", m.Value.Item)
		break
	}
	parcel, err := c.GetOne(ctx, "parcels/7")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("sent: %s\n", parcel.Value)
	// Output:
	// customer-3 ordered a book
	// sent: a book
}

// member starts a member of its own for the example.
func member() (c *client.Client, stop func()) {
	dir, err := os.MkdirTemp("", "example-pubsub-")
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	s, err := server.Start(ctx, server.Config{
		DataDir:          dir,
		ListenClientURLs: []string{"http://127.0.0.1:0"},
		ListenPeerURLs:   []string{"http://127.0.0.1:0"},
	})
	if err != nil {
		log.Fatal(err)
	}
	return s.Client(), func() {
		_ = s.Stop(ctx)
		_ = os.RemoveAll(dir)
	}
}
