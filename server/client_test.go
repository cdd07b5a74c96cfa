package server_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// What the typed client promises, on one member and on three.
func TestClient(t *testing.T) {
	t.Run("one", func(t *testing.T) { clienttest.Run(t, servertest.One(t).Endpoints()) })
	t.Run("three", func(t *testing.T) { clienttest.Run(t, servertest.Three(t).Endpoints()) })
}
