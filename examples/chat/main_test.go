package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The whole play, as `go run ./examples/chat` shows it.
func TestChat(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	require.NoError(t, err, out.String())
	for _, text := range []string{"Ann: hello", "goes on with the fifth", "bans Dan", "dies in the middle (true)", "6 lines", "as promised"} {
		require.Contains(t, out.String(), text)
	}
}

// Whoever interrupts it gets an error, and nothing is left behind.
func TestChatEndsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, &bytes.Buffer{}), context.Canceled)
}
