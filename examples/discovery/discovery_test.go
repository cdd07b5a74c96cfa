package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The whole show, as `go run ./examples/discovery` gives it.
func TestShow(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), out.String())
	t.Log(out.String())
	for _, line := range []string{"ann is killed", "known to be lost", "0 before the kill", "0 afterwards", "All is well."} {
		require.Contains(t, out.String(), line)
	}
}

// Whoever interrupts it gets an error, and nothing is left behind.
func TestShowEndsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, run(ctx, &bytes.Buffer{}))
}
