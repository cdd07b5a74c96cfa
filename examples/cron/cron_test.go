package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The whole story, as `go run ./examples/cron` shows it.
func TestCron(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), out.String())
	for _, line := range []string{"lease is revoked", "asked to step down", "is refused", "were run once"} {
		require.Contains(t, out.String(), line)
	}
}
