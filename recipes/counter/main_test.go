package counter

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing may run on after a client was closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
