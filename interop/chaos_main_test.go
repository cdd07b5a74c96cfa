//go:build chaos

package interop_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// A client of the chaos test is this program as well.
func TestMain(m *testing.M) {
	if args := os.Getenv(chaosEnv); args != "" {
		if err := runChaosClient(args); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	buildTools()
	goleak.VerifyTestMain(m)
}
