package lock_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/recipes/lock/locktest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestLock(t *testing.T) {
	locktest.Run(t, servertest.One(t).Endpoints())
}
