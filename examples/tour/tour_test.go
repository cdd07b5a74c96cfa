package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The whole tour, as `go run ./examples/tour` shows it.
func TestTour(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	require.NoError(t, err, out.String())
	for _, line := range []string{
		"and is killed", "the lock is lost", "the store refuses", "joined the others",
		"No write was lost", "Tokens only grew", "Nobody overlapped", "Every member has every record",
	} {
		require.Contains(t, out.String(), line)
	}
}

// Whoever interrupts it gets an error, and nothing is left behind.
func TestTourEndsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, &bytes.Buffer{}), context.Canceled)
}
