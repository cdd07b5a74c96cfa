package lock

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing may run on after a handle was released and its client closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
