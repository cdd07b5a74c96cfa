package queue_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/recipes/queue/queuetest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestQueue(t *testing.T) {
	queuetest.Run(t, servertest.One(t).Endpoints())
}
