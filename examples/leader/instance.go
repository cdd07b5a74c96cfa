package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/election"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// instance is one of the instances of the service. Its name stands for its
// address too.
type instance struct {
	story  *story
	name   string
	wire   *wire
	client *client.Client
	orders chan order // what the gateway sends to this address
}

// order is a request. The answer is the term that it was served in.
type order struct {
	number int
	answer chan<- fence.Token
}

func newInstance(s *story, name string, endpoints []string) (*instance, error) {
	in := &instance{story: s, name: name, wire: newWire(), orders: make(chan order)}
	var err error
	in.client, err = client.New(client.Config{Endpoints: endpoints, Dialer: in.wire.dial, SessionTTL: sessionTTL})
	return in, err
}

// run stands for the election until ctx ends, and serves whenever it leads.
func (in *instance) run(ctx context.Context) {
	e := election.New[string](in.client, electionOf, election.WithIdentity(in.name))
	err := e.Run(ctx, in.name, in.lead)
	if err != nil && ctx.Err() == nil {
		in.story.fail(fmt.Errorf("%s: %w", in.name, err))
	}
}

// lead serves until it may not any more. Nobody else leads before it has
// returned, so it finishes what it has begun.
func (in *instance) lead(ctx context.Context, l *election.Leadership[string]) error {
	in.story.say("  %s leads, in term %d", in.name, l.Term())
	in.story.begin(l.Term())
	defer in.story.end(l.Term())
	for {
		select {
		case o := <-in.orders:
			if !l.Valid() {
				continue // nobody is told that this was served; the gateway asks another
			}
			in.story.served(o.number, l.Term())
			o.answer <- l.Term()
		case <-ctx.Done():
			var why *election.StepDown
			switch cause := context.Cause(ctx); {
			case errors.As(cause, &why):
				in.story.say("  %s steps down: %v", in.name, why)
			case errors.Is(cause, election.ErrLost):
				in.story.say("  %s stops: %v", in.name, cause)
			}
			return nil
		}
	}
}
