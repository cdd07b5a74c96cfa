package discovery_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/recipes/discovery/discoverytest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestDiscovery(t *testing.T) {
	discoverytest.Run(t, servertest.One(t).Endpoints())
}
