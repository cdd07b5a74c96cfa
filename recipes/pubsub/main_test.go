package pubsub

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing may run on after publishers, loops and members have ended and their client
// is closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
