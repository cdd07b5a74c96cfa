//go:build !chaos

package interop_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing that a test started may run on: neither ours nor etcd's client.
func TestMain(m *testing.M) {
	buildTools()
	goleak.VerifyTestMain(m)
}
