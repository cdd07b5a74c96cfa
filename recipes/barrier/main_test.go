package barrier

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing may run on after handles were left and their client closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
