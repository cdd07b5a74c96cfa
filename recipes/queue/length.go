package queue

import (
	"context"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

const (
	// gaugeAge is for how long a count of the queue is believed, and gaugeShare
	// which part of the room that it found may be used up on its word.
	gaugeAge   = time.Second
	gaugeShare = 4
)

// gauge knows about how many jobs there are, for the bound of the queue.
type gauge struct {
	core *core

	mu      sync.Mutex // protects what follows, and is held while it counts
	counted time.Time
	room    int
}

// admit lets n jobs in, or returns ErrFull; with wait, it waits for room.
func (g *gauge) admit(ctx context.Context, n int, wait bool) error {
	if g.core.opts.maxLength == 0 {
		return nil
	}
	for {
		ok, rev, err := g.take(ctx, n)
		if err != nil || ok {
			return err
		}
		if !wait {
			return ErrFull
		}
		for _, err := range g.core.client.Watch(ctx, shard.ItemPrefix, client.Prefix(), client.FromRevision(rev+1), client.WithoutPuts()) {
			if err != nil && ctx.Err() != nil {
				return ctxError(ctx)
			}
			break // something has ended, or it must be looked up: count again
		}
	}
}

func (g *gauge) take(ctx context.Context, n int) (bool, client.Revision, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.room >= n && time.Since(g.counted) < gaugeAge {
		g.room -= n
		return true, 0, nil
	}
	res, err := g.core.client.Get(ctx, shard.ItemPrefix, client.Prefix(), client.CountOnly())
	if err != nil {
		return false, 0, err
	}
	left := g.core.opts.maxLength - int(res.Count)
	g.counted, g.room = time.Now(), max(0, left/gaugeShare)
	if left < n {
		g.room = 0
		return false, res.Revision, nil
	}
	g.room = max(0, g.room-n)
	return true, res.Revision, nil
}
