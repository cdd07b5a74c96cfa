package main

import (
	"context"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/recipes/election"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// gateway sends requests to the leader. One goroutine uses it.
type gateway struct {
	story   *story
	leaders chan election.Leader[string] // as observed
	now     election.Leader[string]
	next    int // number of the next request
}

// observe follows the election.
func (g *gateway) observe(ctx context.Context, e *election.Election[string]) {
	for leader, err := range e.Observe(ctx) {
		if err != nil {
			if ctx.Err() == nil {
				g.story.fail(err)
			}
			return
		}
		if leader.Vacant {
			g.story.say("  nobody leads")
		}
		select {
		case g.leaders <- leader:
		case <-ctx.Done():
			return
		}
	}
}

// send sends requests, each until a leader has served it, until n have been served
// after the given term. It returns the leader that served the last.
func (g *gateway) send(ctx context.Context, n int, after fence.Token) (election.Leader[string], error) {
	pace := time.NewTicker(pace)
	defer pace.Stop()
	for n > 0 {
		if err := g.sendOne(ctx); err != nil {
			return g.now, err
		}
		if g.now.Term > after {
			n--
		}
		<-pace.C
	}
	return g.now, nil
}

// sendOne sends to whoever leads now, and moves on when that changes.
func (g *gateway) sendOne(ctx context.Context) error {
	answer := make(chan fence.Token, 1)
	g.next++
	o := order{number: g.next, answer: answer}
	for {
		var address chan<- order // nil while nobody leads
		if in := g.story.services[g.now.Value]; in != nil && !g.now.Vacant {
			address = in.orders
		}
		select {
		case leader := <-g.leaders: // what is known comes first
			g.now = leader
			continue
		default:
		}
		select {
		case leader := <-g.leaders:
			g.now = leader
		case address <- o:
			select {
			case term := <-answer:
				if term == g.now.Term {
					return nil
				}
				return fmt.Errorf("request %d was served in term %d, and the leader's is %d", o.number, term, g.now.Term)
			case leader := <-g.leaders: // it is not served by this one any more
				g.now = leader
			case <-ctx.Done():
				return ctx.Err()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
