package discovery

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing may run on after registrations and providers were closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
