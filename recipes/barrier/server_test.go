package barrier_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/recipes/barrier/barriertest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestBarrier(t *testing.T) {
	barriertest.Run(t, servertest.One(t).Endpoints())
}
