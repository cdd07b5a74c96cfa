package queue_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/recipes/queue/queuetest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestQueue(t *testing.T) {
	queuetest.Run(t, servertest.One(t).Endpoints())
}

// Fifty storms over three members, whose leader is killed in between.
func TestStorms(t *testing.T) {
	seeds := 50
	if testing.Short() {
		seeds = 10
	}
	c := servertest.Three(t)
	down := -1
	queuetest.Storm(t, c.Endpoints(), seeds, func(seed int) {
		if down >= 0 {
			c.Restart(down)
			down = -1
		}
		if seed%10 == 5 {
			down = c.Leader()
			c.Kill(down)
		}
	})
}
