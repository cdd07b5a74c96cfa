package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The whole program, as `go run ./examples/barrier` shows it.
func TestBarrier(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), out.String())
	for _, line := range []string{"round 2", "number 3 of 4", "is told", "eve takes its place", "as it should be"} {
		require.Contains(t, out.String(), line)
	}
}

// Whoever interrupts it gets an error, and nothing is left running.
func TestBarrierEndsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, &bytes.Buffer{}), context.Canceled)
}
