package election

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing may run on after a leadership has ended and its client was closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
