package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/discovery/discoverygrpc"
)

const (
	// pace is the time between two calls.
	pace = 2 * time.Millisecond
	// row is how many calls in a row have to be answered by the right ones.
	row = 50
)

// call is what became of one call.
type call struct {
	at  time.Time // when it was made
	who string    // answered it
	err error
}

// shopper calls the service all the time.
type shopper struct {
	conn   *grpc.ClientConn
	cancel context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex // protects what follows
	calls []call
	made  chan struct{} // closed and replaced at each call
}

// startShopper starts to call the service as soon as it has an instance. It knows
// only its name.
func startShopper(ctx context.Context, c *client.Client) (*shopper, error) {
	conn, err := grpc.NewClient("latchkey:///"+service,
		grpc.WithResolvers(discoverygrpc.NewBuilder(c)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	s := &shopper{conn: conn, ended: make(chan struct{}), made: make(chan struct{})}
	ctx, s.cancel = context.WithCancel(ctx)
	go s.shop(ctx)
	return s, nil
}

// shop makes one call after the other. The first one waits for an instance.
func (s *shopper) shop(ctx context.Context) {
	defer close(s.ended)
	checkout := healthpb.NewHealthClient(s.conn)
	ticks := time.NewTicker(pace)
	defer ticks.Stop()
	for first := true; ctx.Err() == nil; first = false {
		var header metadata.MD
		c := call{at: time.Now()}
		_, c.err = checkout.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Header(&header), grpc.WaitForReady(first))
		if ctx.Err() != nil {
			return
		}
		if who := header.Get("who"); len(who) > 0 {
			c.who = who[0]
		}
		s.mu.Lock()
		s.calls = append(s.calls, c)
		close(s.made)
		s.made = make(chan struct{})
		s.mu.Unlock()
		select {
		case <-ticks.C:
		case <-ctx.Done():
		}
	}
}

// until waits until the last calls were answered by these instances, each of them
// at least once, and by nobody else.
func (s *shopper) until(ctx context.Context, names ...string) error {
	for {
		s.mu.Lock()
		seen := make(map[string]int)
		for _, c := range s.calls[max(0, len(s.calls)-row):] {
			seen[c.who]++
		}
		full, made := len(s.calls) >= row, s.made
		s.mu.Unlock()
		for _, name := range names {
			full = full && seen[name] > 0
		}
		if full && len(seen) == len(names) {
			return nil
		}
		select {
		case <-made:
		case <-ctx.Done():
			return fmt.Errorf("the last calls were answered by %v: %w", seen, ctx.Err())
		}
	}
}

// stop ends the calls and returns them.
func (s *shopper) stop() []call {
	s.cancel()
	<-s.ended
	return s.calls
}

func (s *shopper) close() {
	s.stop()
	_ = s.conn.Close() // nothing is under way
}
