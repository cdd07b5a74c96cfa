//go:build chaos

package interop_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// A client of the chaos test, and a worker of the fleet test, is this program as well.
func TestMain(m *testing.M) {
	for env, run := range map[string]func(string) error{chaosEnv: runChaosClient, fleetEnv: runFleetWorker} {
		if args := os.Getenv(env); args != "" {
			if err := run(args); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	buildTools()
	goleak.VerifyTestMain(m)
}
