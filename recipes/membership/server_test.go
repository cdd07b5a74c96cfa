package membership_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey/recipes/membership/membershiptest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// Nothing may run on after members have left and runs have ended.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMembership(t *testing.T) {
	membershiptest.Run(t, servertest.One(t).Endpoints())
}
