package server_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(crowdVariable) != "" { // this is a helper of a test
		if err := crowd(); err != nil {
			panic(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}
