package cache

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing may run on after a cache and its client were closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
