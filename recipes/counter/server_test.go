package counter_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/recipes/counter/countertest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestCounter(t *testing.T) {
	countertest.Run(t, servertest.One(t).Endpoints())
}
