package pubsub_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/recipes/pubsub/pubsubtest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestPubsub(t *testing.T) {
	pubsubtest.Run(t, servertest.One(t).Endpoints())
}
